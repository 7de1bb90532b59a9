"""Numbers of each segment for which signs count: least and largest entry, and the sums on both sides of zero."""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.flat.checks import check_entries, check_offsets, offsets_array, segment_of_each
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty, first_from, seen_as
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.reduce.block_norms import Array, fold, measure
from thinwire.kernels.reduce.segment_sums import segment_sums_torch

_CHUNK: Final = 1 << 20
"""Entries of a segment that one thread takes at once: as many as :func:`.block_norms.measure` folds."""

_MAGNITUDE = 0x7FFFFFFF


def segment_extents(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest entry of each segment: f32 ``[s]`` each; 0 for an empty segment, never -0.0.

    Args:
        x: f32 ``[d]``; NaN counts as beyond inf of its sign.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> lows, highs = segment_extents(torch.tensor([1.0, -3.0, 2.0]), torch.tensor([0, 2, 2, 3]))
        >>> lows.tolist(), highs.tolist()
        ([-3.0, 0.0, 2.0], [1.0, 0.0, 2.0])
    """
    check_entries(x)
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
        return body_for(segment_extents_torch, x.device)(x, offsets)
    numbers = _measures(array_of(x), offsets_array(offsets, x.numel()), True).astype(np.float32)
    return tensor_of(numbers[0]), tensor_of(numbers[1])


def segment_extents_torch(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`segment_extents` in torch operations, on any device."""
    sizes = to_device(offsets, x.device).diff()
    segment = segment_of_each(sizes, x.numel())
    bits = x.detach().contiguous().view(torch.int32)
    # As integers in this order floats are ordered as numbers, -0.0 before 0.0.
    order = bits ^ ((bits >> 31) & _MAGNITUDE)
    extents = []
    for which in ("amin", "amax"):
        found = order.new_zeros(sizes.numel()).scatter_reduce_(0, segment, order, which, include_self=False)
        extents.append((found ^ ((found >> 31) & _MAGNITUDE)).view(torch.float32) + 0.0)
    return extents[0], extents[1]


def segment_sides(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the entries from 0 on, the sum of those below 0, and how many are below 0, of each segment.

    The sums are those of :func:`thinwire.kernels.reduce.segment_sums.segment_sums` of ``max(x, 0)`` and of ``max(-x,
    0)``, the latter with a minus: their order is fixed.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.

    Returns:
        f64, f64 and int64, ``[s]`` each; 0 for an empty segment.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> above, below, num_below = segment_sides(torch.tensor([1.0, -3.0, 2.0]), torch.tensor([0, 2, 3]))
        >>> above.tolist(), below.tolist(), num_below.tolist()
        ([1.0, 2.0], [-3.0, 0.0], [1, 0])
    """
    check_entries(x)
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
        return body_for(segment_sides_torch, x.device)(x, offsets)
    numbers = _measures(array_of(x), offsets_array(offsets, x.numel()), False)
    return tensor_of(numbers[0]), tensor_of(0.0 - numbers[1]), tensor_of(numbers[2].astype(np.int64))


def segment_sides_torch(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`segment_sides` in torch operations, on any device."""
    sizes = to_device(offsets, x.device).diff()
    segment = segment_of_each(sizes, x.numel())
    num_below = torch.zeros_like(sizes).scatter_add_(0, segment, (x < 0).to(torch.int64))
    above, below = (segment_sums_torch(part.clamp(min=0), offsets, 1) for part in (x, -x))
    return above, 0.0 - below, num_below


def _measures(x: Array, ends: Array, extents: bool) -> Array:
    """f64 ``[3, s]``: least, largest and nothing; or the sum above zero, minus that below, and the number below."""
    numbers = np.zeros((3, ends.size - 1), np.float64)
    if not x.size:
        return numbers
    # Chunks begin where their segment does, so that no sum depends on how the threads share them.
    firsts = np.zeros(ends.size, np.int64)
    np.cumsum((np.diff(ends) + (_CHUNK - 1)) // _CHUNK, out=firsts[1:])
    totals = np.zeros((3, int(firsts[-1])), np.float64)
    run(_measure_chunks, [(x, ends, firsts, extents, first, last, totals) for first, last in shares(x.size)])
    _combine(firsts, extents, totals, numbers)
    return numbers


@kernel
def _measure_chunks(x: Any, ends: Any, firsts: Any, extents: bool, first: int, last: int, totals: Any) -> None:
    """All chunks that begin at entries ``first`` to ``last``."""
    side = empty(1024, np.float32)
    u = empty(1024, np.float32)
    folded = empty(1024, np.float64)
    one = empty(1, np.float64)
    above = empty(1024, np.float64)
    below = empty(1024, np.float64)
    bounds = empty(2, np.int32)
    segment = first_from(ends, first + 1) - 1
    while segment < ends.size - 1 and ends[segment] < last:
        begin = ends[segment]
        end = ends[segment + 1]
        skipped = max(0, (first - begin + _CHUNK - 1) // _CHUNK)
        chunk = firsts[segment] + skipped
        for start in range(begin + skipped * _CHUNK, min(end, last), _CHUNK):
            stop = min(start + _CHUNK, end)
            if extents:
                least, most = _extents(seen_as(x, np.int32)[start:stop])
                bounds[0] = least ^ ((least >> np.int32(31)) & np.int32(0x7FFFFFFF))
                bounds[1] = most ^ ((most >> np.int32(31)) & np.int32(0x7FFFFFFF))
                totals[0, chunk] = seen_as(bounds, np.float32)[0] + np.float32(0)
                totals[1, chunk] = seen_as(bounds, np.float32)[1] + np.float32(0)
            else:
                count = 0
                num_below = 0
                for block in range(start, stop, 1024):
                    entries = x[block : min(block + 1024, stop)]
                    part = side[: entries.size]
                    size = entries.size
                    num_below += _take_side(entries, False, part)
                    above[count] = measure(part, part, np.float32(1), False, 0, size, 1, u, folded, one)
                    _take_side(entries, True, part)
                    below[count] = measure(part, part, np.float32(1), False, 0, size, 1, u, folded, one)
                    count += 1
                totals[0, chunk] = fold(above, count)
                totals[1, chunk] = fold(below, count)
                totals[2, chunk] = num_below
            chunk += 1
        segment += 1


@helper
def _extents(bits: Any) -> tuple[Any, Any]:
    """The least and the largest of floats, given as their bits, in the order of numbers."""
    prefer_wide_vectors()
    least = np.int32(0x7FFFFFFF)
    most = np.int32(-0x80000000)
    for j in range(bits.size):
        order = bits[j] ^ ((bits[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        least = min(least, order)
        most = max(most, order)
    return least, most


@helper
def _take_side(u: Any, negated: bool, side: Any) -> Any:
    """The magnitudes of the entries on one side of zero, 0 for the others; how many are below zero."""
    prefer_wide_vectors()
    always_inline()
    zero = np.float32(0)
    count = np.int32(0)
    if negated:
        for j in range(u.size):
            side[j] = -u[j] if u[j] < zero else zero
    else:
        for j in range(u.size):
            side[j] = u[j] if u[j] > zero else zero
            count += np.int32(u[j] < zero)
    return count


@kernel
def _combine(firsts: Any, extents: bool, totals: Any, numbers: Any) -> None:
    """The numbers of each segment from those of its chunks; uses up ``totals``."""
    for segment in range(firsts.size - 1):
        chunks = totals[:, firsts[segment] : firsts[segment + 1]]
        count = chunks.shape[1]
        if count == 0:
            continue
        if extents:
            numbers[0, segment] = chunks[0].min()
            numbers[1, segment] = chunks[1].max()
            continue
        numbers[2, segment] = chunks[2].sum()
        for row in range(2):
            parts = chunks[row]
            left = count
            while left > 1:
                kept = 0
                for start in range(0, left, 1024):
                    total = fold(parts[start:left], min(1024, left - start))
                    parts[kept] = total
                    kept += 1
                left = kept
            numbers[row, segment] = parts[0]
