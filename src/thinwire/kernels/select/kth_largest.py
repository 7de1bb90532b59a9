"""The k-th largest of some magnitudes, and how many entries equal to it are wanted.

Magnitudes are the bits of ``|x|`` as an integer: they order as the numbers do.
"""

from typing import Any

import numpy as np

from thinwire.kernels.jit.compiling import helper, kernel, pasted
from thinwire.kernels.jit.intrinsics import copy_to, count_ones, count_trailing_zeros, empty, seen_as, zeros
from thinwire.kernels.select.top_k_simd import MAGNITUDE, passing_64

_FEW = 4096
_BINS = 2048
_BLOCK = 4096


@kernel
def kth_largest(bits: Any, size: int, count: int, least: Any) -> Any:
    """A threshold of the first ``size`` magnitudes of uint32 ``bits``, and how many entries equal to it are wanted.

    The others of the ``count`` wanted, 1 to ``size``, are above it. All are at least ``least``, and so is the
    threshold. What is behind them, up to a multiple of 64, is overwritten.
    """
    whole = (size + 63) // 64 * 64
    for j in range(size, whole):
        bits[j] = 0
    largest = np.uint32(0)
    for j in range(whole):
        largest = max(largest, bits[j] & np.uint32(MAGNITUDE))
    if size <= _FEW:
        return _bisect(bits, whole, count, np.int64(least), np.int64(largest))
    low = largest
    for j in range(size):
        low = min(low, bits[j] & np.uint32(MAGNITUDE))
    shift = np.uint32(0)
    while (largest - low) >> shift >= np.uint32(_BINS):
        shift = np.uint32(shift + np.uint32(1))
    histogram = zeros(_BINS, np.int64)
    for j in range(size):
        histogram[((bits[j] & np.uint32(MAGNITUDE)) - low) >> shift] += 1
    place, wanted = cut(histogram, count)
    floor = np.uint32(low + np.uint32(place << np.int64(shift)))
    num_members = histogram[place]
    # More than there are: each is written before it is known to be a member, and 64 are compared at a time.
    members = empty(num_members + 64, np.uint32)
    num: Any = 0
    for j in range(size):
        magnitude = bits[j] & np.uint32(MAGNITUDE)
        members[num] = magnitude
        num += np.int64((magnitude - low) >> shift == np.uint32(place))
        if num == num_members:
            break
    members[num:] = 0
    ceiling = np.int64(floor) + (np.int64(1) << np.int64(shift)) - 1
    return _bisect(members, (num + 63) // 64 * 64, wanted, np.int64(floor), ceiling)


@helper
def kth_largest_of_all(bits: Any, count: int) -> Any:
    """As :func:`kth_largest` for all of ``bits``, which may be more than a cache holds, and which it leaves alone."""
    if bits.size <= _FEW:
        few = empty(_FEW, np.uint32)
        copy_to(few[: bits.size], bits)
        return kth_largest(few, bits.size, count, np.uint32(0))
    # Four histograms: an increment that waits for the previous one of the same bin is slow.
    histograms = np.zeros((4, 2048), np.int64)
    h0, h1, h2, h3 = histograms[0], histograms[1], histograms[2], histograms[3]
    bins = empty(_BLOCK, np.uint16)
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        for j in range(part.size):
            bins[j] = np.uint16((part[j] & np.uint32(MAGNITUDE)) >> np.uint32(20))
        whole = part.size // 4 * 4
        for j in range(0, whole, 4):
            h0[bins[j]] += 1
            h1[bins[j + 1]] += 1
            h2[bins[j + 2]] += 1
            h3[bins[j + 3]] += 1
        for j in range(whole, part.size):
            h0[bins[j]] += 1
    for j in range(h0.size):
        h0[j] += h1[j] + h2[j] + h3[j]
    place, wanted = cut(h0, count)
    return kth_largest(_members(bits, np.uint32(place), h0[place]), h0[place], wanted, np.uint32(place << 20))


@pasted
def _members(bits: Any, place: Any, num_members: int) -> Any:
    """The magnitudes whose highest 11 bits are ``place``, and room for 64 more."""
    members = empty(num_members + 64, np.uint32)
    passed = zeros(_BLOCK, np.uint8)
    marks = seen_as(passed, np.uint64)
    num = 0
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        for j in range(part.size):
            passed[j] = np.uint8(((part[j] & np.uint32(MAGNITUDE)) >> np.uint32(20)) == place)
        passed[part.size : (part.size + 7) // 8 * 8] = 0
        for group in range((part.size + 7) // 8):
            word = marks[group]
            while word != 0:
                position = 8 * group + np.int64(count_trailing_zeros(word) >> np.uint64(3))
                members[num] = part[position] & np.uint32(MAGNITUDE)
                num += 1
                word &= word - np.uint64(1)
    return members


@helper
def _bisect(bits: Any, whole: int, count: int, least: Any, largest: Any) -> Any:
    """The threshold, from ``least`` to ``largest``, of ``whole`` entries, a multiple of 64."""
    low = np.int64(least)
    high = np.int64(largest) + 1
    at_high = np.int64(0)
    # At least `count` magnitudes are >= low, fewer are >= high.
    while high - low > 1:
        middle = (low + high) >> 1
        num = np.int64(0)
        for base in range(0, whole, 64):
            num += np.int64(count_ones(passing_64(bits, base, np.uint32(middle))))
        if num >= count:
            low = middle
            if num == count:
                # Nothing between the bound and the threshold: all that pass the bound are wanted.
                return np.uint32(low), count
        else:
            high = middle
            at_high = num
    return np.uint32(low), count - at_high


@kernel
def cut(histogram: Any, count: int) -> Any:
    """The bin that holds the ``count``-th largest entry, and how many of the bin's entries are wanted."""
    wanted = count
    place = histogram.size - 1
    while histogram[place] < wanted:
        wanted -= histogram[place]
        place -= 1
    return place, wanted


@helper
def collect(entries: Any, start: int, stop: int, threshold: Any, ties: int, indices: Any, values: Any) -> None:
    """Positions and values of the magnitudes above the threshold and of the first ``ties`` equal to it."""
    bits = seen_as(entries, np.uint32)
    left = ties
    num = 0
    whole = start + (stop - start) // 64 * 64
    for base in range(start, whole, 64):
        word = passing_64(entries, base, threshold)
        while word != 0:
            position = base + np.int64(count_trailing_zeros(word))
            word &= word - np.uint64(1)
            if (bits[position] & np.uint32(MAGNITUDE)) == threshold:
                if left == 0:
                    continue
                left -= 1
            indices[num] = position
            values[num] = entries[position]
            num += 1
    for rest in range(whole, stop):
        magnitude = bits[rest] & np.uint32(MAGNITUDE)
        if magnitude < threshold:
            continue
        if magnitude == threshold:
            if left == 0:
                continue
            left -= 1
        indices[num] = rest
        values[num] = entries[rest]
        num += 1
