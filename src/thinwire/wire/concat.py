"""Vectors one after another: how many, and each as a body of its own."""

from collections.abc import Callable

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.payloads.concat import Concat
from thinwire.wire.header import Parts, Reader, varint, varint_num_bytes

_MAX_PARTS = 2**20


def joined_parts(payload: Concat, body: Callable[[Payload], Parts]) -> Parts:
    """What follows the kind byte; ``body`` writes that of each part."""
    _check(payload)
    return [varint(len(payload.parts)), *(piece for part in payload.parts for piece in body(part))]


def joined_num_bytes(payload: Concat, body_num_bytes: Callable[[Payload], int]) -> int:
    """Length of :func:`joined_parts`, without making them."""
    _check(payload)
    return varint_num_bytes(len(payload.parts)) + sum(map(body_num_bytes, payload.parts))


def read_joined(reader: Reader, read_body: Callable[[Reader], Payload]) -> Concat:
    """Read what :func:`joined_parts` wrote."""
    parts = []
    numel = 0
    for _ in range(read_num_pieces(reader)):
        parts.append(read_body(reader))
        numel += parts[-1].numel
        reader.check_numel(numel)
    return Concat(tuple(parts))


def read_num_pieces(reader: Reader) -> int:
    """1 to 2**20, and no more than there are bytes left."""
    count = reader.varint()
    if not 1 <= count <= min(_MAX_PARTS, reader.num_left):
        raise WireError(
            f"a vector of {count} parts is declared; it has 1 to {_MAX_PARTS}, and {reader.num_left} bytes are left"
        )
    return count


def _check(payload: Concat) -> None:
    if not 1 <= len(payload.parts) <= _MAX_PARTS:
        raise ConfigError(f"a vector of {len(payload.parts)} parts was given; it has 1 to {_MAX_PARTS}")
