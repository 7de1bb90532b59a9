"""A random part of the entries and all the others, apart and together again, with a bit for each entry.

One draw tells both: :func:`thinwire.kernels.sample.subset.segment_subsets` would make the same draws twice, and lists
of indices take many times the memory. It serves EDEN with bits between two whole numbers: with indices in place of bits
decoding 1 to 4 M entries took 1.3 to 2.4 times as long, and compressing them 1 to 2.1 times (one thread).
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import CPU, array_of, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries, selection_arrays
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline
from thinwire.kernels.jit.intrinsics import count_ones, count_trailing_zeros, zeros
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.sample.subset import check_segments, segment_subsets_torch
from thinwire.kernels.sample.subset_numba import mark_drawn


def subset_marks(key: int, offsets: Tensor, counts: Tensor) -> Tensor:
    """A bit for each entry, set where :func:`.subset.segment_subsets` of the same arguments has it.

    With ``counts`` of which none is half its segment, the bits of ``sizes - counts`` are just the others.

    Args:
        key: in ``[0, 2**64)``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        counts: int64 ``[s]``, 0 to the size of the segment.

    Returns:
        int64 ``[ceil(d / 64)]`` on the device of ``offsets``: entry ``i`` is bit ``i % 64`` of word ``i // 64``; bits
        behind the last entry are 0.

    Raises:
        ConfigError: as :func:`thinwire.kernels.sample.subset.segment_subsets`.

    Example:
        >>> subset_marks(7, torch.tensor([0, 4, 6]), torch.tensor([0, 2])).tolist()
        [48]
    """
    numel = check_segments(key, offsets, counts)
    if not offsets.is_cpu:
        return body_for(subset_marks_torch, offsets.device)(key, offsets, counts)
    starts, wanted, _ = selection_arrays(offsets, counts, numel)
    marks = np.zeros((numel + 63) // 64, np.uint64)
    # A thread begins where a word does: no two write to the same one.
    aligned = np.append(np.flatnonzero(starts[:-1] % 64 == 0), starts.size - 1)
    places = [int(aligned[np.searchsorted(starts[aligned], first)]) for first, _ in shares(numel)[1:]]
    cuts = [0, *places, starts.size - 1]
    seeds = (np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32))
    run(_mark_segments, [(*seeds, starts, wanted, a, b, marks) for a, b in itertools.pairwise(cuts)])
    return tensor_of(marks.view(np.int64))


def subset_marks_torch(key: int, offsets: Tensor, counts: Tensor) -> Tensor:
    """:func:`subset_marks` in torch operations, on any device."""
    numel = int(offsets[-1])
    flags = torch.zeros((numel + 63) // 64 * 64, dtype=torch.int64, device=offsets.device)
    flags[segment_subsets_torch(key, offsets, counts)] = 1
    # The highest bit is the sign; a sum of different powers of two has no carry.
    return (flags.view(-1, 64) << torch.arange(64, dtype=torch.int64, device=offsets.device)).sum(1)


def split_marked(x: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """The marked entries and the others, each in order.

    Args:
        x: f32 ``[d]``.
        marks: int64 ``[ceil(d / 64)]``, as :func:`subset_marks` makes them.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> split_marked(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5]))
        (tensor([1., 3.]), tensor([2.]))
    """
    _check(x, marks)
    if not x.is_cpu:
        return body_for(split_marked_torch, x.device)(x, marks)
    entries, words = array_of(x), array_of(marks).view(np.uint64)
    ranges, sums = _count(words, entries.size)
    first, second = (arrays.empty_array(size, np.float32) for size in (sums[-1], entries.size - sums[-1]))
    run(
        _split,
        [
            (entries, words, start, stop, first[done:], second[start - done :])
            for (start, stop), done in zip(ranges, sums[:-1], strict=True)
        ],
    )
    return tensor_of(first), tensor_of(second)


def split_marked_torch(x: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`split_marked` in torch operations, on any device."""
    flags = _flags_torch(marks, x.numel())
    return x[flags], x[~flags]


def merge_marked(first: Tensor, second: Tensor, marks: Tensor) -> Tensor:
    """What :func:`split_marked` took apart, ``second`` added to zeros as in a sum of vectors (so -0.0 becomes 0.0).

    Args:
        first: f32 ``[k]`` for the marked entries, in order.
        second: f32 ``[d - k]`` for the others.
        marks: int64 ``[ceil(d / 64)]``, of which k bits are set.

    Returns:
        f32 ``[d]``.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> merge_marked(torch.tensor([1.0, 3.0]), torch.tensor([-0.0]), torch.tensor([5]))
        tensor([1., 0., 3.])
    """
    numel = first.numel() + second.numel()
    for part in (first, second):
        check_entries(part)
    _check(torch.empty(0, dtype=torch.float32, device=CPU), marks, numel)
    if not first.is_cpu:
        return body_for(merge_marked_torch, first.device)(first, second, marks)
    words = array_of(marks).view(np.uint64)
    ranges, sums = _count(words, numel)
    if sums[-1] != first.numel():
        raise ConfigError(f"{first.numel()} entries were given for {sums[-1]} marks")
    out, one, other = arrays.empty_array(numel, np.float32), array_of(first), array_of(second)
    run(
        _merge,
        [
            (one[done:], other[start - done :], words, start, stop, out)
            for (start, stop), done in zip(ranges, sums[:-1], strict=True)
        ],
    )
    return tensor_of(out)


