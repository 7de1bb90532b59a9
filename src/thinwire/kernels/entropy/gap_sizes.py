"""The gaps of indices, and what they take in the codes of :mod:`~thinwire.kernels.entropy.rice` and of exp-Golomb."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of
from thinwire.kernels.entropy.exp_golomb import BLOCK, num_blocks_of, orders_of_gaps
from thinwire.kernels.entropy.exp_golomb_numba import choose_orders, num_bytes_of_bits
from thinwire.kernels.entropy.gap_streams import gap_ranges
from thinwire.kernels.entropy.rice import gaps_of
from thinwire.kernels.entropy.rice_numba import choose_parameter_below, fill_gaps
from thinwire.kernels.flat.checks import check_indices
from thinwire.kernels.jit.compiling import kernel, pasted
from thinwire.kernels.jit.threads import run

_CHUNK = 1 << 12
"""Gaps that are found and measured while the cache holds them; whole blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class GapMeasures:
    """What a choice between the codes needs, and what is at hand then.

    Args:
        gaps: :func:`thinwire.kernels.entropy.rice.gaps_of` the indices.
        orders: the best of the exp-Golomb code, one for each block of gaps.
        exp_golomb_num_bytes: what they lead to.
        rice: the best parameter of the Rice code and the bytes it leads to; None where the sum of the gaps alone tells
            that these are no fewer than those of exp-Golomb.
    """

    gaps: Tensor
    orders: Tensor
    exp_golomb_num_bytes: int
    rice: tuple[int, int] | None


def measure_gaps(indices: Tensor) -> GapMeasures:
    """The gaps of ascending indices (int64 ``[n]`` on the CPU) and their sizes.

    Raises:
        ConfigError: indices that are not strictly ascending from 0 or more, or a gap of ``2**48`` or more.

    Example:
        >>> import torch
        >>> measures = measure_gaps(torch.tensor([100, 250, 300]))
        >>> measures.gaps.tolist(), measures.exp_golomb_num_bytes, measures.rice
        ([100, 149, 49], 5, (5, 4))
    """
    check_indices(indices)
    count = indices.numel()
    array, gaps, orders = array_of(indices), empty_array(count, np.int64), np.empty(num_blocks_of(count), np.uint8)
    ranges = gap_ranges(count, BLOCK)
    if len(ranges) == 1:
        num_bytes, parameter, rice_num_bytes = _measure_all(array, gaps, orders)
    else:
        found = run(_measure, [(array, gaps, orders, *part) for part in ranges])
        unary, raw = (sum(bits) for bits in zip(*found, strict=True))
        num_bytes = num_bytes_of_bits(orders.size, unary, raw) if min(found) >= (0, 0) else -1
        parameter, rice_num_bytes = choose_parameter_below(gaps, num_bytes)
    if num_bytes < 0:
        orders_of_gaps(gaps_of(indices))  # raises what is wrong with them
    rice = None if parameter < 0 else (parameter, rice_num_bytes)
    return GapMeasures(tensor_of(gaps), tensor_of(orders), num_bytes, rice)


@kernel
def _measure_all(indices: Any, gaps: Any, orders: Any) -> Any:
    """The bytes of exp-Golomb, or -1; the parameter of the Rice code, or -1, and its bytes."""
    unary, raw = _measure(indices, gaps, orders, 0, indices.size)
    num_bytes = num_bytes_of_bits(orders.size, unary, raw) if unary >= 0 else np.int64(-1)
    parameter, rice_num_bytes = choose_parameter_below(gaps, num_bytes)
    return num_bytes, parameter, rice_num_bytes


@pasted
def _measure(indices: Any, gaps: Any, orders: Any, first: int, last: int) -> Any:
    """Gaps ``first`` to ``last - 1``, which begin a block, as :func:`choose_orders`; -1 if they do not ascend."""
    unary, raw = np.int64(0), np.int64(0)
    for start in range(first, last, _CHUNK):
        stop = min(start + _CHUNK, last)
        smallest = fill_gaps(indices[start:stop], gaps[start:stop])
        if start > 0:
            gaps[start] -= indices[start - 1] + 1
            smallest = min(smallest, gaps[start])
        bits = choose_orders(gaps, orders, start // BLOCK, (stop + BLOCK - 1) // BLOCK)
        if smallest < 0 or bits[0] < 0:
            return np.int64(-1), np.int64(-1)
        unary += bits[0]
        raw += bits[1]
    return unary, raw
