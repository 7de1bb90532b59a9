"""Sums over the entries of a segment that lie near its centre: what sampling probabilities are computed from."""

import itertools
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries, check_offsets, check_scales, offsets_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.reduce.block_norms import fold
from thinwire.kernels.reduce.segment_sums import segment_sums_torch

What = Literal["powers", "weights", "entries"]
_WHAT: Final = {"powers": 0, "weights": 1, "entries": 2}

_CHUNK: Final = 1 << 20
"""Entries whose blocks of 1024 are folded into one number."""


def tail_sums(x: Tensor, offsets: Tensor, centres: Tensor, bounds: Tensor, what: What = "powers") -> Tensor:
    """Three sums over the entries of each segment whose deviation ``a_i = |x_i - centre|`` is below its bound.

    ``"powers"``: their number, the sum of ``a_i``, the sum of ``a_i**2``. ``"weights"``, with ``T`` the bound: the sum
    of ``w_i = (T - a_i) / a_i``, and those of ``T - a_i`` over the entries above and below the centre. ``"entries"``:
    0, and the sums of ``x_i`` over all positive entries, of ``-x_i`` over all negative ones, whatever centre and bound
    are. The deviation is rounded to f32, all else is f64, added in the order of
    :func:`thinwire.kernels.reduce.segment_sums.segment_sums`.

    Args:
        x: f32 ``[d]``; entries that are NaN are left out.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        centres: f32 ``[s]``.
        bounds: f32 ``[s]``, inf for no bound.
        what: which sums.

    Returns:
        f64 ``[s, 3]`` on the device of ``x``; zeros for an empty segment.

    Raises:
        ConfigError: shapes, dtypes or names that are not as described.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 2.0])
        >>> tail_sums(x, torch.tensor([0, 3]), torch.zeros(1), torch.tensor([2.5])).tolist()
        [[2.0, 3.0, 5.0]]
    """
    if what not in _WHAT:
        raise ConfigError(f"sums of {what!r} were asked for; 'powers', 'weights' and 'entries' are possible")
    check_entries_and_cut(x, offsets, centres, bounds)
    if not x.is_cpu:
        return body_for(tail_sums_torch, x.device)(x, offsets, centres, bounds, what)
    ends = offsets_array(offsets, x.numel())
    sums = np.zeros((ends.size - 1, 3), np.float64)
    shared = (array_of(x), ends, array_of(centres), array_of(bounds), _WHAT[what])
    if x.numel() <= _CHUNK:
        _sum_short(*shared, sums)
        return tensor_of(sums)
    chunks = list_chunks(ends)
    totals = np.empty((len(chunks), 3), np.float64)
    done = np.cumsum(chunks[:, 2] - chunks[:, 1])
    cuts = [int(np.searchsorted(done, stop)) for _, stop in shares(x.numel())]
    borders = [0, *cuts[:-1], len(chunks)]
    run(_sum_chunks, [(*shared, chunks[a:b], totals[a:b]) for a, b in itertools.pairwise(borders)])
    combine(chunks, totals, sums)
    return tensor_of(sums)


def tail_sums_torch(x: Tensor, offsets: Tensor, centres: Tensor, bounds: Tensor, what: What = "powers") -> Tensor:
    """:func:`tail_sums` in torch operations, on any device."""
    check_offsets(offsets, x.numel())
    sizes = to_device(offsets, x.device).diff()
    centre, bound = (
        to_device(each, x.device).repeat_interleave(sizes, output_size=x.numel()) for each in (centres, bounds)
    )
    deviation = x - centre
    a = deviation.abs()
    inside = a < bound
    if what == "powers":
        a = torch.where(inside, a, torch.zeros_like(a))
        columns = [(inside.to(torch.float32), 1), (a, 1), (a, 2)]
    elif what == "weights":
        rest = torch.where(inside, bound.double() - a.double(), 0.0)
        weight = torch.where(inside, rest / a.double(), 0.0)
        above, below = torch.where(deviation > 0, rest, 0.0), torch.where(deviation < 0, rest, 0.0)
        columns = [(weight, 1), (above, 1), (below, 1)]
    else:
        columns = [(torch.zeros_like(x), 1), (x.clamp_min(0), 1), ((-x).clamp_min(0), 1)]
    return torch.stack([segment_sums_torch(column, offsets, power) for column, power in columns], 1)  # type: ignore[arg-type]


def check_entries_and_cut(x: Tensor, offsets: Tensor, *each: Tensor) -> None:
    """Raise ConfigError unless ``x`` is a vector of f32 and ``each`` has one f32 for each segment.

    Example:
        >>> check_entries_and_cut(torch.zeros(5), torch.tensor([0, 2, 5]), torch.zeros(2))
    """
    check_entries(x)
    for numbers in each:
        check_scales(numbers, offsets)


@kernel
def _sum_short(x: Any, ends: Any, centres: Any, bounds: Any, what: int, sums: Any) -> None:
    """All segments of a vector of at most 2**20 entries."""
    folded = np.empty((3, 1024), np.float64)
    totals = np.empty((3, 1024), np.float64)
    for s in range(ends.size - 1):
        if ends[s + 1] > ends[s]:
            _sum_chunk(x, ends[s], ends[s + 1], centres[s], bounds[s], what, folded, totals, sums[s])


