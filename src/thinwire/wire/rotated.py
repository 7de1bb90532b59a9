"""Kind 8: the key, the rounds, the largest block, and the rotated vector as a body of its own."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.rotated import Rotated
from thinwire.wire.kind import Kind, Parts, key_bytes, varint
from thinwire.wire.reader import MAX_NUMEL, Reader

_AS_LARGE_AS_POSSIBLE = 0


def _parts(payload: Rotated) -> Parts:
    if payload.rounds not in (1, 2):
        raise ConfigError(f"{payload.rounds} rounds were given; a rotation has 1 or 2")
    if payload.block is not None and not _is_block(payload.block):
        raise ConfigError(f"a block of {payload.block} entries was given; it is None or a power of two up to 2**48")
    block = varint(_AS_LARGE_AS_POSSIBLE if payload.block is None else payload.block)
    return [key_bytes(payload.key), bytes([payload.rounds]), block, payload.inner]


def _read(reader: Reader) -> Rotated:
    key = reader.key()
    rounds = reader.byte("rounds")
    if rounds not in (1, 2):
        raise WireError(f"{rounds} rounds of a rotation are declared; 1 and 2 are possible")
    block = _read_block(reader)
    inner = reader.body("rotated vector")
    # The sums and differences of each round, at most.
    reader.num_operations += rounds * inner.numel * inner.numel.bit_length()
    return Rotated(inner, key, rounds, block)


def _read_block(reader: Reader) -> int | None:
    """A power of two, or None for blocks as large as possible."""
    block = reader.varint()
    if block == _AS_LARGE_AS_POSSIBLE:
        reader.field("block", "as large as possible")
        return None
    reader.field("block", block, "entries")
    if not _is_block(block):
        raise WireError(f"blocks of {block} entries are declared; they are 0 or a power of two up to 2**48")
    return block


def _is_block(number: int) -> bool:
    return 1 <= number <= MAX_NUMEL and number & (number - 1) == 0


ROTATED = Kind(8, "rotated", Rotated, _parts, _read)
