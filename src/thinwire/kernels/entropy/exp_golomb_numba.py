"""The loops of :mod:`thinwire.kernels.entropy.exp_golomb`."""

from typing import Any

import numpy as np

from thinwire.kernels.entropy.gap_streams import ENDED, PADDING, TAKEN, TOO_LARGE, find_ends, from_byte, is_padded
from thinwire.kernels.entropy.gap_streams_simd import take_ones
from thinwire.kernels.jit.compiling import helper, kernel, pasted
from thinwire.kernels.jit.intrinsics import count_leading_zeros, empty, load_word, load_word_padded, write_bits


@helper
def _num_bits(number: Any) -> Any:
    """Binary digits of a number: 0 for 0."""
    return 64 - np.int64(count_leading_zeros(np.uint64(number)))


@kernel
def choose_orders(gaps: Any, orders: Any, first: int, last: int) -> Any:
    """Of blocks ``first`` to ``last - 1``; how many bits the two streams take, or -1 for a gap out of range."""
    num_unary_bits = np.int64(0)
    num_raw_bits = np.int64(0)
    short = empty(49, np.int64)
    carried = empty(49, np.int64)
    for block in range(first, last):
        part = gaps[128 * block : min(128 * block + 128, gaps.size)]
        # A gap g of s digits has w = o where o >= s. Where o < s, w = s - 1, or s if g + 2**o carries into a new
        # digit; it does for every o from c on, the number of digits of 2**s - 1 - g. So two counts a block, of s
        # and of c, give the sum of w for all orders.
        short[:] = 0
        carried[:] = 0
        total = np.int64(0)
        for j in range(part.size):
            gap = part[j]
            digits = _num_bits(gap)
            # That of negative gaps is 64.
            if digits > 48:
                return np.int64(-1), np.int64(-1)
            short[digits] += 1
            carried[_num_bits(gap ^ ((np.int64(1) << digits) - 1))] += 1
            total += digits
        fewest = np.int64(2**62)
        num_short = np.int64(0)
        widths = total - part.size
        for order in range(16):
            widths += carried[order]
            bits = 2 * widths - part.size * order
            if bits < fewest:
                fewest = bits
                best = order
                best_widths = widths
            # From here on the gaps of at most `order` digits have w = o: one more for the next order.
            num_short += short[order]
            widths += num_short
        orders[block] = best
        num_raw_bits += best_widths
        num_unary_bits += best_widths - part.size * best + part.size
    return num_unary_bits, num_raw_bits


@kernel
def num_bytes_of_bits(num_blocks: int, unary: int, raw: int) -> Any:
    """Length of a code with so many orders and bits of the two other streams."""
    return (4 * num_blocks + 7) // 8 + (unary + 7) // 8 + (raw + 7) // 8


@kernel
def write_orders(orders: Any, data: Any) -> None:
    """Four bits each."""
    place = (np.int64(0), np.uint64(0), np.int64(0))
    for block in range(orders.size):
        place = write_bits(data, place[0], place[1], place[2], np.uint64(orders[block]), np.int64(4))


@kernel
def encode_blocks(gaps: Any, orders: Any, first: int, last: int, unary: Any, raw: Any) -> Any:
    """The two streams of blocks ``first`` to ``last - 1``; how many bits they have."""
    # Side by side, they do not wait for each other.
    high = (np.int64(0), np.uint64(0), np.int64(0))
    low = (np.int64(0), np.uint64(0), np.int64(0))
    for block in range(first, last):
        order = np.int64(orders[block])
        part = gaps[128 * block : min(128 * block + 128, gaps.size)]
        for j in range(part.size):
            number = part[j] + (np.int64(1) << order)
            width = _num_bits(number) - 1
            length = width - order
            high = write_bits(unary, high[0], high[1], high[2], np.uint64(1) << np.uint64(length), length + 1)
            low = write_bits(raw, low[0], low[1], low[2], np.uint64(number ^ (np.int64(1) << width)), width)
    return 8 * high[0] + high[2], 8 * low[0] + low[2]


