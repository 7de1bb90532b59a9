"""The loops of :mod:`thinwire.kernels.entropy.rice`."""

from typing import Any

import numpy as np

from thinwire.kernels.bitpack.bits import unpack_block
from thinwire.kernels.entropy.gap_streams import ENDED, PADDING, TAKEN, TOO_LARGE, find_ends, is_padded
from thinwire.kernels.entropy.gap_streams_simd import take_ones
from thinwire.kernels.jit.compiling import kernel, pasted
from thinwire.kernels.jit.intrinsics import empty, load_word_padded, write_bits, zeros

_BLOCK = 512
"""Indices whose quotients are read before their remainders."""

_NARROW = 31
"""Bits of the widest remainders that are read many at once."""


@kernel
def fill_gaps(indices: Any, gaps: Any) -> Any:
    """Write the gaps of indices; the smallest of them, and 0."""
    # An index below the previous one shows up as a negative gap; a negative first index too.
    if indices.size == 0:
        return np.int64(0)
    gaps[0] = indices[0]
    smallest = min(np.int64(0), indices[0])
    before, after, between = indices[:-1], indices[1:], gaps[1:]
    for j in range(between.size):
        gap = after[j] - before[j] - 1
        between[j] = gap
        smallest = min(smallest, gap)
    return smallest


@kernel
def sum_shifted(gaps: Any, parameter: int) -> Any:
    """The sum of the quotients."""
    total = np.int64(0)
    for j in range(gaps.size):
        total += gaps[j] >> parameter
    return total


@pasted
def choose_parameter(gaps: Any) -> Any:
    """The parameter with the fewest bytes, of equal ones the lowest; and these bytes."""
    count = gaps.size
    if count == 0:
        return 0, np.int64(0)
    start = 0
    mean = sum_shifted(gaps, 0) // count
    while mean > 1 and start < 40:
        mean >>= 1
        start += 1
    best = start
    best_bytes = np.int64(2**62)
    fewest = np.int64(2**62)
    # Downhill first, then uphill, each past the minimum by more than the 14 bits that rounding two streams to
    # whole bytes can hide.
    for step in (-1, 1):
        parameter = start if step < 0 else start + 1
        while 0 <= parameter <= 40:
            quotients = sum_shifted(gaps, parameter)
            bits = count * (parameter + 1) + quotients
            num_bytes = (count * parameter + 7) // 8 + (count + quotients + 7) // 8
            if num_bytes < best_bytes or (num_bytes == best_bytes and parameter < best):
                best_bytes = num_bytes
                best = parameter
            fewest = min(fewest, bits)
            if bits >= fewest + 16:
                break
            parameter += step
    return best, best_bytes


@kernel
def choose_parameter_below(gaps: Any, num_bytes: int) -> Any:
    """:func:`choose_parameter`, or -1 and 0 where the sum of the gaps tells that no parameter leads to fewer bytes."""
    total = sum_shifted(gaps, 0)
    for parameter in range(41):
        # A quotient is at least (g - 2**b + 1) / 2**b, rounded up their sum is an integer.
        low = (np.int64(1) << parameter) - 1
        quotients = np.int64(0)
        if gaps.size and low < total // gaps.size:
            quotients = max(quotients, (total - gaps.size * low + low) >> parameter)
        if (gaps.size * parameter + 7) // 8 + (gaps.size + quotients + 7) // 8 < num_bytes:
            return choose_parameter(gaps)
    return -1, np.int64(0)


@kernel
def encode_range(gaps: Any, parameter: int, first: int, last: int, low_bits: Any, high_bits: Any) -> Any:
    """The two streams of gaps ``first`` to ``last - 1``; how many bits they have."""
    shift = np.int64(parameter)
    mask = (np.int64(1) << shift) - 1
    # Side by side, they do not wait for each other.
    low = (np.int64(0), np.uint64(0), np.int64(0))
    high = (np.int64(0), np.uint64(0), np.int64(0))
    part = gaps[first:last]
    for j in range(part.size):
        gap = part[j]
        low = write_bits(low_bits, low[0], low[1], low[2], np.uint64(gap & mask), shift)
        quotient = gap >> shift
        while quotient > 48:
            high = write_bits(high_bits, high[0], high[1], high[2], np.uint64(0), np.int64(48))
            quotient -= 48
        high = write_bits(high_bits, high[0], high[1], high[2], np.uint64(1) << np.uint64(quotient), quotient + 1)
    return 8 * low[0] + low[2], 8 * high[0] + high[2]


@kernel
def check_streams(remainders: Any, unary: Any, count: int, numel: int, parameter: int, end: int) -> int:
    """0, or what is wrong with the streams, of which the second ends before bit ``end``."""
    if not (is_padded(remainders, count * parameter) and is_padded(unary, end)):
        return PADDING
    return 0 if end - count <= numel >> parameter else TOO_LARGE


@kernel
def decode_all(data: Any, num_remainder_bytes: int, numel: int, parameter: int, indices: Any) -> Any:
    """All indices on one thread; the bit of the second stream after theirs, or what is wrong."""
    remainders, unary = data[:num_remainder_bytes], data[num_remainder_bytes:]
    ends = empty(1, np.int64)
    ends[0] = indices.size
    if not find_ends(unary, ends):
        return ENDED
    wrong = check_streams(remainders, unary, indices.size, numel, parameter, ends[0])
    if wrong:
        return wrong
    is_below = decode_range(remainders, unary, 0, numel, parameter, 0, indices.size, indices)
    return ends[0] if is_below else TOO_LARGE


@pasted
def decode_range(
    remainders: Any, unary: Any, begin: int, numel: int, parameter: int, first: Any, last: Any, indices: Any
) -> bool:
    """Indices ``first``, a multiple of 8, to ``last - 1``, counted from the first; whether all are below ``numel``.

    Their quotients lie from bit ``begin`` on, where as many 1s are as are asked for, and add up to at most
    ``numel >> parameter``.
    """
    places = empty(_BLOCK + TAKEN, np.int64)
    low = zeros(_BLOCK, np.int32)
    word = load_word_padded(unary, begin >> 3) >> np.uint64(begin & 7) << np.uint64(begin & 7)
    position = np.int64(begin >> 3)
    remainder_sum = np.int64(0)
    num = np.int64(0)
    for done in range(first, last, _BLOCK):
        size = min(_BLOCK, last - done)
        while num < size:
            num = take_ones(word, 8 * position - begin, places, num)
            position += 8
            word = load_word_padded(unary, position)
        part = indices[done : done + size]
        before = np.int64(done - first)
        if parameter <= _NARROW:
            # Eight remainders of any width are whole bytes.
            if parameter:
                unpack_block(remainders[done // 8 * parameter :], parameter, low[:size])
            for j in range(size):
                remainder_sum += np.int64(low[j])
                # The zeros before the 1 of an index are the sum of the quotients up to it.
                part[j] = ((places[j] - before - j) << parameter) + remainder_sum + before + j
        else:
            mask = (np.uint64(1) << np.uint64(parameter)) - np.uint64(1)
            for j in range(size):
                bit = (done + j) * parameter
                remainder_sum += np.int64((load_word_padded(remainders, bit >> 3) >> np.uint64(bit & 7)) & mask)
                part[j] = ((places[j] - before - j) << parameter) + remainder_sum + before + j
        if part[size - 1] >= numel:
            return False
        num -= size
        for j in range(num):
            places[j] = places[size + j]
    return True
