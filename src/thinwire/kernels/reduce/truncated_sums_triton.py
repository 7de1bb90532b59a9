"""Sums over the entries of a segment that lie near its centre, on CUDA."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.kernels.jit.launches import launch
from thinwire.kernels.reduce.block_trees_triton import block_at, fold, fold_levels, levels_of
from thinwire.kernels.reduce.truncated_sums import What

_WHAT = {"powers": 0, "weights": 1, "entries": 2}


def tail_sums(x: Tensor, offsets: Tensor, centres: Tensor, bounds: Tensor, what: What = "powers") -> Tensor:
    """See :func:`thinwire.kernels.reduce.truncated_sums.tail_sums_torch`; one pass over ``x``."""
    sums = torch.zeros((3, offsets.numel() - 1), dtype=torch.float64, device=x.device)
    if x.numel():
        levels = levels_of(offsets, x.device)
        first, totals = levels[0], sums
        if not first.is_last:
            totals = torch.empty((3, first.num_blocks), dtype=torch.float64, device=x.device)
        of_segments = [to_device(numbers, x.device).contiguous() for numbers in (centres, bounds)]
        arguments = [x.detach().contiguous(), *of_segments, *first.cut.arguments, totals, totals.shape[1]]
        launch(_tails, first.num_blocks, arguments, {"WHAT": _WHAT[what], **first.constants}, num_warps=1)
        for row in range(3):
            fold_levels(totals[row], levels[1:], sums[row])
    return sums.T.contiguous()


@triton.jit
def _tails(
    x: tl.tensor, centres: tl.tensor, bounds: tl.tensor, table: tl.tensor, num_segments: tl.tensor, size: tl.tensor,
    numel: tl.tensor, totals: tl.tensor, stride: tl.tensor,
    WHAT: tl.constexpr, UNIFORM: tl.constexpr, LOG: tl.constexpr, LAST: tl.constexpr,
) -> None:  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    segment, start, end = block_at(table, num_segments, size, numel, number, UNIFORM, LOG)
    places = start + tl.arange(0, 1 << LOG)
    exists = places < end
    entries = tl.load(x + places, mask=exists, other=0.0)
    if WHAT == 2:
        first = tl.zeros([1 << LOG], tl.float64)
        second = tl.where(entries > 0, entries, 0.0).to(tl.float64)
        third = tl.where(entries < 0, -entries, 0.0).to(tl.float64)
    else:
        bound = tl.load(bounds + segment)
        deviation = entries - tl.load(centres + segment)
        inside = exists & (tl.abs(deviation) < bound)
        a = tl.where(inside, tl.abs(deviation), 0.0).to(tl.float64)
        if WHAT == 0:
            first = inside.to(tl.float64)
            second = a
            third = a * a
        else:
            rest = tl.where(inside, bound.to(tl.float64) - a, 0.0)
            # An entry at the centre weighs inf; nothing is divided by zero for the sake of a choice.
            weight = tl.where(a > 0, rest / tl.where(a > 0, a, 1.0), float("inf"))
            first = tl.where(inside, weight, 0.0)
            second = tl.where(deviation > 0, rest, 0.0)
            third = tl.where(deviation < 0, rest, 0.0)
    target = totals + (segment if LAST else number)
    tl.store(target, fold(first, LOG))
    tl.store(target + stride, fold(second, LOG))
    tl.store(target + stride * 2, fold(third, LOG))
