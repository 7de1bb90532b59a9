"""Payloads that say something of a few entries only, as indices and values."""

import torch
from torch import Tensor

from thinwire.payloads.base import Payload
from thinwire.payloads.concat import Concat
from thinwire.payloads.dense import Dense
from thinwire.payloads.seeded_sparse import SeededSparse
from thinwire.payloads.sparse import Sparse


def num_entries(payload: Payload) -> int:
    """How many entries a payload says something of: all of them, but for sparse ones and parts that are.

    Example:
        >>> tail = Dense(torch.tensor([7.0, 8.0]))
        >>> num_entries(Concat((Sparse(100, torch.tensor([4]), Dense(torch.tensor([1.0]))), tail)))
        3
    """
    match payload:
        case Sparse(_, indices):
            return indices.numel()
        case SeededSparse(values):
            return values.numel
        case Concat(parts):
            return sum(map(num_entries, parts))
        case _:
            return payload.numel


def entries(payload: Payload) -> tuple[Tensor, Tensor]:
    """The indices of those entries, int64, ascending, and their values, f32: ``[k]`` each.

    Example:
        >>> tail = Dense(torch.tensor([7.0, 8.0]))
        >>> indices, values = entries(Concat((Sparse(100, torch.tensor([4]), Dense(torch.tensor([1.0]))), tail)))
        >>> indices.tolist(), values.tolist()
        ([4, 100, 101], [1.0, 7.0, 8.0])
    """
    match payload:
        case Sparse():
            return payload.indices, payload.kept()
        case SeededSparse():
            return entries(payload.sparse())
        case Concat(parts):
            found = [entries(part) for part in parts]
            begin, places = 0, []
            for part, (indices, _) in zip(parts, found, strict=True):
                places.append(indices + begin)
                begin += part.numel
            return torch.cat(places), torch.cat([values for _, values in found])
        case Dense(values):
            return torch.arange(values.numel(), dtype=torch.int64, device=values.device), values.to(torch.float32)
        case _:
            values = payload.to_dense()
            return torch.arange(values.numel(), dtype=torch.int64, device=values.device), values
