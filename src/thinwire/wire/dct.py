"""Kind 9: the side of the squares, and the transformed vector as a body of its own."""

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.dct import DCT
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader

_MAX_SIDE = 4096


def _parts(payload: DCT) -> Parts:
    if not 1 <= payload.side <= _MAX_SIDE:
        raise ConfigError(f"squares of side {payload.side} were given; 1 to {_MAX_SIDE} are possible")
    return [varint(payload.side), payload.inner]


def _read(reader: Reader) -> DCT:
    side = reader.varint("side")
    if not 1 <= side <= _MAX_SIDE:
        raise WireError(f"squares of side {side} are declared; 1 to {_MAX_SIDE} are possible")
    inner = reader.body("transformed vector")
    if side * side <= inner.numel:
        # Two products of matrices.
        reader.num_operations += 2 * side * inner.numel
    return DCT(inner, side)


DCT_KIND = Kind(9, "DCT", DCT, _parts, _read)