@kernel
def _sum_chunks(x: Any, ends: Any, centres: Any, bounds: Any, what: int, chunks: Any, results: Any) -> None:
    folded = np.empty((3, 1024), np.float64)
    totals = np.empty((3, 1024), np.float64)
    for j in range(chunks.shape[0]):
        s = chunks[j, 0]
        _sum_chunk(x, chunks[j, 1], chunks[j, 2], centres[s], bounds[s], what, folded, totals, results[j])


@helper
def _sum_chunk(
    x: Any, begin: int, end: int, centre: Any, bound: Any, what: int, folded: Any, totals: Any, result: Any
) -> None:
    """The three sums over at least one and at most 2**20 entries."""
    count = 0
    number = np.int64(0)
    for start in range(begin, end, 1024):
        block = x[start : min(start + 1024, end)]
        if what == 0:
            number += _powers(block, centre, bound, folded[1], folded[2])
        elif what == 1:
            _weights(block, centre, bound, folded[0], folded[1], folded[2])
            totals[0, count] = fold(folded[0], block.size)
        else:
            _parts(block, folded[1], folded[2])
        # Of a full block three halvings are done.
        size = 128 if what == 0 and block.size == 1024 else block.size
        totals[1, count] = fold(folded[1], size)
        totals[2, count] = fold(folded[2], size)
        count += 1
    result[0] = fold(totals[0], count) if what == 1 else np.float64(number)
    result[1] = fold(totals[1], count)
    result[2] = fold(totals[2], count)


@helper
def _powers(x: Any, centre: Any, bound: Any, sums: Any, squares: Any) -> Any:
    prefer_wide_vectors()
    always_inline()
    f64 = np.float64
    zero = np.float32(0)
    number = np.int32(0)
    if x.size == 1024:
        # The first three halvings on the way from f32, in their order.
        for j in range(128):
            a = np.abs(x[j] - centre)
            b = np.abs(x[j + 128] - centre)
            c = np.abs(x[j + 256] - centre)
            d = np.abs(x[j + 384] - centre)
            e = np.abs(x[j + 512] - centre)
            f = np.abs(x[j + 640] - centre)
            g = np.abs(x[j + 768] - centre)
            h = np.abs(x[j + 896] - centre)
            number += np.int32(a < bound) + np.int32(b < bound) + np.int32(c < bound) + np.int32(d < bound)
            number += np.int32(e < bound) + np.int32(f < bound) + np.int32(g < bound) + np.int32(h < bound)
            a = f64(a if a < bound else zero)
            b = f64(b if b < bound else zero)
            c = f64(c if c < bound else zero)
            d = f64(d if d < bound else zero)
            e = f64(e if e < bound else zero)
            f = f64(f if f < bound else zero)
            g = f64(g if g < bound else zero)
            h = f64(h if h < bound else zero)
            sums[j] = ((a + e) + (c + g)) + ((b + f) + (d + h))
            squares[j] = ((a * a + e * e) + (c * c + g * g)) + ((b * b + f * f) + (d * d + h * h))
    else:
        for j in range(x.size):
            a = np.abs(x[j] - centre)
            number += np.int32(a < bound)
            a = a if a < bound else zero
            sums[j] = f64(a)
            squares[j] = f64(a) * f64(a)
    return np.int64(number)


@helper
def _weights(x: Any, centre: Any, bound: Any, weights: Any, above: Any, below: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    for j in range(x.size):
        deviation = x[j] - centre
        a = np.abs(deviation)
        rest = np.float64(bound) - np.float64(a) if a < bound else 0.0
        weights[j] = rest / np.float64(a) if a < bound else 0.0
        above[j] = rest if deviation > np.float32(0) else 0.0
        below[j] = rest if deviation < np.float32(0) else 0.0


@helper
def _parts(x: Any, positive: Any, negative: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    for j in range(x.size):
        positive[j] = np.float64(x[j]) if x[j] > np.float32(0) else 0.0
        negative[j] = -np.float64(x[j]) if x[j] < np.float32(0) else 0.0


@kernel
def list_chunks(ends: Any) -> Any:
    """``(segment, begin, end)`` of every chunk, those of a segment one after another."""
    count = 0
    for s in range(ends.size - 1):
        count += (ends[s + 1] - ends[s] + _CHUNK - 1) // _CHUNK
    chunks = np.empty((count, 3), np.int64)
    count = 0
    for s in range(ends.size - 1):
        for start in range(ends[s], ends[s + 1], _CHUNK):
            chunks[count, 0] = s
            chunks[count, 1] = start
            chunks[count, 2] = min(start + _CHUNK, ends[s + 1])
            count += 1
    return chunks


@kernel
def combine(chunks: Any, totals: Any, sums: Any) -> None:
    """The sums of each segment from those of its chunks; for other kernels too."""
    first = 0
    while first < chunks.shape[0]:
        segment = chunks[first, 0]
        last = first
        while last < chunks.shape[0] and chunks[last, 0] == segment:
            last += 1
        for column in range(totals.shape[1]):
            parts = totals[first:last, column].copy()
            count = parts.size
            while count > 1:
                kept = 0
                for start in range(0, count, 1024):
                    parts[kept] = fold(parts[start:count], min(1024, count - start))
                    kept += 1
                count = kept
            sums[segment, column] = parts[0]
        first = last
