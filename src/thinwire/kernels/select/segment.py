"""Accumulate and select within one segment.

Few entries pass a safe lower bound of the k-th magnitude. They are gathered, with their positions, and the exact
selection is made among them. The bound comes from the maxima of small groups while the segment is in the cache, or,
for a segment that is larger, from a sample of it, so that its memory is read once.
"""

from typing import Any

import numpy as np

from thinwire.kernels.jit.compiling import helper, kernel, pasted
from thinwire.kernels.jit.intrinsics import count_trailing_zeros, empty, seen_as, take_marked
from thinwire.kernels.jit.simd import LANES
from thinwire.kernels.select.kth_largest import collect, kth_largest, kth_largest_of_all
from thinwire.kernels.select.top_k_simd import (
    GROUP,
    MAGNITUDE,
    NOTHING,
    accumulate_64,
    accumulate_maxima,
    passing_64,
    sum_16,
    take_maxima,
)

BLOCK = 4096
"""Entries that are gathered between two looks at the room that is left for candidates."""

ROOM = 2 * BLOCK
"""Candidates that fit beyond the share of the wanted entries."""

_CACHED = 1 << 16
_MAX_LINES = 4096
_DENSE = 20


@kernel
def is_dense(size: int, count: int) -> bool:
    """Whether candidates would save nothing: too many are wanted, or there are too few entries."""
    return size < GROUP or count * _DENSE > size


@kernel
def candidates_of(scratch: Any, capacity: int) -> Any:
    """Room for the places of candidates, and for their bits and 64 more."""
    return scratch[:capacity], seen_as(scratch[capacity:], np.uint32)[: capacity + 64]


@pasted
def select_segment(
    x: Any,
    residual: Any,
    decay: Any,
    add: bool,
    out: Any,
    start: int,
    stop: int,
    indices: Any,
    values: Any,
    places: Any,
    bits: Any,
    maxima: Any,
) -> None:
    """Entries ``start`` to ``stop - 1`` of ``out``: accumulate them if ``add``, select ``indices.size`` of them.

    ``places`` holds the candidates, at least ``indices.size + ROOM``, and ``bits`` 64 more; ``maxima`` is scratch.
    """
    size = stop - start
    count = indices.size
    if size <= 64 and count < size:
        if add:
            accumulate_range(x, residual, decay, out, start, stop)
        _select_short(out, start, size, indices, values, maxima)
        return
    if count == 0 or is_dense(size, count):
        if add:
            accumulate_range(x, residual, decay, out, start, stop)
        if count == size:
            for j in range(size):
                indices[j] = start + j
                values[j] = out[start + j]
        elif count > 0:
            threshold, ties = kth_largest_of_all(seen_as(out[start:stop], np.uint32), count)
            collect(out, start, stop, threshold, ties, indices, values)
        return
    if size <= _CACHED:
        bound = _bound_of_maxima(x, residual, decay, add, out, start, stop, count, maxima)
        num, _ = gather(x, residual, decay, False, out, start, stop, bound, count, places, bits, 0)
    else:
        bound = sample_bound(x, residual, decay, add, start, stop, count)
        num, _ = gather(x, residual, decay, add, out, start, stop, bound, count, places, bits, 0)
        if num < count:
            # The sample misled, which it does rarely. The sums are in `out` already.
            num, _ = gather(x, residual, decay, False, out, start, stop, np.uint32(0), count, places, bits, 0)
    threshold, ties = kth_largest(bits, num, count, np.uint32(0))
    take_wanted(places, bits, 0, threshold, ties, indices, seen_as(values, np.uint32), 0, count)


@pasted
def _select_short(out: Any, start: int, size: int, indices: Any, values: Any, scratch: Any) -> None:
    """The largest of at most 64 entries."""
    bits = seen_as(out, np.uint32)
    for j in range(size):
        scratch[j] = bits[start + j]
    if indices.size == 0:
        return
    threshold, ties = kth_largest(scratch, size, indices.size, np.uint32(0))
    # Nothing behind the entries is above zero, and what equals it comes last.
    word = passing_64(scratch, 0, threshold)
    written = 0
    while written < indices.size:
        lane = np.int64(count_trailing_zeros(word))
        word &= word - np.uint64(1)
        if scratch[lane] & np.uint32(MAGNITUDE) == threshold:
            if ties == 0:
                continue
            ties -= 1
        indices[written] = start + lane
        values[written] = out[start + lane]
        written += 1


@helper
def accumulate_range(x: Any, residual: Any, decay: Any, out: Any, start: int, stop: int) -> None:
    """``out = decay * residual + x`` from ``start`` to ``stop - 1``."""
    whole = start + (stop - start) // 64 * 64
    for base in range(start, whole, 64):
        accumulate_64(x, residual, decay, out, base, np.uint32(NOTHING))
    for j in range(whole, stop):
        out[j] = residual[j] * decay + x[j]


