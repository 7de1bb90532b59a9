"""The loops of :mod:`.bernoulli`: a block of 1024 entries at a time."""

from typing import Any

import numpy as np

from thinwire.kernels.bitpack.bits import gather_flags
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import count_ones, count_trailing_zeros, empty, first_from, seen_as, zeros
from thinwire.kernels.random.philox import fill_pairs


@kernel
def mark_range(
    x: Any, ends: Any, centres: Any, bounds: Any, bases: Any, k0: Any, k1: Any, drawing: bool, marks: Any,
    first: int, last: int,
) -> Any:  # fmt: skip
    """Mark entries ``first``, a multiple of 1024, to ``last``."""
    coarse = empty(256, np.uint64)
    fine = empty(256, np.uint64)
    flags = zeros(1024, np.uint8)
    kept = np.int64(0)
    num_certain = np.int64(0)
    segment = first_from(ends, first + 1) - 1
    for start in range(first, last, 1024):
        stop = min(start + 1024, last)
        if drawing:
            fill_pairs(k0, k1, start // 8, 0, coarse)
        drawn = seen_as(coarse, np.uint16)
        position = start
        while position < stop:
            while ends[segment + 1] <= position:
                segment += 1
            till = min(stop, ends[segment + 1])
            part = x[position:till]
            there = flags[position - start :]
            centre, bound, base = centres[segment], bounds[segment], bases[segment]
            if drawing:
                found, undecided = _draw(part, centre, bound, base, drawn[position - start :], there)
                num_certain += found
                if undecided:
                    fill_pairs(k0, k1, start // 8, 1, fine)
                    words = seen_as(fine, np.uint16)[position - start :]
                    _settle(part, centre, bound, base, drawn[position - start :], words, there)
            else:
                _compare(part, bound, there)
            position = till
        flags[stop - start :] = 0
        kept += _gather_bits(flags, marks[start // 64 : start // 64 + 16])
    return kept, num_certain


@helper
def _draw(x: Any, centre: Any, bound: Any, base: Any, coarse: Any, flags: Any) -> Any:
    """What the high 16 bits of the random numbers say; the number of certain entries; whether any is undecided."""
    prefer_wide_vectors()
    always_inline()
    one = np.float32(1)
    certain = np.int32(0)
    undecided = np.int32(0)
    for j in range(x.size):
        a = np.abs(x[j] - centre)
        p = a / bound + base
        p = p if p < one else one
        excess = p * np.float32(65536) - np.float32(np.int32(coarse[j]))
        keep = (excess > np.float32(0)) & (a == a)
        flags[j] = np.uint8(keep)
        undecided += np.int32(keep & (excess < one))
        certain += np.int32(a >= bound)
    return np.int64(certain), undecided > 0


@helper
def _settle(x: Any, centre: Any, bound: Any, base: Any, coarse: Any, fine: Any, flags: Any) -> None:
    """As all 32 bits say: one block in a hundred needs them."""
    one = np.float32(1)
    for j in range(x.size):
        a = np.abs(x[j] - centre)
        p = a / bound + base
        p = p if p < one else one
        excess = p * np.float32(65536) - np.float32(np.int32(coarse[j]))
        flags[j] = np.uint8((np.float32(np.int32(fine[j])) * np.float32(2.0**-16) < excess) & (a == a))


@helper
def _compare(x: Any, bound: Any, flags: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    for j in range(x.size):
        flags[j] = np.uint8(np.abs(x[j]) >= bound)


@helper
def _gather_bits(flags: Any, marks: Any) -> Any:
    """1024 bytes of 0 or 1 as the bits of 16 words; how many are 1."""
    prefer_wide_vectors()
    always_inline()
    gather_flags(flags, seen_as(marks, np.uint8))
    count = np.int64(0)
    for j in range(16):
        count += np.int64(count_ones(marks[j]))
    return count


@kernel
def gather_values(
    x: Any, ends: Any, centres: Any, bounds: Any, bases: Any, marks: Any, first: int, last: int, indices: Any,
    values: Any,
) -> None:  # fmt: skip
    """Indices of the marked entries, and what is sent of each."""
    segment: Any = 0
    written = 0
    for base in range(first, last, 64):
        word = marks[base // 64]
        while word != np.uint64(0):
            position = base + np.int64(count_trailing_zeros(word))
            word &= word - np.uint64(1)
            if ends[segment + 1] <= position:
                segment = first_from(ends, position + 1) - 1
            deviation = x[position] - centres[segment]
            bound = bounds[segment]
            if bound == np.inf:
                deviation = deviation / bases[segment]
            elif np.abs(deviation) < bound:
                deviation = -bound if deviation < np.float32(0) else bound
            indices[written] = position
            values[written] = deviation
            written += 1


@kernel
def gather_apart(
    x: Any, ends: Any, bounds: Any, marks: Any, first: int, last: int, above_at: Any, above: Any, below_at: Any,
    below: Any,
) -> None:  # fmt: skip
    """Marked entries that reach their bound to the first two arrays, the others to the last two."""
    segment: Any = 0
    num_above = 0
    num_below = 0
    for base in range(first, last, 64):
        word = marks[base // 64]
        while word != np.uint64(0):
            position = base + np.int64(count_trailing_zeros(word))
            word &= word - np.uint64(1)
            if ends[segment + 1] <= position:
                segment = first_from(ends, position + 1) - 1
            entry = x[position]
            if np.abs(entry) >= bounds[segment]:
                above_at[num_above] = position
                above[num_above] = entry
                num_above += 1
            else:
                below_at[num_below] = position
                below[num_below] = entry
                num_below += 1
