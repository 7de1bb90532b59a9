"""Ascending indices as gaps in a split-stream exp-Golomb code whose order follows the data.

The gaps ``g_j`` are those of :mod:`thinwire.kernels.rice`. They are cut into blocks of 128, the last may be
shorter, and every block has an order ``o`` from 0 to 15. With ``q_j = g_j + 2**o`` and ``w_j = floor(log2(q_j))``
the code is three byte-aligned streams: the orders, packed with 4 bits each as in
:func:`thinwire.kernels.bits.pack`; then ``w_j - o`` in unary, as many zero bits, then a one, the lowest bit of a
byte first; then the ``w_j`` low bits of ``q_j``, back to back. That is ``2 w_j - o + 1`` bits a gap: twice the
logarithm of a long gap, where a Rice code takes a part of the gap itself, so clustered indices cost little.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bits import num_packed_bytes, pack_torch, unpack_torch
from thinwire.kernels.numba_tools import (
    append_bits,
    array_of,
    count_leading_zeros,
    count_trailing_zeros,
    kernel,
    load_word_padded,
    tensor_of,
    unary_end,
    write_bits,
)
from thinwire.kernels.rice import SLACK, gaps_of
from thinwire.kernels.threads import run, shares

BLOCK = 128
"""Gaps that share one order."""

MAX_ORDER = 15
"""Largest order: what four bits hold."""

MAX_WIDTH = 48
"""Most low bits of one ``q_j``: a gap is below ``2**48``, the longest vector of a message."""

_BAD_INDEX, _ENDED, _PADDING = -1, -2, -3
_REASONS = {
    _BAD_INDEX: "an index is not below the vector's length",
    _ENDED: "the indices go on past the end of the data",
    _PADDING: "the bits after the last order, the last length or the last gap are not zero",
}


def exp_golomb_num_bytes(indices: Tensor) -> int:
    """Exact length of :func:`exp_golomb_encode` without encoding.

    Example:
        >>> exp_golomb_num_bytes(torch.tensor([100, 250, 300]))
        5
    """
    return orders_of_gaps(gaps_of(indices))[1]


def orders_of_gaps(gaps: Tensor) -> tuple[Tensor, int]:
    """For every block of gaps the order with the fewest bits, of equal ones the lowest; and the code's length.

    Args:
        gaps: int64 ``[n]``, 0 to ``2**48 - 1``, as :func:`thinwire.kernels.rice.gaps_of` gives them.

    Returns:
        uint8 ``[ceil(n / 128)]`` on the device of ``gaps``, and the number of bytes that
        :func:`encode_with_orders` takes.

    Raises:
        ConfigError: a gap out of range.

    Example:
        >>> orders_of_gaps(torch.tensor([100, 149, 49]))
        (tensor([6], dtype=torch.uint8), 5)
    """
    if not gaps.is_cpu:
        return orders_of_gaps_torch(gaps)
    array, orders = array_of(gaps), np.empty(_num_blocks(gaps.numel()), np.uint8)
    found = run(_choose_orders, [(array, orders, start, stop) for start, stop in _shares(orders.size)])
    if min(found) < (0, 0):
        raise _out_of_range()
    unary, raw = (sum(bits) for bits in zip(*found, strict=True))
    return tensor_of(orders), (orders.size + 1) // 2 + (unary + 7) // 8 + (raw + 7) // 8


def orders_of_gaps_torch(gaps: Tensor) -> tuple[Tensor, int]:
    """:func:`orders_of_gaps` in torch operations, on any device."""
    if gaps.numel() and bool(((gaps < 0) | (gaps >= 2**MAX_WIDTH)).any()):
        raise _out_of_range()
    num_blocks = _num_blocks(gaps.numel())
    orders = torch.arange(MAX_ORDER + 1, device=gaps.device)
    bits = 2 * _floor_log2(gaps.unsqueeze(1) + (1 << orders)) - orders + 1
    padded = torch.nn.functional.pad(bits, (0, 0, 0, num_blocks * BLOCK - gaps.numel()))
    per_block = padded.view(num_blocks, BLOCK, MAX_ORDER + 1).sum(1)
    # argmin may return any of equal ones; the order in the low bits makes them different.
    best = (per_block * (MAX_ORDER + 1) + orders).amin(1) % (MAX_ORDER + 1)
    _, widths, lengths = _parts_torch(gaps, best)
    num_bytes = num_packed_bytes(num_blocks, 4) + _bytes_of_sum(lengths + 1) + _bytes_of_sum(widths)
    return best.to(torch.uint8), num_bytes


def exp_golomb_encode(indices: Tensor) -> Tensor:
    """The three streams, one after the other, with the orders of :func:`orders_of_gaps`.

    Args:
        indices: int64 ``[n]``, strictly ascending, not negative, below ``2**48``.

    Returns:
        uint8 of length :func:`exp_golomb_num_bytes` on the device of ``indices``; empty for ``n = 0``.

    Raises:
        ConfigError: indices that are not as described.

    Example:
        >>> exp_golomb_encode(torch.tensor([0, 3])).tolist()
        [0, 5, 1]
    """
    gaps = gaps_of(indices)
    orders, num_bytes = orders_of_gaps(gaps)
    if not gaps.is_cpu:
        return encode_with_orders_torch(gaps, orders)
    return encode_with_orders(gaps, orders, num_bytes)


def encode_with_orders(gaps: Tensor, orders: Tensor, num_bytes: int) -> Tensor:
    """:func:`exp_golomb_encode` of gaps whose :func:`orders_of_gaps` are at hand (on the CPU).

    Example:
        >>> encode_with_orders(torch.tensor([0, 2]), torch.tensor([0], dtype=torch.uint8), 3).tolist()
        [0, 5, 1]
    """
    array, chosen = array_of(gaps), array_of(orders)
    data = np.empty(num_bytes + SLACK, np.uint8)
    # Each part writes streams of its own, which are then put together bit by bit.
    ranges = _shares(chosen.size)
    streams = [np.empty((2, num_bytes + SLACK), np.uint8) for _ in ranges]
    counts = run(
        _encode, [(array, chosen, *part, unary, raw) for part, (unary, raw) in zip(ranges, streams, strict=True)]
    )
    _write_orders(chosen, data)
    begin = num_packed_bytes(chosen.size, 4)
    for which in (0, 1):
        end = 8 * begin
        for stream, num_bits in zip(streams, counts, strict=True):
            append_bits(data, end, stream[which], num_bits[which])
            end += num_bits[which]
        begin = (end + 7) // 8
    return tensor_of(data[:num_bytes])


def encode_with_orders_torch(gaps: Tensor, orders: Tensor) -> Tensor:
    """:func:`encode_with_orders` in torch operations, on any device and with any orders."""
    numbers, widths, lengths = _parts_torch(gaps, orders.to(torch.int64))
    ones = (lengths + 1).cumsum(0) - 1
    unary = torch.zeros(int(ones[-1]) + 1 if ones.numel() else 0, dtype=torch.uint8, device=gaps.device)
    unary[ones] = 1
    raw = numbers.repeat_interleave(widths) >> _places(widths) & 1
    return torch.cat([pack_torch(orders, 4), pack_torch(unary, 1), pack_torch(raw, 1)])


def exp_golomb_decode(data: Tensor, count: int, numel: int) -> Tensor:
    """The indices that :func:`exp_golomb_encode` wrote; ``data`` must hold them and nothing else.

    Any orders are accepted, not only those that an encoder takes.

    Args:
        data: uint8.
        count: number of indices, checked against the length of ``data`` before anything is allocated.
        numel: every index must be below; at most ``2**48``.

    Returns:
        int64 ``[count]``, strictly ascending, on the device of ``data``.

    Raises:
        WireError: streams too short or too long, an index not below ``numel``, padding bits that are not
            zero, or numbers out of range.

    Example:
        >>> exp_golomb_decode(torch.tensor([0, 5, 1], dtype=torch.uint8), 2, 4).tolist()
        [0, 3]
    """
    indices, num_bytes = exp_golomb_decode_prefix(data, count, numel)
    if num_bytes != data.numel():
        raise WireError(f"{count} indices take {num_bytes} bytes, {data.numel()} were given")
    return indices


def exp_golomb_decode_prefix(data: Tensor, count: int, numel: int) -> tuple[Tensor, int]:
    """The indices at the beginning of ``data``, and how many bytes they take: the code ends itself.

    Raises:
        WireError: as :func:`exp_golomb_decode`, except that more bytes may follow.

    Example:
        >>> indices, num_bytes = exp_golomb_decode_prefix(torch.tensor([0, 5, 1, 77], dtype=torch.uint8), 2, 4)
        >>> indices.tolist(), num_bytes
        ([0, 3], 3)
    """
    num_order_bytes = num_packed_bytes(_num_blocks(count), 4)
    # A gap takes at least the one bit that ends its length.
    if not 0 <= count <= min(numel, 8 * (data.numel() - num_order_bytes)) or numel > 2**MAX_WIDTH:
        raise WireError(f"{data.numel()} bytes cannot hold {count} indices below {numel}")
    host = array_of(data)
    if _num_blocks(count) % 2 and host[num_order_bytes - 1] >> 4:
        raise WireError(_REASONS[_PADDING])
    indices = np.empty(count, np.int64)
    result = int(_decode(host, num_order_bytes, numel, indices))
    if result < 0:
        raise WireError(_REASONS[result])
    return tensor_of(indices).to(data.device), result


def exp_golomb_decode_torch(data: Tensor, count: int, numel: int) -> Tensor:
    """:func:`exp_golomb_decode` of valid data in torch operations, on any device; it checks nothing."""
    num_blocks = _num_blocks(count)
    orders = _spread(unpack_torch(data, num_blocks, 4).to(torch.int64), count)
    shifts = torch.arange(8, device=data.device, dtype=torch.uint8)
    bits = ((data[num_packed_bytes(num_blocks, 4) :].unsqueeze(1) >> shifts) & 1).reshape(-1)
    ones = bits.nonzero().squeeze(1)[:count]
    widths = ones.diff(prepend=ones.new_full((1,), -1)) - 1 + orders
    start = (int(ones[-1]) // 8 + 1) * 8 if count else 0
    places = _places(widths)
    raw = bits[start : start + places.numel()].to(torch.int64) << places
    owners = torch.arange(count, device=data.device).repeat_interleave(widths)
    numbers = (torch.ones_like(widths) << widths).index_add(0, owners, raw)
    return (numbers - (1 << orders) + 1).cumsum(0) - 1


def _shares(num_blocks: int) -> list[tuple[int, int]]:
    """Ranges of blocks, one for each thread that is worth its start."""
    # A gap costs several times as much as an entry of a vector.
    return [(start // (8 * BLOCK), stop // (8 * BLOCK)) for start, stop in shares(8 * BLOCK * num_blocks, 8 * BLOCK)]


def _num_blocks(count: int) -> int:
    return (count + BLOCK - 1) // BLOCK


def _out_of_range() -> ConfigError:
    return ConfigError(f"a gap between indices must be 0 to 2**{MAX_WIDTH} - 1")


def _bytes_of_sum(num_bits: Tensor) -> int:
    return (int(num_bits.sum()) + 7) // 8


def _floor_log2(numbers: Tensor) -> Tensor:
    # Exact: below 2**53 a float64 holds every integer.
    return torch.frexp(numbers.to(torch.float64)).exponent.to(torch.int64) - 1


def _spread(orders: Tensor, count: int) -> Tensor:
    """The order of every gap, from that of every block."""
    return orders.repeat_interleave(BLOCK)[:count]


def _parts_torch(gaps: Tensor, orders: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``q_j``, ``w_j`` and ``w_j - o``."""
    per_gap = _spread(orders, gaps.numel())
    numbers = gaps + (1 << per_gap)
    widths = _floor_log2(numbers)
    return numbers, widths, widths - per_gap


