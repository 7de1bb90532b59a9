"""Sparse payloads: the length, the values as a body of their own, the indices."""

from collections.abc import Callable

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.payloads.sparse import Sparse
from thinwire.wire.header import Parts, Reader, varint, varint_num_bytes
from thinwire.wire.indices import choose_code, indices_parts, read_indices


def sparse_parts(payload: Sparse, body: Callable[[Payload], Parts]) -> Parts:
    """What follows the kind byte; ``body`` writes that of the values."""
    _check(payload)
    return [varint(payload.numel), *body(payload.values), *indices_parts(payload.indices, payload.numel)]


def sparse_num_bytes(payload: Sparse, body_num_bytes: Callable[[Payload], int]) -> int:
    """Length of :func:`sparse_parts`, without making them."""
    _check(payload)
    code = choose_code(payload.indices, payload.numel)
    return varint_num_bytes(payload.numel) + body_num_bytes(payload.values) + code.num_bytes


def read_sparse(reader: Reader, read_body: Callable[[Reader], Payload]) -> Sparse:
    """Read what :func:`sparse_parts` wrote; ``read_body`` reads the values."""
    numel = reader.numel()
    values = read_body(reader)
    if values.numel > numel:
        raise WireError(f"{values.numel} values are declared for a vector of {numel} entries")
    return Sparse(numel, read_indices(reader, values.numel, numel), values)


def _check(payload: Sparse) -> None:
    if payload.values.numel != payload.indices.numel():
        raise ConfigError(f"{payload.indices.numel()} indices and {payload.values.numel} values were given")
