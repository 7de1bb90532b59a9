"""The gaps of indices, and what they take in the codes of :mod:`~thinwire.kernels.rice` and of exp-Golomb."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.kernels.exp_golomb import num_blocks_of, num_bytes_of_bits, orders_of_gaps
from thinwire.kernels.exp_golomb_loops import choose_orders
from thinwire.kernels.numba_tools import array_of, kernel, tensor_of
from thinwire.kernels.rice import choice_of_gaps, gaps_of
from thinwire.kernels.rice_loops import choose_parameter, fill_gaps

_FEW = 1 << 13
"""Indices up to which one call for everything costs less than several threads would gain."""


@dataclass(frozen=True, slots=True, eq=False)
class GapMeasures:
    """What a choice between the codes needs, and what is at hand then.

    Args:
        gaps: :func:`thinwire.kernels.rice.gaps_of` the indices.
        parameter: the best of the Rice code.
        rice_num_bytes: what it leads to.
        orders: the best of the exp-Golomb code, one for each block of gaps.
        exp_golomb_num_bytes: what they lead to.
    """

    gaps: Tensor
    parameter: int
    rice_num_bytes: int
    orders: Tensor
    exp_golomb_num_bytes: int


def measure_gaps(indices: Tensor) -> GapMeasures:
    """The gaps of ascending indices (int64 ``[n]``) and their sizes.

    Raises:
        ConfigError: indices that are not strictly ascending from 0 or more, or a gap of ``2**48`` or more.

    Example:
        >>> measures = measure_gaps(torch.tensor([100, 250, 300]))
        >>> measures.gaps.tolist(), measures.parameter, measures.rice_num_bytes, measures.exp_golomb_num_bytes
        ([100, 149, 49], 5, 4, 5)
    """
    count = indices.numel()
    if indices.is_cpu and indices.dtype == torch.int64 and indices.dim() == 1 and count <= _FEW:
        gaps, orders = np.empty(count, np.int64), np.empty(num_blocks_of(count), np.uint8)
        is_valid, parameter, rice_num_bytes, unary, raw = _measure(array_of(indices), gaps, orders)
        if is_valid:
            return GapMeasures(
                tensor_of(gaps),
                parameter,
                rice_num_bytes,
                tensor_of(orders),
                num_bytes_of_bits(orders.size, unary, raw),
            )
    # Many indices, or the errors of those that are not valid.
    found = gaps_of(indices)
    best, num_bytes = orders_of_gaps(found)
    return GapMeasures(found, *choice_of_gaps(found), best, num_bytes)


@kernel
def _measure(indices: Any, gaps: Any, orders: Any) -> Any:
    if fill_gaps(indices, gaps) < 0:
        return False, 0, 0, 0, 0
    parameter, rice_num_bytes = choose_parameter(gaps)
    unary, raw = choose_orders(gaps, orders, 0, orders.size)
    return unary >= 0, parameter, rice_num_bytes, unary, raw
