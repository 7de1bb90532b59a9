"""DCT payloads: the side of the squares, and the transformed vector as a body of its own."""

from collections.abc import Callable

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.payloads.dct import DCT
from thinwire.wire.header import Parts, Reader, varint, varint_num_bytes

_MAX_SIDE = 4096


def cosine_parts(payload: DCT, body: Callable[[Payload], Parts]) -> Parts:
    """What follows the kind byte; ``body`` writes that of the inner vector."""
    _check(payload)
    return [varint(payload.side), *body(payload.inner)]


def cosine_num_bytes(payload: DCT, body_num_bytes: Callable[[Payload], int]) -> int:
    """Length of :func:`cosine_parts`, without making them."""
    _check(payload)
    return varint_num_bytes(payload.side) + body_num_bytes(payload.inner)


def read_cosine(reader: Reader, read_body: Callable[[Reader], Payload]) -> DCT:
    """Read what :func:`cosine_parts` wrote."""
    side = read_side(reader)
    inner = read_body(reader)
    reader.num_operations += cosine_operations(inner.numel, side)
    return DCT(inner, side)


def read_side(reader: Reader) -> int:
    """1 to 4096."""
    side = reader.varint()
    if not 1 <= side <= _MAX_SIDE:
        raise WireError(f"squares of side {side} are declared; 1 to {_MAX_SIDE} are possible")
    return side


def cosine_operations(numel: int, side: int) -> int:
    """What two products of matrices cost; nothing where no chunk is whole."""
    return 2 * side * numel if side * side <= numel else 0


def _check(payload: DCT) -> None:
    if not 1 <= payload.side <= _MAX_SIDE:
        raise ConfigError(f"squares of side {payload.side} were given; 1 to {_MAX_SIDE} are possible")
