"""Mean, squares and largest magnitude of each segment in one pass over the vector."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of, tensor_of
from thinwire.kernels.flat.checks import check_entries, check_offsets, offsets_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import seen_as
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.reduce.block_norms import fold
from thinwire.kernels.reduce.segment_sums import segment_max_torch, segment_sums_torch
from thinwire.kernels.reduce.truncated_sums import combine, list_chunks


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What :func:`segment_moments` finds, ``[s]`` each, 0 for an empty segment.

    Args:
        sums: f64, of the positive entries minus that of the magnitudes of the negative ones.
        squares: f64, of all entries.
        largest: f32, the largest magnitude.
    """

    sums: Tensor
    squares: Tensor
    largest: Tensor


def segment_moments(x: Tensor, offsets: Tensor) -> Moments:
    """Sum, sum of squares and largest magnitude of each segment.

    Sums are f64, added in the order of :func:`thinwire.kernels.reduce.segment_sums.segment_sums`, those of the positive
    and of the negative entries apart.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> import torch
        >>> found = segment_moments(torch.tensor([1.0, -3.0, 2.0]), torch.tensor([0, 2, 3]))
        >>> found.sums.tolist(), found.squares.tolist(), found.largest.tolist()
        ([-2.0, 2.0], [10.0, 4.0], [3.0, 2.0])
    """
    check_entries(x)
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
        return body_for(segment_moments_torch, x.device)(x, offsets)
    entries, ends = array_of(x), offsets_array(offsets, x.numel())
    chunks = list_chunks(ends)
    totals, largest = np.empty((len(chunks), 3), np.float64), np.empty(len(chunks), np.uint32)
    done = np.cumsum(chunks[:, 2] - chunks[:, 1])
    cuts = [int(np.searchsorted(done, stop)) for _, stop in shares(x.numel())]
    borders = [0, *cuts[:-1], len(chunks)]
    run(_measure, [(entries, chunks[a:b], totals[a:b], largest[a:b]) for a, b in itertools.pairwise(borders)])
    sums, most = np.zeros((ends.size - 1, 3), np.float64), np.zeros(ends.size - 1, np.uint32)
    combine(chunks, totals, sums)
    np.maximum.at(most, chunks[:, 0], largest)
    largest_of_all = tensor_of(most.view(np.float32))
    return Moments(tensor_of(sums[:, 0] - sums[:, 1]), tensor_of(sums[:, 2].copy()), largest_of_all)


def segment_moments_torch(x: Tensor, offsets: Tensor) -> Moments:
    """:func:`segment_moments` in torch operations, on any device."""
    above, below = (segment_sums_torch(part.clamp(min=0), offsets, 1) for part in (x, -x))
    return Moments(above - below, segment_sums_torch(x, offsets, 2), segment_max_torch(x, offsets))


@kernel
def _measure(x: Any, chunks: Any, totals: Any, largest: Any) -> None:
    folded = np.empty((3, 1024), np.float64)
    blocks = np.empty((3, 1024), np.float64)
    for j in range(chunks.shape[0]):
        count = 0
        most = np.uint32(0)
        for start in range(chunks[j, 1], chunks[j, 2], 1024):
            block = x[start : min(start + 1024, chunks[j, 2])]
            most = max(most, _measure_block(block, seen_as(block, np.uint32), folded[0], folded[1], folded[2]))
            size = 128 if block.size == 1024 else block.size
            for column in range(3):
                blocks[column, count] = fold(folded[column], size)
            count += 1
        largest[j] = most
        for column in range(3):
            totals[j, column] = fold(blocks[column], count)


@helper
def _measure_block(x: Any, bits: Any, above: Any, below: Any, squares: Any) -> Any:
    """Positive entries, magnitudes of negative ones, squares in f64, a full block folded to 128; the largest."""
    prefer_wide_vectors()
    always_inline()
    f64 = np.float64
    zero = np.float32(0)
    # Without their signs floats are ordered as their bits are.
    rest = np.uint32(0x7FFFFFFF)
    most = np.uint32(0)
    if x.size < 1024:
        for j in range(x.size):
            above[j] = f64(x[j] if x[j] > zero else zero)
            below[j] = f64(-x[j] if x[j] < zero else zero)
            squares[j] = f64(x[j]) * f64(x[j])
            most = max(most, bits[j] & rest)
        return most
    for j in range(128):
        a, b, c, d = x[j], x[j + 128], x[j + 256], x[j + 384]
        e, f, g, h = x[j + 512], x[j + 640], x[j + 768], x[j + 896]
        p, q, r, s = np.abs(a), np.abs(b), np.abs(c), np.abs(d)
        t, u, v, w = np.abs(e), np.abs(f), np.abs(g), np.abs(h)
        most = max(
            most, max(max(bits[j] & rest, bits[j + 128] & rest), max(bits[j + 256] & rest, bits[j + 384] & rest))
        )
        most = max(
            most, max(max(bits[j + 512] & rest, bits[j + 640] & rest), max(bits[j + 768] & rest, bits[j + 896] & rest))
        )
        squares[j] = ((f64(a) * f64(a) + f64(e) * f64(e)) + (f64(c) * f64(c) + f64(g) * f64(g))) + (
            (f64(b) * f64(b) + f64(f) * f64(f)) + (f64(d) * f64(d) + f64(h) * f64(h))
        )
        # A half of the sum of a number and its magnitude would round; a choice does not.
        above[j] = (
            (f64(a if a > zero else zero) + f64(e if e > zero else zero))
            + (f64(c if c > zero else zero) + f64(g if g > zero else zero))
        ) + (
            (f64(b if b > zero else zero) + f64(f if f > zero else zero))
            + (f64(d if d > zero else zero) + f64(h if h > zero else zero))
        )
        below[j] = (
            (f64(p if a < zero else zero) + f64(t if e < zero else zero))
            + (f64(r if c < zero else zero) + f64(v if g < zero else zero))
        ) + (
            (f64(q if b < zero else zero) + f64(u if f < zero else zero))
            + (f64(s if d < zero else zero) + f64(w if h < zero else zero))
        )
    return most
