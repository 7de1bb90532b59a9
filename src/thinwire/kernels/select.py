"""Exact top-k by magnitude, in every segment of a vector at once.

Magnitudes are compared as integers: the bits of ``|x|`` order as the numbers do. A segment is read once to
find the threshold, the k-th largest magnitude, and once to collect; a large one is read once in all, because
a sample tells beforehand a bound that few entries pass.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.numba_tools import array_of, count_trailing_zeros, kernel, tensor_of
from thinwire.kernels.offsets import offsets_array

_SMALL = 4096
_LARGE = 1 << 19
_BLOCK = 4096


def top_k(x: Tensor, offsets: Tensor, counts: Tensor) -> Tensor:
    """Indices of the ``counts[s]`` largest magnitudes of each segment ``s``; of equal ones the lower.

    Args:
        x: f32 ``[d]``. NaN is for the caller to refuse; here it counts as larger than inf.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        counts: int64 ``[s]``, 0 to the size of the segment.

    Returns:
        int64 ``[counts.sum()]`` on the device of ``x``: positions in ``x``, ascending.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 3.0, 0.0, 0.5])
        >>> top_k(x, torch.tensor([0, 3, 5]), torch.tensor([1, 1])).tolist()
        [1, 4]
    """
    if x.dtype != torch.float32 or x.dim() != 1:
        raise ConfigError(f"entries are a vector of float32, got {x.dtype} of shape {tuple(x.shape)}")
    ends = offsets_array(offsets, x.numel())
    if counts.dtype != torch.int64 or counts.shape != (ends.size - 1,):
        raise ConfigError(f"{ends.size - 1} segments need as many int64 counts, got shape {tuple(counts.shape)}")
    wanted = array_of(counts)
    num_wanted = _num_wanted(ends, wanted)
    if num_wanted < 0:
        raise ConfigError("the count of a segment must be 0 to its size")
    if not x.is_cpu:
        return top_k_torch(x, offsets, counts)
    chosen = np.empty(num_wanted, np.int64)
    bits = array_of(x).view(np.uint32)
    _top_k(bits, ends, wanted, chosen)
    return tensor_of(chosen)


def top_k_torch(x: Tensor, offsets: Tensor, counts: Tensor) -> Tensor:
    """:func:`top_k` in torch operations, on any device: one stable sort by segment, then by magnitude."""
    offsets, counts = offsets.to(x.device), counts.to(x.device)
    segment = torch.arange(counts.numel(), device=x.device).repeat_interleave(offsets.diff(), output_size=x.numel())
    magnitude = (x.view(torch.int32) & 0x7FFFFFFF).to(torch.int64)
    order = ((segment << 31) + (0x7FFFFFFF - magnitude)).sort(stable=True).indices
    rank = torch.arange(x.numel(), device=x.device) - offsets[segment]
    return order[rank < counts[segment]].sort().values


@kernel
def _num_wanted(offsets: Any, counts: Any) -> int:
    """Sum of the counts; -1 if one is not 0 to the size of its segment."""
    total = 0
    for segment in range(counts.size):
        if counts[segment] < 0 or counts[segment] > offsets[segment + 1] - offsets[segment]:
            return -1
        total += counts[segment]
    return total


@kernel
def _top_k(bits: Any, offsets: Any, counts: Any, chosen: Any) -> None:
    scratch = np.empty(_SMALL, np.uint32)
    passed = np.zeros(_BLOCK, np.uint8)
    written = 0
    for segment in range(counts.size):
        start = offsets[segment]
        count = counts[segment]
        part = bits[start : offsets[segment + 1]]
        out = chosen[written : written + count]
        written += count
        if count == 0:
            continue
        if count == part.size:
            for j in range(count):
                out[j] = start + j
        elif part.size <= _SMALL:
            for j in range(part.size):
                scratch[j] = part[j] & np.uint32(0x7FFFFFFF)
            threshold, ties = _bisect(scratch[: part.size], count)
            _collect(part, start, threshold, ties, passed, out)
        elif part.size < _LARGE or count > part.size // 16 or not _from_sample(part, start, count, passed, out):
            threshold, ties = _from_histogram(part, count, passed)
            _collect(part, start, threshold, ties, passed, out)


@kernel
def _bisect(magnitudes: Any, count: int) -> Any:
    """A threshold, and how many entries equal to it are wanted; the others wanted are above it."""
    smallest = magnitudes[0]
    largest = magnitudes[0]
    for j in range(magnitudes.size):
        smallest = min(smallest, magnitudes[j])
        largest = max(largest, magnitudes[j])
    # The threshold must not fall below the smallest entry: the caller may hold more of them than it gave.
    low = np.int64(smallest)
    high = np.int64(largest) + 1
    at_high = np.int64(0)
    # At least `count` magnitudes are >= low, fewer are >= high.
    while high - low > 1:
        middle = (low + high) >> 1
        bound = np.uint32(middle)
        num = np.uint32(0)
        for j in range(magnitudes.size):
            num += np.uint32(magnitudes[j] >= bound)
        if num >= count:
            low = middle
            if num == count:
                # Nothing between the bound and the threshold: all that pass the bound are wanted.
                return np.uint32(low), magnitudes.size
        else:
            high = middle
            at_high = np.int64(num)
    return np.uint32(low), count - at_high


@kernel
def _cut(histogram: Any, count: int) -> Any:
    """The bin that holds the ``count``-th largest entry, and how many of the bin's entries are wanted."""
    wanted = count
    place = histogram.size - 1
    while histogram[place] < wanted:
        wanted -= histogram[place]
        place -= 1
    return place, wanted


