"""Sums and maxima of magnitudes, segment by segment, on CUDA."""

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.flat.entries_triton import load_entries
from thinwire.kernels.jit.launches import launch
from thinwire.kernels.reduce.block_trees_triton import block_at, levels_of, sum_segments


def segment_sums(x: Tensor, offsets: Tensor, power: Literal[1, 2]) -> Tensor:
    """See :func:`thinwire.kernels.reduce.segment_sums.segment_sums_torch`; one pass over ``x``."""
    sums = torch.zeros(offsets.numel() - 1, dtype=torch.float64, device=x.device)
    if x.numel():
        sum_segments(x.detach().contiguous(), None, 1.0, levels_of(offsets, x.device), power, sums)
    return sums


def segment_max(x: Tensor, offsets: Tensor) -> Tensor:
    """See :func:`thinwire.kernels.reduce.segment_sums.segment_max_torch`; one pass over ``x``."""
    return max_segments(x.detach().contiguous(), None, 1.0, offsets)


def max_segments(x: Tensor, residual: Tensor | None, decay: float, offsets: Tensor) -> Tensor:
    """The largest ``|decay * residual + x|``, or ``|x|``, of each segment, for other kernels: f32 ``[s]``; one pass.

    Args:
        x: contiguous f32 ``[d]``.
        residual: contiguous f32 ``[d]``, or None.
        decay: rounded to f32.
        offsets: int64 ``[s + 1]`` on the CPU: where the segments begin.
    """
    largest = torch.zeros(offsets.numel() - 1, dtype=torch.int32, device=x.device)
    if x.numel():
        level = levels_of(offsets, x.device)[0]
        arguments = [x, x if residual is None else residual, float(decay), *level.cut.arguments, largest]
        constants = {"REMEMBERS": residual is not None, "UNIFORM": level.cut.is_uniform, "LOG": level.log}
        launch(_max_blocks, level.num_blocks, arguments, constants, num_warps=1)
    return largest.view(torch.float32)


@triton.jit
def _max_blocks(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, table: tl.tensor, num_segments: tl.tensor, size: tl.tensor,
    numel: tl.tensor, largest: tl.tensor,
    REMEMBERS: tl.constexpr, UNIFORM: tl.constexpr, LOG: tl.constexpr,
) -> None:  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    segment, start, end = block_at(table, num_segments, size, numel, number, UNIFORM, LOG)
    places = start + tl.arange(0, 1 << LOG)
    inside = places < end
    u = load_entries(x, residual, decay, places, inside, REMEMBERS)
    # Of bits: NaN is the largest, and the largest of whole numbers is the same in any order.
    bits = tl.where(inside, u.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0)
    tl.atomic_max(largest + segment, tl.max(bits, 0))