def merge_marked_torch(first: Tensor, second: Tensor, marks: Tensor) -> Tensor:
    """:func:`merge_marked` in torch operations, on any device."""
    flags = _flags_torch(marks, first.numel() + second.numel())
    out = torch.empty(flags.numel(), dtype=torch.float32, device=first.device)
    out[flags], out[~flags] = first, second + 0.0
    return out


def _flags_torch(marks: Tensor, numel: int) -> Tensor:
    return (
        ((marks.unsqueeze(1) >> torch.arange(64, dtype=torch.int64, device=marks.device)) & 1)
        .view(-1)[:numel]
        .to(torch.bool)
    )


def _check(x: Tensor, marks: Tensor, numel: int | None = None) -> None:
    check_entries(x)
    numel = x.numel() if numel is None else numel
    if marks.dtype != torch.int64 or marks.shape != ((numel + 63) // 64,):
        raise ConfigError(
            f"{numel} entries have {(numel + 63) // 64} int64 of marks, got {marks.dtype} of shape {tuple(marks.shape)}"
        )


def _count(words: Any, numel: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Ranges of entries for the threads, the number of marks before each, and of all marks."""
    ranges = shares(numel, 64)
    found = run(_count_marks, [(words, start // 64, (stop + 63) // 64) for start, stop in ranges])
    return ranges, list(itertools.accumulate(found, initial=0))


@kernel
def _mark_segments(k0: Any, k1: Any, starts: Any, counts: Any, first: int, last: int, marks: Any) -> None:
    most = 0
    for segment in range(first, last):
        if starts[segment] % 64:
            most = max(most, starts[segment + 1] - starts[segment])
    spare = zeros((most + 63) // 64, np.uint64)
    for segment in range(first, last):
        start = starts[segment]
        numel = starts[segment + 1] - start
        if numel == 0:
            continue
        inverted = 2 * counts[segment] > numel
        num_drawn = numel - counts[segment] if inverted else counts[segment]
        num_words = (numel + 63) // 64
        shift = np.uint64(start % 64)
        begin = start // 64
        # Bits are drawn from a word's beginning on, and moved where the segment begins within one.
        part = spare[:num_words] if shift else marks[begin : begin + num_words]
        mark_drawn(k0, k1, segment << 34, numel, num_drawn, part)
        if inverted:
            for row in range(num_words):
                part[row] = ~part[row]
            if numel % 64:
                part[num_words - 1] &= (np.uint64(1) << np.uint64(numel % 64)) - np.uint64(1)
        if shift:
            for row in range(num_words):
                word = part[row]
                part[row] = np.uint64(0)
                marks[begin + row] |= word << shift
                over = word >> (np.uint64(64) - shift)
                if over:
                    marks[begin + row + 1] |= over


@kernel
def _count_marks(words: Any, first: int, last: int) -> Any:
    count = np.int64(0)
    for row in range(first, last):
        count += np.int64(count_ones(words[row]))
    return count


@kernel
def _split(x: Any, words: Any, start: int, stop: int, first: Any, second: Any) -> None:
    """Entries ``start``, a multiple of 64, to ``stop``."""
    num_first: Any = 0
    num_second: Any = 0
    for base in range(start, stop, 64):
        word = words[base // 64]
        rest = _others(word, stop - base)
        while word != np.uint64(0):
            first[num_first] = x[base + np.int64(count_trailing_zeros(word))]
            num_first += 1
            word &= word - np.uint64(1)
        while rest != np.uint64(0):
            second[num_second] = x[base + np.int64(count_trailing_zeros(rest))]
            num_second += 1
            rest &= rest - np.uint64(1)


@kernel
def _merge(first: Any, second: Any, words: Any, start: int, stop: int, out: Any) -> None:
    """Entries ``start``, a multiple of 64, to ``stop``."""
    num_first: Any = 0
    num_second: Any = 0
    for base in range(start, stop, 64):
        word = words[base // 64]
        rest = _others(word, stop - base)
        while word != np.uint64(0):
            out[base + np.int64(count_trailing_zeros(word))] = first[num_first]
            num_first += 1
            word &= word - np.uint64(1)
        while rest != np.uint64(0):
            out[base + np.int64(count_trailing_zeros(rest))] = second[num_second] + np.float32(0)
            num_second += 1
            rest &= rest - np.uint64(1)


@helper
def _others(word: Any, count: int) -> Any:
    """The bits of a word that are not set, of at most ``count``."""
    always_inline()
    return ~word if count >= 64 else ~word & ((np.uint64(1) << np.uint64(count)) - np.uint64(1))
