"""In which segment an entry lies, on CUDA: by arithmetic where segments have one size, else by a search.

For other kernels. The segments' offsets lie on the CPU, so what is asked of them here waits for nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.jit.compiling import kernel


@dataclass(frozen=True, slots=True)
class Cut:
    """How a vector is cut, as kernels are told.

    Args:
        table: int64 on the device, where the segments begin and the last one ends; anything if they have one size.
        num_segments: how many.
        size: of each segment but the last, which may be shorter; 0 if they have more than one size.
        numel: entries of all segments.
    """

    table: Tensor
    num_segments: int
    size: int
    numel: int

    @property
    def arguments(self) -> list[Tensor | int]:
        """The arguments ``table, num_segments, size, numel`` of a kernel."""
        return [self.table, self.num_segments, self.size, self.numel]

    @property
    def is_uniform(self) -> bool:
        """The constant ``UNIFORM`` of a kernel."""
        return self.size > 0


def common_size(ends: "np.ndarray[Any, Any]") -> int:
    """The size of every segment but the last, which may be shorter; 0 if there is no such size."""
    return int(_common_size(ends)) if ends.size > 1 else 0


@kernel
def _common_size(ends: Any) -> int:
    # Compiled: of a few millions of segments numpy's differences would take longer than the device's work.
    size, num_segments = ends[1] - ends[0], ends.size - 1
    last = ends[num_segments] - ends[num_segments - 1]
    if not 0 < last <= size:
        return 0
    starts, origin, num_wrong = ends[:num_segments], ends[0], 0
    for j in range(num_segments):
        num_wrong += starts[j] != origin + j * size
    return 0 if num_wrong else size


def cut_at(offsets: Tensor, device: torch.device) -> Cut:
    """The cut of a vector at ``offsets`` (int64 ``[s + 1]`` from 0 on, on the CPU)."""
    ends = array_of(offsets)
    size = common_size(ends)
    table = torch.empty(1, dtype=torch.int64, device=device) if size else to_device(tensor_of(ends), device)
    return Cut(table, ends.size - 1, size, int(ends[-1]))


@triton.jit
def search(ends: tl.tensor, low: tl.tensor, high: tl.tensor, place: tl.tensor) -> Any:
    """The last index from ``low`` to ``high`` (int64) whose number is at most ``place``."""
    while low < high:
        middle = (low + high + 1) // 2
        reached = tl.load(ends + middle) <= place
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle - 1)
    return low


@triton.jit
def search_each(ends: tl.tensor, low: tl.tensor, high: tl.tensor, span: tl.tensor, places: tl.tensor) -> Any:
    """:func:`search` for each of many places, from ``low`` to ``high``, which are ``span`` apart or less."""
    while span > 0:
        middle = (low + high + 1) // 2
        reached = tl.load(ends + middle) <= places
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle - 1)
        span = span // 2
    return low


@triton.jit
def segments_of(
    ends: tl.tensor,
    num_segments: tl.tensor,
    size: tl.tensor,
    numel: tl.tensor,
    start: tl.tensor,
    UNIFORM: tl.constexpr,
    BLOCK: tl.constexpr,
) -> Any:
    """The segments (int64) of entries ``start`` to ``start + BLOCK - 1``; of those past the end, some segment.

    A block within one segment costs one search, however many segments there are.
    """
    lanes = tl.arange(0, BLOCK)
    last = tl.minimum(start + BLOCK, numel) - 1
    if UNIFORM:
        first_segment = start // size
        last_segment = last // size
        # In 32 bits: a division of 64 for each entry would take longer than to read it.
        rest = tl.minimum((first_segment + 1) * size - start, BLOCK).to(tl.int32)
        narrow = tl.minimum(size + tl.zeros([], tl.int64), BLOCK).to(tl.int32)
        ahead = tl.where(lanes < rest, 0, 1 + (lanes - rest) // narrow)
        segments = tl.minimum(first_segment + ahead, last_segment)
    else:
        zero = tl.zeros([], tl.int64)
        first_segment = search(ends, zero, zero + (num_segments - 1), start)
        last_segment = search(ends, first_segment, zero + (num_segments - 1), last)
        zeros = tl.zeros([BLOCK], tl.int64)
        span = last_segment - first_segment
        segments = search_each(ends, first_segment + zeros, last_segment + zeros, span, start + lanes)
    return segments