def _places(widths: Tensor) -> Tensor:
    """``0, 1, ..., w_0 - 1, 0, 1, ..., w_1 - 1, ...``."""
    ends = widths.cumsum(0)
    total = int(ends[-1]) if ends.numel() else 0
    return torch.arange(total, device=widths.device) - (ends - widths).repeat_interleave(widths)


@kernel
def _num_bits(number: Any) -> Any:
    """Binary digits of a number: 0 for 0."""
    return 64 - np.int64(count_leading_zeros(np.uint64(number)))


@kernel
def _choose_orders(gaps: Any, orders: Any, first: int, last: int) -> Any:
    """Of blocks ``first`` to ``last - 1``; how many bits the two streams take, or -1 for a gap out of range."""
    num_unary_bits = np.int64(0)
    num_raw_bits = np.int64(0)
    short = np.empty(49, np.int64)
    carried = np.empty(49, np.int64)
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
def _write_orders(orders: Any, data: Any) -> None:
    place = (np.int64(0), np.uint64(0), np.int64(0))
    for block in range(orders.size):
        place = write_bits(data, place[0], place[1], place[2], np.uint64(orders[block]), np.int64(4))


@kernel
def _encode(gaps: Any, orders: Any, first: int, last: int, unary: Any, raw: Any) -> Any:
    """The two streams of blocks ``first`` to ``last - 1``; how many bits they have."""
    # Side by side, they do not wait for each other.
    high = (np.int64(0), np.uint64(0), np.int64(0))
    low = (np.int64(0), np.uint64(0), np.int64(0))
    for block in range(first, last):
        order = np.int64(orders[block])
        for j in range(128 * block, min(128 * block + 128, gaps.size)):
            number = gaps[j] + (np.int64(1) << order)
            width = _num_bits(number) - 1
            length = width - order
            high = write_bits(unary, high[0], high[1], high[2], np.uint64(1) << np.uint64(length), length + 1)
            low = write_bits(raw, low[0], low[1], low[2], np.uint64(number ^ (np.int64(1) << width)), width)
    return 8 * high[0] + high[2], 8 * low[0] + low[2]


