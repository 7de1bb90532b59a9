"""Rotated payloads: the key, the rounds, the largest block, and the rotated vector as a body of its own."""

from collections.abc import Callable

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.payloads.rotated import Rotated
from thinwire.wire.header import KEY_NUM_BYTES, MAX_NUMEL, Parts, Reader, key_bytes, varint, varint_num_bytes

_AS_LARGE_AS_POSSIBLE = 0


def rotated_parts(payload: Rotated, body: Callable[[Payload], Parts]) -> Parts:
    """What follows the kind byte; ``body`` writes that of the inner vector."""
    block = _block(payload)
    return [key_bytes(payload.key), bytes([payload.rounds]), varint(block), *body(payload.inner)]


def rotated_num_bytes(payload: Rotated, body_num_bytes: Callable[[Payload], int]) -> int:
    """Length of :func:`rotated_parts`, without making them."""
    key_bytes(payload.key)
    return KEY_NUM_BYTES + 1 + varint_num_bytes(_block(payload)) + body_num_bytes(payload.inner)


def read_rotated(reader: Reader, read_body: Callable[[Reader], Payload]) -> Rotated:
    """Read what :func:`rotated_parts` wrote."""
    key = reader.key()
    rounds = read_rounds(reader)
    block = read_block(reader)
    inner = read_body(reader)
    reader.num_operations += rotated_operations(inner.numel, rounds)
    return Rotated(inner, key, rounds, block)


def read_rounds(reader: Reader) -> int:
    """1 or 2."""
    rounds = reader.byte()
    if rounds not in (1, 2):
        raise WireError(f"{rounds} rounds of a rotation are declared; 1 and 2 are possible")
    return rounds


def read_block(reader: Reader) -> int | None:
    """A power of two, or None for blocks as large as possible."""
    block = reader.varint()
    if block == _AS_LARGE_AS_POSSIBLE:
        return None
    if not _is_block(block):
        raise WireError(f"blocks of {block} entries are declared; they are 0 or a power of two up to 2**48")
    return block


def rotated_operations(numel: int, rounds: int) -> int:
    """What the sums and differences of each round cost, at most."""
    return rounds * numel * numel.bit_length()


def _is_block(number: int) -> bool:
    return 1 <= number <= MAX_NUMEL and number & (number - 1) == 0


def _block(payload: Rotated) -> int:
    if payload.rounds not in (1, 2):
        raise ConfigError(f"{payload.rounds} rounds were given; a rotation has 1 or 2")
    if payload.block is None:
        return _AS_LARGE_AS_POSSIBLE
    if not _is_block(payload.block):
        raise ConfigError(f"a block of {payload.block} entries was given; it is None or a power of two up to 2**48")
    return payload.block
