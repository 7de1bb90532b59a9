"""One number for each segment of a vector, or of a vector and its residual: a sum of magnitudes or squares, a maximum.

For other kernels. What is measured is ``u = decay * residual + x`` (or ``x`` alone), made block by block in the
processor's nearest cache and never written to memory: who needs it again makes it again.
"""

import itertools
import threading
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import aligned_array
from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.hints import always_inline, borrowed, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty
from thinwire.kernels.jit.simd import LANES
from thinwire.kernels.jit.threads import run
from thinwire.kernels.reduce.block_norms_simd import (
    LONG_FOLD,
    SHORT_FOLD,
    bits_of,
    float_of,
    fold_long_magnitudes,
    fold_long_squares,
    fold_short_magnitudes,
    fold_short_squares,
    make_groups,
    make_largest,
)

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Source: TypeAlias = tuple[Array, Array, np.float32, bool]
"""Where entries come from: ``x``, the residual, its decay, and whether there is a residual at all."""

BLOCK: Final = 1024
"""Entries that are worked on at a time."""

NEAR: Final = 1 << 16
"""Entries of a segment that is still in the processor's own cache after it was measured."""

_CHUNK: Final = 1 << 20
"""Entries whose blocks, 1024 of them, are folded into one number."""


class _Scratch(threading.local):
    """Each thread's own: it runs one kernel at a time."""

    def __init__(self) -> None:
        u, folded, totals = (aligned_array(BLOCK, kind) for kind in (np.float32, np.float64, np.float64))
        self.arrays = u, folded, totals


_SCRATCH = _Scratch()


def scratch() -> tuple[Array, Array, Array]:
    """This thread's room for :func:`measure`, which owns none: it can then borrow it, and one kernel less is compiled.

    Until the next kernel that takes it runs on this thread.
    """
    return _SCRATCH.arrays


def check_residual(x: Tensor, residual: Tensor, out: Tensor) -> None:
    """Raise ConfigError unless the residual and what becomes of it are contiguous f32 like ``x``, on its device."""
    for name, tensor in (("residual", residual), ("result", out)):
        if tensor.dtype != torch.float32 or tensor.shape != x.shape or tensor.device != x.device:
            raise ConfigError(
                f"a {name} of {tensor.dtype} and shape {tuple(tensor.shape)} on {tensor.device} was given for float32 "
                f"entries of shape {tuple(x.shape)} on {x.device}; they must be alike"
            )
        if not tensor.is_contiguous():
            raise ConfigError(f"the {name} must be contiguous; copy it with .contiguous() first")