@kernel
def _decode(data: Any, num_order_bytes: int, numel: int, indices: Any) -> Any:
    unary = data[num_order_bytes:]
    num_unary_bits = unary_end(unary, indices.size)
    if num_unary_bits < 0:
        return _ENDED
    num_unary_bytes = (num_unary_bits + 7) >> 3
    if num_unary_bits & 7 and unary[num_unary_bytes - 1] >> (num_unary_bits & 7):
        return _PADDING
    raw = unary[num_unary_bytes:]
    word = np.uint64(0)
    begin = np.int64(-64)
    last = np.int64(-1)
    start = np.int64(0)
    index = np.int64(-1)
    done = 0
    while done < indices.size:
        order = np.int64(data[done >> 8] >> ((done >> 7 & 1) << 2) & 15)
        stop = min(done + 128, indices.size)
        while done < stop:
            # The number of 1s has been counted: no word past the end is asked for.
            while word == 0:
                begin += 64
                word = load_word_padded(unary, begin >> 3)
            bit = begin + np.int64(count_trailing_zeros(word))
            word &= word - np.uint64(1)
            width = bit - last - 1 + order
            # Such a gap is 2**49 - 2**15 at least.
            if width > 48:
                return _BAD_INDEX
            last = bit
            top = np.uint64(1) << np.uint64(width)
            low = (load_word_padded(raw, start >> 3) >> np.uint64(start & 7)) & (top - np.uint64(1))
            index += np.int64(top | low) - (np.int64(1) << order) + 1
            if index >= numel:
                return _BAD_INDEX
            indices[done] = index
            start += width
            done += 1
    num_raw_bytes = (start + 7) >> 3
    if num_raw_bytes > raw.size:
        return _ENDED
    if start & 7 and raw[num_raw_bytes - 1] >> (start & 7):
        return _PADDING
    return num_order_bytes + num_unary_bytes + num_raw_bytes
