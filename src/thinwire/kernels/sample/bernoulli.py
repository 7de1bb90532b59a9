"""Each entry kept or not on its own: with a probability that follows its magnitude, or if it is large enough.

A first pass marks the entries that are kept, one bit each, and counts them; a second one reads the marks and gathers.
"""

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.flat.checks import offsets_array
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.dither import dither_torch
from thinwire.kernels.random.philox import check_stream
from thinwire.kernels.reduce.block_norms import BLOCK
from thinwire.kernels.reduce.truncated_sums import check_entries_and_cut
from thinwire.kernels.sample.bernoulli_numba import gather_apart, gather_values, mark_range

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
_NO_KEY = -1


def draw_entries(
    x: Tensor, offsets: Tensor, centres: Tensor, bounds: Tensor, shares_kept: Tensor, key: int
) -> tuple[Tensor, Tensor]:
    """Keep entry ``i`` with probability ``p_i = min(1, a_i / T + q)`` and divide its deviation by ``p_i``.

    ``a_i = |x_i - centre|``, ``T`` and ``q`` are those of the segment; each operation is rounded to f32. The entry is
    kept if ``u_i < p_i``, with ``u_i`` number ``i`` of :func:`thinwire.kernels.quantize.dither.dither_torch`, a
    multiple of ``2**-32``.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse (it is never kept).
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        centres: f32 ``[s]``.
        bounds: f32 ``[s]``, above 0, the deviation ``T`` from which on an entry is certain; inf for equal
            probabilities.
        shares_kept: f32 ``[s]``, ``q``: 0, or with a bound of inf the probability of every entry.
        key: of the random numbers, in ``[0, 2**64)``.

    Returns:
        The indices, int64, ascending, and what is sent of each entry, f32: ``x_i - centre`` divided by ``q`` where the
        bound is inf; else ``x_i - centre`` if it is certain, and ``T`` with its sign if it is not.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> zero, x = torch.zeros(1), torch.tensor([4.0, 0.0, -9.0])
        >>> indices, values = draw_entries(x, torch.tensor([0, 3]), zero, zero + 4, zero, key=1)
        >>> indices.tolist(), values.tolist()
        ([0, 2], [4.0, -9.0])
    """
    check_entries_and_cut(x, offsets, centres, bounds, shares_kept)
    check_stream(key, 0, x.numel())
    if not x.is_cpu:
        return body_for(draw_entries_torch, x.device)(x, offsets, centres, bounds, shares_kept, key)
    problem = (
        array_of(x), offsets_array(offsets, x.numel()), array_of(centres), array_of(bounds), array_of(shares_kept)
    )  # fmt: skip
    marks, ranges, kept, _ = _mark(problem, key)
    starts = np.concatenate([[0], np.cumsum(kept)])
    indices, values = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.float32)
    calls = [
        (*problem, marks, first, last, indices[a:b], values[a:b])
        for (first, last), a, b in zip(ranges, starts[:-1], starts[1:], strict=True)
    ]
    run(gather_values, calls)
    return tensor_of(indices), tensor_of(values)


def draw_entries_torch(
    x: Tensor, offsets: Tensor, centres: Tensor, bounds: Tensor, shares_kept: Tensor, key: int
) -> tuple[Tensor, Tensor]:
    """:func:`draw_entries` in torch operations, on any device."""
    sizes = to_device(offsets, x.device).diff()
    centre, bound, share = (
        to_device(each, x.device).repeat_interleave(sizes, output_size=x.numel())
        for each in (centres, bounds, shares_kept)
    )
    deviation = x - centre
    a = deviation.abs()
    indices = _drawn_torch(a, bound, share, key).nonzero().squeeze(1)
    sent = torch.where(a < bound, torch.where(deviation < 0, -bound, bound), deviation)
    sent = torch.where(bound == torch.inf, deviation / share, sent)
    return indices, sent[indices]


