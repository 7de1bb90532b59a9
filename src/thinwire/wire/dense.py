"""Kind 1: the numbers themselves."""

import torch

from thinwire.errors import ConfigError, WireError
from thinwire.payloads.dense import Dense
from thinwire.wire.kind import Kind, Parts, varint
from thinwire.wire.reader import Reader

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_FORMATS = {0: "f32", 1: "bf16", 2: "f16"}


def _parts(payload: Dense) -> Parts:
    values = payload.values
    if values.dtype not in _DTYPES or values.dim() != 1:
        raise ConfigError(
            f"dense values are a vector of float32, bfloat16 or float16, got {values.dtype} "
            f"of shape {tuple(values.shape)}"
        )
    return [bytes([_DTYPES.index(values.dtype)]), varint(values.numel()), values]


def _read(reader: Reader) -> Dense:
    tag = reader.byte("format", _FORMATS)
    if tag not in _FORMATS:
        raise WireError(f"number format {tag} is unknown; 0 to {len(_FORMATS) - 1} are known")
    numel = reader.numel()
    return Dense(reader.tensor("values", numel, _DTYPES[tag]))


DENSE = Kind(1, "dense", Dense, _parts, _read)
