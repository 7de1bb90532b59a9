"""Sparse payloads: the length, the values as a body of their own, the indices."""

from collections.abc import Callable

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.base import Payload
from thinwire.payloads.sparse import Sparse
from thinwire.wire.header import Bytes, Reader, varint, varint_num_bytes
from thinwire.wire.indices import choose_code, indices_parts, max_indices_num_bytes, read_indices


def sparse_parts(payload: Sparse, value_parts: list[bytes | Bytes]) -> list[bytes | Bytes]:
    """What follows the kind byte; ``value_parts`` is the body of the values."""
    _check(payload)
    return [varint(payload.numel), *value_parts, *indices_parts(payload.indices, payload.numel)]


def sparse_num_bytes(payload: Sparse, values_num_bytes: int) -> int:
    """Length of :func:`sparse_parts`, without making them."""
    _check(payload)
    code = choose_code(payload.indices, payload.numel)
    return varint_num_bytes(payload.numel) + values_num_bytes + code.num_bytes


def read_sparse(reader: Reader, read_values: Callable[[Reader], Payload]) -> Sparse:
    """Read what :func:`sparse_parts` wrote; ``read_values`` reads the body of the values."""
    numel = reader.numel()
    values = read_values(reader)
    if values.numel > numel:
        raise WireError(f"{values.numel} values are declared for a vector of {numel} entries")
    return Sparse(numel, read_indices(reader, values.numel, numel), values)


def max_sparse_num_bytes(numel: int, count: int, values_num_bytes: int) -> int:
    """Most bytes that a message with a sparse payload of ``count`` entries can take.

    It holds whatever the indices are.

    Args:
        numel: length of the vector.
        count: entries kept, 0 to ``numel``.
        values_num_bytes: length of the values as a message of their own (``encoded_num_bytes(values)``).

    Example:
        >>> max_sparse_num_bytes(1000, 10, values_num_bytes=50)
        67
    """
    return 1 + varint_num_bytes(numel) + values_num_bytes + max_indices_num_bytes(count, numel)


def _check(payload: Sparse) -> None:
    if payload.values.numel != payload.indices.numel():
        raise ConfigError(f"{payload.indices.numel()} indices and {payload.values.numel} values were given")