def split_draws(x: Tensor, offsets: Tensor, bounds: Tensor, key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`draw_entries` with centres and ``q`` of 0, the certain entries (``|x_i| >= T``) apart from the others.

    Returns:
        Indices and entries ``x_i`` of the certain, indices and entries of the drawn.

    Raises:
        ConfigError: as :func:`draw_entries`.

    Example:
        >>> x = torch.tensor([4.0, 0.0, -9.0])
        >>> [part.tolist() for part in split_draws(x, torch.tensor([0, 3]), torch.tensor([3.0]), key=1)]
        [[0, 2], [4.0, -9.0], [], []]
    """
    check_entries_and_cut(x, offsets, bounds)
    check_stream(key, 0, x.numel())
    if not x.is_cpu:
        return body_for(split_draws_torch, x.device)(x, offsets, bounds, key)
    zeros = np.zeros(bounds.numel(), np.float32)
    problem = (array_of(x), offsets_array(offsets, x.numel()), zeros, array_of(bounds), zeros)
    marks, ranges, kept, certain = _mark(problem, key)
    above, below = np.concatenate([[0], np.cumsum(certain)]), np.concatenate([[0], np.cumsum(kept - certain)])
    result = [np.empty(n, kind) for n in (above[-1], below[-1]) for kind in (np.int64, np.float32)]
    calls = []
    for j, (first, last) in enumerate(ranges):
        parts = [each[above[j] : above[j + 1]] for each in result[:2]]
        parts += [each[below[j] : below[j + 1]] for each in result[2:]]
        calls.append((problem[0], problem[1], problem[3], marks, first, last, *parts))
    run(gather_apart, calls)
    certain_at, certain_values, drawn_at, drawn_values = (tensor_of(each) for each in result)
    return certain_at, certain_values, drawn_at, drawn_values


def split_draws_torch(x: Tensor, offsets: Tensor, bounds: Tensor, key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`split_draws` in torch operations, on any device."""
    bound = to_device(bounds, x.device).repeat_interleave(to_device(offsets, x.device).diff(), output_size=x.numel())
    a = x.abs()
    certain = (a >= bound).nonzero().squeeze(1)
    drawn = ((a < bound) & _drawn_torch(a, bound, torch.zeros_like(a), key)).nonzero().squeeze(1)
    return certain, x[certain], drawn, x[drawn]


def entries_above(x: Tensor, offsets: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of at least their segment's magnitude ``bounds[s]``: indices, ascending, and values.

    Raises:
        ConfigError: as :func:`draw_entries`.

    Example:
        >>> entries_above(torch.tensor([4.0, 0.0, -9.0]), torch.tensor([0, 3]), torch.tensor([5.0]))
        (tensor([2]), tensor([-9.]))
    """
    check_entries_and_cut(x, offsets, bounds)
    if not x.is_cpu:
        return body_for(entries_above_torch, x.device)(x, offsets, bounds)
    zeros = np.zeros(bounds.numel(), np.float32)
    problem = (array_of(x), offsets_array(offsets, x.numel()), zeros, array_of(bounds), zeros)
    marks, ranges, kept, _ = _mark(problem, _NO_KEY)
    starts = np.concatenate([[0], np.cumsum(kept)])
    indices, values = np.empty(starts[-1], np.int64), np.empty(starts[-1], np.float32)
    none = np.empty(0, np.int64), np.empty(0, np.float32)
    calls = [
        (problem[0], problem[1], problem[3], marks, first, last, indices[a:b], values[a:b], *none)
        for (first, last), a, b in zip(ranges, starts[:-1], starts[1:], strict=True)
    ]
    run(gather_apart, calls)
    return tensor_of(indices), tensor_of(values)


def entries_above_torch(x: Tensor, offsets: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`entries_above` in torch operations, on any device."""
    bound = to_device(bounds, x.device).repeat_interleave(to_device(offsets, x.device).diff(), output_size=x.numel())
    indices = (x.abs() >= bound).nonzero().squeeze(1)
    return indices, x[indices]


def _drawn_torch(a: Tensor, bound: Tensor, share: Tensor, key: int) -> Tensor:
    p = a / bound + share
    p = torch.where(p < 1, p, torch.ones_like(p)) * 65536
    coarse, fine = dither_torch(key, a.numel(), a.device)
    return (fine * 2.0**-16 < p - coarse) & ~a.isnan()


def _mark(problem: tuple[Array, ...], key: int) -> tuple[Array, list[tuple[int, int]], Array, Array]:
    """A bit for each entry that is kept, and of each range how many those are and how many of them are certain."""
    numel = problem[0].size
    marks = np.empty((numel + 1023) // 1024 * 16, np.uint64)
    ranges = shares(numel, BLOCK)
    seeds = (np.uint32(key & 0xFFFFFFFF), np.uint32((key >> 32) & 0xFFFFFFFF), key != _NO_KEY)
    counts = run(mark_range, [(*problem, *seeds, marks, first, last) for first, last in ranges])
    kept, certain = np.array(counts, np.int64).T
    return marks, ranges, kept, certain