def measure_ahead(source: Source, ends: Array, power: int, ranges: list[tuple[int, int]], measures: Array) -> None:
    """Fill ``measures`` (f64 ``[s]``) where a segment is not :func:`fits_in_cache` within one of ``ranges``.

    What is left is measured best by the kernel that works on the range: it then finds the entries in the cache.

    Args:
        source: the entries.
        ends: int64 ``[s + 1]``, where the segments begin, checked.
        power: 1 for the sum of magnitudes, 2 for that of squares, 0 for the largest magnitude.
        ranges: what :func:`thinwire.kernels.jit.threads.shares` gave.
        measures: the result.
    """
    borders = np.array([start for start, _ in ranges[1:]], np.int64)
    chunks = _list_chunks(ends, borders)
    if not chunks.size:
        return
    totals = np.empty(len(chunks), np.float64)
    # Cut where about equal numbers of entries lie on each side.
    done = np.cumsum(chunks[:, 2] - chunks[:, 1])
    cuts = [int(np.searchsorted(done, done[-1] * part // len(ranges))) for part in range(len(ranges) + 1)]
    cuts[-1] = len(chunks)
    shares = [(*source, power, chunks[a:b], totals[a:b]) for a, b in itertools.pairwise(cuts) if a < b]
    run(_measure_chunks, shares)
    _combine(chunks, totals, power, measures)


@helper
def load(
    x: Any, residual: Any, decay: Any, has_residual: bool, prefetches: bool, start: int, u: Any, size: int
) -> None:
    """Entries ``start, start + 1, ...`` into ``u[:size]``: the residual times ``decay``, rounded, plus ``x``.

    With ``prefetches`` memory is asked for the next residual too. Only so many requests can wait at a time; who writes
    the residual asks for it there, between other work.
    """
    always_inline()
    groups = size // LANES
    make_groups(x, residual, decay, has_residual, prefetches, start, u, groups)
    _load_rest(x, residual, decay, has_residual, start, u, groups * LANES, size)


@helper
def load_measured(
    x: Any, residual: Any, decay: Any, has_residual: bool, prefetches: bool, start: int, u: Any, size: int, power: int,
    folded: Any,
) -> Any:  # fmt: skip
    """:func:`load`, and the measure of these entries, 1 to 1024; ``folded`` as for :func:`measure`."""
    always_inline()
    if power == 0:
        groups = size // LANES
        most = make_largest(x, residual, decay, has_residual, prefetches, start, u, groups)
        _load_rest(x, residual, decay, has_residual, start, u, groups * LANES, size)
        for j in range(groups * LANES, size):
            most = max(most, bits_of(np.abs(u[j])))
        return np.float64(float_of(most))
    if size == SHORT_FOLD:
        if power == 2:
            return fold_short_squares(x, residual, decay, has_residual, prefetches, start, u)
        return fold_short_magnitudes(x, residual, decay, has_residual, prefetches, start, u)
    if size == LONG_FOLD:
        if power == 2:
            return fold_long_squares(x, residual, decay, has_residual, prefetches, start, u)
        return fold_long_magnitudes(x, residual, decay, has_residual, prefetches, start, u)
    load(x, residual, decay, has_residual, prefetches, start, u, size)
    for j in range(size):
        value = np.float64(u[j])
        folded[j] = value * value if power == 2 else np.abs(value)
    return fold(folded, size)


@helper
def _load_rest(
    x: Any, residual: Any, decay: Any, has_residual: bool, start: int, u: Any, first: int, size: int
) -> None:
    """What is left after whole groups of lanes."""
    always_inline()
    for j in range(first, size):
        u[j] = decay * residual[start + j] + x[start + j] if has_residual else x[start + j]


@helper
def fits_in_cache(begin: int, end: int, first: int, last: int) -> Any:
    """Whether a segment lies within a range and is small enough to be still in the cache after it was measured."""
    return first <= begin and end <= last and end - begin <= NEAR


@helper
def measure(
    x: Any, residual: Any, decay: Any, has_residual: bool, begin: int, end: int, power: int,
    u: Any, folded: Any, totals: Any,
) -> Any:  # fmt: skip
    """The measure of up to 2**20 entries; 0 if there are none.

    ``u`` (f32), ``folded`` and ``totals`` (f64) are scratch of 1024 numbers each. A segment of one block is in ``u``
    afterwards.
    """
    # Arguments are borrowed, and nothing is sliced: for a short segment a count of references is a cost.
    count = 0
    most = np.uint32(0)
    for start in range(begin, end, 1024):
        size = min(1024, end - start)
        measured = load_measured(x, residual, decay, has_residual, True, start, u, size, power, folded)
        if power == 0:
            # Of bits: NaN is the largest.
            most = max(most, bits_of(np.float32(measured)))
        else:
            totals[count] = measured
            count += 1
    if power == 0:
        return np.float64(float_of(most))
    if count > 1:
        return fold(totals, count)
    return totals[0] if count else 0.0


@helper
def fold(numbers: Any, size: int) -> Any:
    """Sum of the first ``size`` numbers, at least one, by halving (the upper half may lack its end); uses them up."""
    prefer_wide_vectors()
    always_inline()
    numbers = borrowed(numbers)
    half = 1
    while 2 * half < size:
        half *= 2
    for j in range(size - half):
        numbers[j] += numbers[half + j]
    while half > 8:
        half //= 2
        lower = numbers[:half]
        upper = numbers[half : 2 * half]
        for j in range(half):
            lower[j] += upper[j]
    while half > 1:
        half //= 2
        for j in range(half):
            numbers[j] += numbers[half + j]
    return numbers[0]


@kernel
def _list_chunks(ends: Any, borders: Any) -> Any:
    """``(segment, begin, end)`` of every chunk to measure ahead: of segments that are long or cross a border."""
    count = 0
    chunks = np.empty((0, 3), np.int64)
    # Counted first, then listed.
    for listing in range(2):
        if listing:
            if count == 0:
                break
            chunks = np.empty((count, 3), np.int64)
            count = 0
        border = 0
        for segment in range(ends.size - 1):
            begin = ends[segment]
            end = ends[segment + 1]
            while border < borders.size and borders[border] <= begin:
                border += 1
            if end - begin > NEAR or (border < borders.size and borders[border] < end):
                for start in range(begin, end, _CHUNK):
                    if listing:
                        chunks[count, 0] = segment
                        chunks[count, 1] = start
                        chunks[count, 2] = min(start + _CHUNK, end)
                    count += 1
    return chunks


@kernel
def _measure_chunks(
    x: Any, residual: Any, decay: Any, has_residual: bool, power: int, chunks: Any, totals: Any
) -> None:
    u = empty(1024, np.float32)
    folded = empty(1024, np.float64)
    blocks = empty(1024, np.float64)
    for j in range(totals.size):
        totals[j] = measure(x, residual, decay, has_residual, chunks[j, 1], chunks[j, 2], power, u, folded, blocks)


@kernel
def _combine(chunks: Any, totals: Any, power: int, measures: Any) -> None:
    """The measure of each segment from those of its chunks, which follow one another; uses up ``totals``."""
    first = 0
    while first < totals.size:
        segment = chunks[first, 0]
        last = first
        while last < totals.size and chunks[last, 0] == segment:
            last += 1
        parts = totals[first:last]
        if power == 0:
            most = parts[0]
            for j in range(1, parts.size):
                # NaN is the largest.
                most = most if parts[j] <= most or most != most else parts[j]
            measures[segment] = most
        else:
            count = parts.size
            while count > 1:
                kept = 0
                for start in range(0, count, 1024):
                    total = fold(parts[start:count], min(1024, count - start))
                    parts[kept] = total
                    kept += 1
                count = kept
            measures[segment] = parts[0]
        first = last
