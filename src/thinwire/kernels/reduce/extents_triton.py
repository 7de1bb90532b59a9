"""Numbers of each segment for which signs count, on CUDA: extents, and the sums on both sides of zero."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.kernels.jit.launches import launch
from thinwire.kernels.reduce.block_trees_triton import Level, block_at, fold, fold_levels, levels_of


def segment_extents(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`thinwire.kernels.reduce.extents.segment_extents_torch`; one pass over ``x``."""
    order = torch.empty((2, offsets.numel() - 1), dtype=torch.int32, device=x.device)
    order[0] = 0x7FFFFFFF
    order[1] = -0x80000000
    if x.numel():
        level = levels_of(offsets, x.device)[0]
        arguments = [x.detach().contiguous(), *level.cut.arguments, order[0], order[1]]
        launch(_extents, level.num_blocks, arguments, {"UNIFORM": level.cut.is_uniform, "LOG": level.log}, num_warps=1)
    is_empty = offsets.diff() == 0
    if is_empty.any():
        order.masked_fill_(to_device(is_empty, x.device), 0)
    # -0.0 becomes 0.0.
    found = (order ^ ((order >> 31) & 0x7FFFFFFF)).view(torch.float32) + 0.0
    return found[0], found[1]


def segment_sides(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`thinwire.kernels.reduce.extents.segment_sides_torch`; one pass over ``x``."""
    sums, num_below = measure_sides(x, offsets, False)
    return sums[0], 0.0 - sums[1], num_below


def measure_sides(x: Tensor, offsets: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """Sums of each segment in one pass, for other kernels.

    Args:
        x: f32 ``[d]``.
        offsets: int64 ``[s + 1]`` on the CPU: where the segments begin.
        squared: whether squares and the largest magnitudes are asked for too.

    Returns:
        f64 ``[3, s]``: the sums of the positive entries, of the magnitudes of the negative ones, of squares (zeros if
        they are not asked for); and int64 ``[s]``: how many entries are negative, or the bits of the largest
        magnitude.
    """
    num_segments = offsets.numel() - 1
    sums = torch.zeros((3, num_segments), dtype=torch.float64, device=x.device)
    counts = torch.zeros(num_segments, dtype=torch.int64, device=x.device)
    if x.numel():
        levels = levels_of(offsets, x.device)
        totals = sums if levels[0].is_last else _room(levels[0], x.device)
        arguments = [x.detach().contiguous(), *levels[0].cut.arguments, totals, totals.shape[1], counts]
        constants = {"SQUARED": squared, **levels[0].constants}
        launch(_sides, levels[0].num_blocks, arguments, constants, num_warps=1)
        for row in range(2 + squared):
            fold_levels(totals[row], levels[1:], sums[row])
    return sums, counts


def _room(level: Level, device: torch.device) -> Tensor:
    return torch.empty((3, level.num_blocks), dtype=torch.float64, device=device)


@triton.jit
def _extents(
    x: tl.tensor, table: tl.tensor, num_segments: tl.tensor, size: tl.tensor, numel: tl.tensor, least: tl.tensor,
    most: tl.tensor,
    UNIFORM: tl.constexpr, LOG: tl.constexpr,
) -> None:  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    segment, start, end = block_at(table, num_segments, size, numel, number, UNIFORM, LOG)
    places = start + tl.arange(0, 1 << LOG)
    inside = places < end
    bits = tl.load(x + places, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    # As integers in this order floats are ordered as numbers, -0.0 before 0.0.
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    tl.atomic_min(least + segment, tl.min(tl.where(inside, order, 0x7FFFFFFF), 0))
    tl.atomic_max(most + segment, tl.max(tl.where(inside, order, -0x80000000), 0))


@triton.jit
def _sides(
    x: tl.tensor, table: tl.tensor, num_segments: tl.tensor, size: tl.tensor, numel: tl.tensor, totals: tl.tensor,
    stride: tl.tensor, counts: tl.tensor,
    SQUARED: tl.constexpr, UNIFORM: tl.constexpr, LOG: tl.constexpr, LAST: tl.constexpr,
) -> None:  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    segment, start, end = block_at(table, num_segments, size, numel, number, UNIFORM, LOG)
    places = start + tl.arange(0, 1 << LOG)
    u = tl.load(x + places, mask=places < end, other=0.0)
    target = totals + (segment if LAST else number)
    # A negative entry comes as -x or 0.0, never as -0.0: of zeros alone the sum is 0.0.
    tl.store(target, fold(tl.where(u > 0, u, 0.0).to(tl.float64), LOG))
    tl.store(target + stride, fold(tl.where(u < 0, -u, 0.0).to(tl.float64), LOG))
    if SQUARED:
        wide = u.to(tl.float64)
        tl.store(target + stride * 2, fold(wide * wide, LOG))
        bits = u.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        tl.atomic_max(counts + segment, tl.max(bits, 0).to(tl.int64))
    else:
        tl.atomic_add(counts + segment, tl.sum((u < 0).to(tl.int32), 0).to(tl.int64))
