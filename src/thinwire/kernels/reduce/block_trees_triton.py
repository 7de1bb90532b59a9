"""Sums of segments in the order of :func:`thinwire.kernels.reduce.segment_sums.segment_sums`, on CUDA.

For other kernels. A program folds one block of a segment; the blocks' numbers are segments of a shorter vector, and so
on until each segment is one block. Nothing waits for the device: how many blocks there are follows from the offsets.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.flat.entries_triton import load_entries
from thinwire.kernels.flat.segments_triton import Cut, common_size, search
from thinwire.kernels.jit.launches import BLOCK, launch

_LOG = BLOCK.bit_length() - 1


@dataclass(frozen=True, slots=True)
class Level:
    """One halving of segments to blocks.

    Args:
        cut: what is folded: entries, or the numbers of the blocks of the level before. If the segments have more than
            one size, the number of each segment's first block follows after the offsets in its table.
        log: log2 of a block's entries, 1024 or as many as the longest segment needs: zeros add nothing.
        num_blocks: programs.
        is_last: whether no segment has more than one block.
    """

    cut: Cut
    log: int
    num_blocks: int
    is_last: bool

    @property
    def constants(self) -> dict[str, int]:
        """The constants ``UNIFORM``, ``LOG`` and ``LAST`` of a kernel."""
        return {"UNIFORM": self.cut.is_uniform, "LOG": self.log, "LAST": self.is_last}


def levels_of(offsets: Tensor, device: torch.device) -> list[Level]:
    """The levels of segments that are not all empty; their tables are copied to the device at once."""
    ends = array_of(offsets)
    size = common_size(ends)
    return _even_levels(ends, size, device) if size else _uneven_levels(ends, device)


def _even_levels(ends: "np.ndarray[Any, Any]", size: int, device: torch.device) -> list[Level]:
    """By arithmetic: there may be millions of segments. Of each level the last segment may be shorter."""
    num_segments, numel = ends.size - 1, int(ends[-1])
    table = torch.empty(1, dtype=torch.int64, device=device)
    levels: list[Level] = []
    while not levels or size > 1:
        log = _log_of(size)
        cut = Cut(table, num_segments, size, numel)
        size, last = -(-size >> log), -(-(numel - (num_segments - 1) * size) >> log)
        numel = (num_segments - 1) * size + last
        levels.append(Level(cut, log, numel, size == 1))
    return levels


def _uneven_levels(ends: "np.ndarray[Any, Any]", device: torch.device) -> list[Level]:
    rows, shapes = [ends], []
    longest = 0
    while longest != 1:
        sizes = np.diff(rows[-1])
        log = _log_of(int(sizes.max()))
        num_blocks = -(-sizes >> log)
        shapes.append((int(rows[-1][-1]), log))
        rows.append(np.concatenate([[0], np.cumsum(num_blocks)]))
        longest = int(num_blocks.max())
    table = to_device(tensor_of(np.stack(rows)), device)
    return [
        Level(Cut(table[k:], ends.size - 1, 0, numel), log, int(rows[k + 1][-1]), k == len(shapes) - 1)
        for k, (numel, log) in enumerate(shapes)
    ]


def _log_of(size: int) -> int:
    """log2 of a block of a segment of so many entries."""
    return min(_LOG, (size - 1).bit_length())


def sum_segments(
    x: Tensor, residual: Tensor | None, decay: float, levels: list[Level], power: int, sums: Tensor
) -> None:
    """Write the sums of ``|u|**power``, ``u = decay * residual + x`` or ``x`` alone, to ``sums``; one pass over both.

    Args:
        x: contiguous f32 ``[d]``.
        residual: contiguous f32 ``[d]``, or None.
        decay: rounded to f32.
        levels: of :func:`levels_of`, for the device of ``x``.
        power: 1 or 2.
        sums: contiguous f64 ``[s]``, changed where a segment is not empty.
    """
    first = levels[0]
    totals = sums if first.is_last else _room(first, x.device)
    arguments = [x, x if residual is None else residual, float(decay), *first.cut.arguments, totals]
    constants = {"POWER": power, "REMEMBERS": residual is not None, **first.constants}
    launch(_sum_blocks, first.num_blocks, arguments, constants, num_warps=1)
    fold_levels(totals, levels[1:], sums)


def fold_levels(numbers: Tensor, levels: list[Level], sums: Tensor) -> None:
    """Fold the f64 ``numbers`` of the blocks of the level before ``levels`` until ``sums`` are written."""
    for level in levels:
        totals = sums if level.is_last else _room(level, sums.device)
        launch(_fold_blocks, level.num_blocks, [numbers, *level.cut.arguments, totals], level.constants, num_warps=1)
        numbers = totals


def _room(level: Level, device: torch.device) -> Tensor:
    return torch.empty(level.num_blocks, dtype=torch.float64, device=device)


@triton.jit
def fold(numbers: tl.tensor, LOG: tl.constexpr) -> Any:
    """Sum of ``2**LOG`` numbers by halving, ``a = a[:n/2] + a[n/2:]``."""
    for level in tl.static_range(LOG):
        # A sum of two is the same in any order.
        numbers = tl.sum(tl.reshape(numbers, (2, 1 << (LOG - 1 - level))), 0)
    return tl.sum(numbers, 0)


@triton.jit
def block_at(
    table: tl.tensor,
    num_segments: tl.tensor,
    size: tl.tensor,
    numel: tl.tensor,
    number: tl.tensor,
    UNIFORM: tl.constexpr,
    LOG: tl.constexpr,
) -> Any:
    """The segment of a block of a :class:`Level`, where the block begins and where its segment ends; all int64."""
    if UNIFORM:
        per_segment = (size + ((1 << LOG) - 1)) >> LOG
        segment = number // per_segment
        begin = segment * size
        start = begin + ((number - segment * per_segment) << LOG)
        end = tl.minimum(begin + size, numel)
    else:
        firsts = table + (num_segments + 1)
        zero = tl.zeros([], tl.int64)
        segment = search(firsts, zero, zero + (num_segments - 1), number)
        start = tl.load(table + segment) + ((number - tl.load(firsts + segment)) << LOG)
        end = tl.load(table + segment + 1)
    return segment, start, end


@triton.jit
def _sum_blocks(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, table: tl.tensor, num_segments: tl.tensor, size: tl.tensor,
    numel: tl.tensor, totals: tl.tensor,
    POWER: tl.constexpr, REMEMBERS: tl.constexpr, UNIFORM: tl.constexpr, LOG: tl.constexpr, LAST: tl.constexpr,
) -> None:  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    segment, start, end = block_at(table, num_segments, size, numel, number, UNIFORM, LOG)
    places = start + tl.arange(0, 1 << LOG)
    inside = places < end
    u = load_entries(x, residual, decay, places, inside, REMEMBERS)
    # Chosen last: outside of the segment, zero times the factor may be NaN.
    wide = tl.where(inside, tl.abs(u), 0.0).to(tl.float64)
    if POWER == 2:
        wide = wide * wide
    tl.store(totals + (segment if LAST else number), fold(wide, LOG))


@triton.jit
def _fold_blocks(
    numbers: tl.tensor, table: tl.tensor, num_segments: tl.tensor, size: tl.tensor, numel: tl.tensor, totals: tl.tensor,
    UNIFORM: tl.constexpr, LOG: tl.constexpr, LAST: tl.constexpr,
) -> None:  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    segment, start, end = block_at(table, num_segments, size, numel, number, UNIFORM, LOG)
    places = start + tl.arange(0, 1 << LOG)
    folded = fold(tl.load(numbers + places, mask=places < end, other=0.0), LOG)
    tl.store(totals + (segment if LAST else number), folded)