@kernel
def sum_orders(data: Any, first: int, last: int) -> Any:
    """Of blocks ``first`` to ``last - 1``, for the gaps of whole blocks."""
    total = np.int64(0)
    for block in range(first, last):
        total += np.int64(data[block >> 1] >> ((block & 1) << 2) & 15)
    return 128 * total


@kernel
def check_lengths(orders: Any, unary: Any, count: int, end: int) -> int:
    """0, or what is wrong with the first two streams, of which the second ends before bit ``end``."""
    num_order_bits = 4 * ((count + 127) // 128)
    return 0 if is_padded(orders, num_order_bits) and is_padded(unary, end) else PADDING


@kernel
def num_bytes_read(num_order_bytes: int, end: int, raw: Any, raw_end: int) -> int:
    """The bytes of the three streams, of which the others end before these bits, or what is wrong with the third."""
    num_bytes = (raw_end + 7) >> 3
    if num_bytes > raw.size:
        return ENDED
    return num_order_bytes + ((end + 7) >> 3) + num_bytes if is_padded(raw, raw_end) else PADDING


@kernel
def decode_all(data: Any, num_order_bytes: int, numel: int, indices: Any) -> Any:
    """All indices on one thread; how many bytes they take, or what is wrong."""
    orders, unary = data[:num_order_bytes], data[num_order_bytes:]
    ends = empty(1, np.int64)
    ends[0] = indices.size
    if not find_ends(unary, ends):
        return ENDED
    wrong = check_lengths(orders, unary, indices.size, ends[0])
    if wrong:
        return wrong
    raw = unary[(ends[0] + 7) >> 3 :]
    raw_end = decode_blocks(orders, unary, 0, raw, np.int64(0), numel, 0, indices.size, indices)
    return num_bytes_read(num_order_bytes, ends[0], raw, raw_end) if raw_end >= 0 else TOO_LARGE


@pasted
def decode_blocks(
    data: Any, unary: Any, begin: int, raw: Any, start: Any, numel: int, first: int, last: int, indices: Any
) -> Any:
    """Indices ``first`` to ``last - 1`` of whole blocks, counted from the first; the bit of ``raw`` after theirs.

    Their lengths lie from bit ``begin`` on, where as many 1s are as are asked for, their low bits from bit ``start``
    on. -1 if an index is not below ``numel``.
    """
    places = empty(128 + TAKEN, np.int64)
    room = empty(128 * 6 + 16, np.uint8)
    position = np.int64(begin >> 3)
    word = load_word_padded(unary, position) >> np.uint64(begin & 7) << np.uint64(begin & 7)
    num = np.int64(0)
    before = np.int64(begin - 1)
    index = np.int64(-1)
    for done in range(first, last, 128):
        size = min(128, last - done)
        while num < size:
            num = take_ones(word, 8 * position, places, num)
            position += 8
            word = load_word_padded(unary, position)
        order = np.int64(data[done >> 8] >> ((done >> 7 & 1) << 2) & 15)
        widest = places[0] - before
        for j in range(1, size):
            widest = max(widest, places[j] - places[j - 1])
        # Such a gap is 2**49 - 2**15 at least.
        if widest - 1 + order > 48:
            return np.int64(-1)
        # Before the low bits of a gap lie as many as there are zeros before it in the block, and the order as often as
        # there are gaps before it: none waits for the one before.
        end = start + places[size - 1] - before + size * (order - 1)
        bits = from_byte(raw, start >> 3, (end - start >> 3) + 2, room)
        part = indices[done : done + size]
        last_place = before
        bit_of_first = np.int64(start & 7) - before
        for j in range(size):
            width = places[j] - last_place - 1 + order
            bit = np.uint64(bit_of_first + last_place + j * (order - 1))
            last_place = places[j]
            top = np.uint64(1) << np.uint64(width)
            low = (load_word(bits, np.int64(bit >> np.uint64(3))) >> (bit & np.uint64(7))) & (top - np.uint64(1))
            index += np.int64(top | low) - (np.int64(1) << order) + 1
            part[j] = index
        if index >= numel:
            return np.int64(-1)
        start = end
        before = last_place
        num -= size
        for j in range(num):
            places[j] = places[size + j]
    return np.int64(start)
