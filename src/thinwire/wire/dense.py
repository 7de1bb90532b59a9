"""Dense payloads: a tag for the dtype, the length, the numbers."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.dense import Dense
from thinwire.wire.header import Parts, Reader, bytes_of, varint, varint_num_bytes

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def dense_parts(payload: Dense) -> Parts:
    """What follows the kind byte."""
    values = payload.values
    return [bytes([_tag(payload)]), varint(values.numel()), bytes_of(values)]


def dense_num_bytes(payload: Dense) -> int:
    """Length of :func:`dense_parts`, without making them."""
    _tag(payload)
    return 1 + varint_num_bytes(payload.numel) + payload.numel * payload.values.dtype.itemsize


def read_dense(reader: Reader) -> Dense:
    """Read what :func:`dense_parts` wrote."""
    tag = reader.byte()
    if tag >= len(_DTYPES):
        raise WireError(f"number format {tag} is unknown; 0 to {len(_DTYPES) - 1} are known")
    return Dense(reader.tensor(_DTYPES[tag], reader.numel()))


def _tag(payload: Dense) -> int:
    if payload.values.dtype not in _DTYPES or payload.values.dim() != 1:
        raise ConfigError(
            f"dense values are a vector of float32, bfloat16 or float16, got {payload.values.dtype} "
            f"of shape {tuple(payload.values.shape)}"
        )
    return _DTYPES.index(payload.values.dtype)