@kernel
def _radix(magnitudes: Any, size: int, count: int) -> Any:
    """As ``_bisect``, in three passes over 11, 10 and 10 bits."""
    histogram = np.zeros(2048, np.int64)
    prefix = np.uint32(0)
    mask = np.uint32(0)
    wanted = count
    for shift in (20, 10, 0):
        histogram[:] = 0
        for j in range(size):
            if (magnitudes[j] & mask) == prefix:
                histogram[(magnitudes[j] >> np.uint32(shift)) & np.uint32(2047 if shift == 20 else 1023)] += 1
        place, wanted = _cut(histogram, wanted)
        prefix |= np.uint32(place << shift)
        mask |= np.uint32((2047 if shift == 20 else 1023) << shift)
    return prefix, wanted


@kernel
def _from_histogram(bits: Any, count: int, passed: Any) -> Any:
    # Four histograms: an increment that waits for the previous one of the same bin is slow.
    histograms = np.zeros((4, 2048), np.int64)
    h0, h1, h2, h3 = histograms[0], histograms[1], histograms[2], histograms[3]
    bins = np.empty(_BLOCK, np.uint16)
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        for j in range(part.size):
            bins[j] = np.uint16((part[j] & np.uint32(0x7FFFFFFF)) >> np.uint32(20))
        whole = part.size // 4 * 4
        for j in range(0, whole, 4):
            h0[bins[j]] += 1
            h1[bins[j + 1]] += 1
            h2[bins[j + 2]] += 1
            h3[bins[j + 3]] += 1
        for j in range(whole, part.size):
            h0[bins[j]] += 1
    h0 += h1
    h0 += h2
    h0 += h3
    place, wanted = _cut(h0, count)
    members = np.empty(h0[place], np.uint32)
    num = 0
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        for j in range(part.size):
            passed[j] = np.uint8(((part[j] & np.uint32(0x7FFFFFFF)) >> np.uint32(20)) == np.uint32(place))
        passed[part.size : (part.size + 7) // 8 * 8] = 0
        marks = passed.view(np.uint64)
        for group in range((part.size + 7) // 8):
            word = marks[group]
            while word != 0:
                position = 8 * group + np.int64(count_trailing_zeros(word) >> np.uint64(3))
                members[num] = part[position] & np.uint32(0x7FFFFFFF)
                num += 1
                word &= word - np.uint64(1)
    if num <= _SMALL:
        return _bisect(members, wanted)
    return _radix(members, num, wanted)


@kernel
def _collect(bits: Any, offset: int, threshold: Any, ties: int, passed: Any, out: Any) -> None:
    """Positions of the magnitudes above the threshold and of the first ``ties`` equal to it."""
    marks = passed.view(np.uint64)
    left = ties
    num = 0
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        for j in range(part.size):
            passed[j] = np.uint8((part[j] & np.uint32(0x7FFFFFFF)) >= threshold)
        passed[part.size : (part.size + 7) // 8 * 8] = 0
        for group in range((part.size + 7) // 8):
            word = marks[group]
            while word != 0:
                position = 8 * group + np.int64(count_trailing_zeros(word) >> np.uint64(3))
                word &= word - np.uint64(1)
                if (part[position] & np.uint32(0x7FFFFFFF)) == threshold:
                    if left == 0:
                        continue
                    left -= 1
                out[num] = offset + start + position
                num += 1


@kernel
def _sample_bound(bits: Any, count: int) -> Any:
    """A magnitude that, by a sample of whole cache lines, at least ``count`` entries almost surely reach."""
    histogram = np.zeros(32768, np.int64)
    num_lines = min(4096, bits.size // 256)
    stride = bits.size // 16 / num_lines
    # Any spread-out places will do: a bad sample costs time, never exactness.
    state = np.uint64(0x9E3779B97F4A7C15)
    for line in range(num_lines):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        place = np.int64((line + np.float64(state >> np.uint64(40)) * 2.0**-24) * stride) * 16
        for j in range(place, place + 16):
            histogram[(bits[j] & np.uint32(0x7FFFFFFF)) >> np.uint32(16)] += 1
    expected = 16 * num_lines * (count / bits.size)
    # Six standard deviations, with a factor of 2 because the entries of a line resemble each other.
    place, _ = _cut(histogram, min(16 * num_lines, np.int64(expected + 6 * np.sqrt(2 * expected) + 8)))
    return np.uint32(place << 16)


@kernel
def _from_sample(bits: Any, offset: int, count: int, passed: Any, out: Any) -> bool:
    """Select in one pass over ``bits``; False if the sample's bound let too few or too many entries pass."""
    bound = _sample_bound(bits, count)
    capacity = 2 * count + 16384
    places = np.empty(capacity, np.int64)
    magnitudes = np.empty(capacity, np.uint32)
    marks = passed.view(np.uint64)
    num = 0
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        for j in range(part.size):
            passed[j] = np.uint8((part[j] & np.uint32(0x7FFFFFFF)) >= bound)
        passed[part.size : (part.size + 7) // 8 * 8] = 0
        if num + part.size > capacity:
            return False
        for group in range((part.size + 7) // 8):
            word = marks[group]
            while word != 0:
                position = 8 * group + np.int64(count_trailing_zeros(word) >> np.uint64(3))
                word &= word - np.uint64(1)
                places[num] = start + position
                magnitudes[num] = part[position] & np.uint32(0x7FFFFFFF)
                num += 1
    if num < count:
        return False
    threshold, left = _radix(magnitudes, num, count)
    written = 0
    for j in range(num):
        if magnitudes[j] >= threshold:
            if magnitudes[j] == threshold:
                if left == 0:
                    continue
                left -= 1
            out[written] = offset + places[j]
            written += 1
    return True