@helper
def gather(
    x: Any,
    residual: Any,
    decay: Any,
    add: bool,
    out: Any,
    start: int,
    stop: int,
    bound: Any,
    count: int,
    places: Any,
    bits: Any,
    num: int,
) -> Any:
    """Accumulate if ``add``, and append the entries that reach the bound to the ``num`` candidates so far.

    Returns:
        How many candidates there are, and the bound, which rises when they are thinned out for want of room. Then the
        ``count`` largest so far are left, and of equal ones that come later none is wanted. Where not even those
        fit, the number is -1, but the entries have been accumulated.
    """
    values = seen_as(out, np.uint32)
    for block in range(start, stop, BLOCK):
        end = min(block + BLOCK, stop)
        if num + BLOCK > places.size:
            if num > count and count + BLOCK <= places.size:
                threshold, ties = kth_largest(bits, num, count, np.uint32(0))
                take_wanted(places, bits, 0, threshold, ties, places, bits, 0, count)
                num = count
                bound = np.uint32(threshold + np.uint32(1))
            else:
                num = -1
                bound = np.uint32(NOTHING)
        whole = block + (end - block) // 64 * 64
        for base in range(block, whole, 64):
            if add:
                word = accumulate_64(x, residual, decay, out, base, bound)
            else:
                word = passing_64(out, base, bound)
            if word != 0:
                num = take_marked(word, base, 0, values, places, bits, num)
        for rest in range(whole, end):
            if add:
                out[rest] = residual[rest] * decay + x[rest]
            if (values[rest] & np.uint32(MAGNITUDE)) >= bound:
                places[num] = rest
                bits[num] = values[rest]
                num += 1
    return num, bound


@helper
def take_wanted(
    places: Any, bits: Any, first: Any, threshold: Any, ties: Any, chosen: Any, kept: Any, begin: Any, end: Any
) -> None:
    """Write the wanted candidates from ``first`` on to ``begin`` to ``end - 1`` of ``chosen`` and ``kept``, in order.

    Wanted are those above the threshold and the first ``ties`` that equal it; so many must be there. The arrays may be
    the candidates' own.
    """
    left = np.int64(ties)
    written = np.int64(begin)
    j = np.int64(first)
    while written < end:
        # Which are wanted cannot be predicted: each is written, and the next one over it if it is not.
        value = bits[j]
        magnitude = value & np.uint32(MAGNITUDE)
        tied = np.int64(magnitude == threshold) & np.int64(left > 0)
        chosen[np.uint64(written)] = places[j]
        kept[np.uint64(written)] = value
        written += np.int64(magnitude > threshold) + tied
        left -= tied
        j += 1


@pasted
def _bound_of_maxima(
    x: Any, residual: Any, decay: Any, add: bool, out: Any, start: int, stop: int, count: int, maxima: Any
) -> Any:
    """A magnitude that at least ``count`` entries reach; accumulates if ``add``.

    Entries are put into groups of at most 16. As many groups as have a maximum of at least the bound have an entry
    of at least the bound, so the ``count``-th largest maximum is one.
    """
    values = seen_as(out, np.uint32)
    whole = start + (stop - start) // GROUP * GROUP
    num = 0
    for base in range(start, whole, GROUP):
        if add:
            accumulate_maxima(x, residual, decay, out, base, maxima, num)
        else:
            take_maxima(out, base, maxima, num)
        num += LANES
    if add:
        accumulate_range(x, residual, decay, out, whole, stop)
    for base in range(whole, stop, LANES):
        largest = np.uint32(0)
        for j in range(base, min(base + LANES, stop)):
            largest = max(largest, values[j] & np.uint32(MAGNITUDE))
        maxima[num] = largest
        num += 1
    bound, _ = kth_largest(maxima, num, count, np.uint32(0))
    return bound


NUM_MAXIMA = _CACHED // LANES + 64
"""Groups of the largest segment whose maxima are taken, and a rest."""


@pasted
def sample_bound(x: Any, residual: Any, decay: Any, add: bool, start: int, stop: int, count: int) -> Any:
    """A magnitude that, by a sample of short runs, at least ``count`` entries almost surely reach."""
    size = stop - start
    lines = num_lines(size, count)
    stride = size // 16 / lines
    sample = empty(16 * lines + 64, np.uint32)
    entries = seen_as(sample, np.float32)
    # Any spread-out places will do: a bad sample costs time, never exactness.
    state = np.uint64(0x9E3779B97F4A7C15)
    for line in range(lines):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        place = start + np.int64((line + np.float64(state >> np.uint64(40)) * 2.0**-24) * stride) * 16
        if add:
            sum_16(x, residual, decay, place, entries, 16 * line)
        else:
            for j in range(16):
                entries[16 * line + j] = x[place + j]
    bound, _ = kth_largest(sample, 16 * lines, safe_rank(16 * lines, count / size), np.uint32(0))
    return bound


@kernel
def num_lines(size: int, count: int) -> Any:
    """Runs of 16 entries in a sample: what one more costs against what the candidates cost that it saves."""
    return max(64, min(_MAX_LINES, np.int64((np.float64(size) * count) ** (1.0 / 3.0) / 4.0)))


@kernel
def safe_rank(size: int, share: float) -> Any:
    """Of so many sampled entries, the rank that a magnitude must have which the share of all almost surely reaches."""
    expected = size * share
    # Six standard deviations, with a factor of 2 because neighbours resemble each other.
    return min(size, np.int64(expected + 6 * np.sqrt(2 * expected) + 8))
