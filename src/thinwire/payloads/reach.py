"""How large the numbers can be that a payload stands for, from its scales alone."""

import math

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.payloads.base import Payload
from thinwire.payloads.codebook import Codebook
from thinwire.payloads.concat import Concat
from thinwire.payloads.constant import Constant
from thinwire.payloads.dct import DCT
from thinwire.payloads.dense import Dense
from thinwire.payloads.grid import Grid
from thinwire.payloads.levels import Levels
from thinwire.payloads.low_rank import LowRank
from thinwire.payloads.powers_of_two import PowersOfTwo
from thinwire.payloads.rotated import Rotated
from thinwire.payloads.seeded_sparse import SeededSparse
from thinwire.payloads.signs import Signs
from thinwire.payloads.sparse import Sparse
from thinwire.payloads.sum import Sum

_SURE = (1e-20, 1e30)
"""Between these a sum of squares in f32 has neither overflown nor lost what counts."""


def reach(payload: Payload) -> float:
    """A bound of the magnitudes of all entries, and of all numbers on the way to them; inf where one is NaN or inf.

    It takes time for the numbers that are sent as they are, scales among them, not for the vector. It is not the least
    bound: of many numbers their norm is quicker than the largest.

    Example:
        >>> import torch
        >>> reach(Sparse(9, torch.tensor([3]), Dense(torch.tensor([-2.0]))))
        2.0
    """
    match payload:
        case Dense() | Constant():
            return _largest(payload.values)
        case Levels() | Signs() | PowersOfTwo():
            return _largest(payload.scales)
        case Codebook():
            return _largest(payload.scales) * _largest(payload.table)
        case Grid():
            return _largest(payload.lows) + _largest(payload.steps) * (payload.num_codes - 1)
        case Sparse() | SeededSparse():
            return reach(payload.values)
        case Rotated():
            # Norms are kept, but sums are scaled down only when all are made.
            return reach(payload.inner) * max(1, min(payload.block or payload.numel, payload.numel))
        case DCT():
            return reach(payload.inner) * (2 * payload.side if payload.side**2 <= payload.numel else 1)
        case LowRank():
            return _largest(payload.left) * _largest(payload.right) * payload.left.shape[1]
        case Sum():
            return sum(map(reach, payload.parts))
        case Concat():
            return max(map(reach, payload.parts))
        case _:
            return _largest(payload.to_dense())


def _largest(numbers: Tensor) -> float:
    count = numbers.numel()
    if count == 1:
        return _magnitude(float(numbers))
    if numbers.is_cpu and numbers.dtype == torch.float32:
        array = array_of(numbers).reshape(-1)
        squares = float(np.vdot(array, array))
        if _SURE[0] < squares < _SURE[1]:
            return 1.001 * math.sqrt(squares)
    if not count:
        return 0.0
    least, most = numbers.aminmax()
    return _magnitude(max(-float(least), float(most)))


def _magnitude(number: float) -> float:
    return math.inf if math.isnan(number) else abs(number)
