"""Ascending indices as gaps in a split-stream exp-Golomb code whose order follows the data.

The gaps ``g_j`` are those of :mod:`thinwire.kernels.entropy.rice`. They are cut into blocks of 128, the last may be
shorter, and every block has an order ``o`` from 0 to 15. With ``q_j = g_j + 2**o`` and ``w_j = floor(log2(q_j))``
the code is three byte-aligned streams: the orders, packed with 4 bits each as in
:func:`thinwire.kernels.bitpack.bits.pack`; then ``w_j - o`` in unary, as many zero bits, then a one, the lowest bit of
a byte first; then the ``w_j`` low bits of ``q_j``, back to back. That is ``2 w_j - o + 1`` bits a gap: twice the
logarithm of a long gap, where a Rice code takes a part of the gap itself, so clustered indices cost little.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of, to_device
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_torch
from thinwire.kernels.entropy.exp_golomb_numba import (
    check_lengths,
    choose_orders,
    decode_all,
    decode_blocks,
    encode_blocks,
    num_bytes_of_bits,
    num_bytes_read,
    sum_orders,
    write_orders,
)
from thinwire.kernels.entropy.gap_streams import (
    ENDED,
    PADDING,
    REASONS,
    SLACK,
    TOO_LARGE,
    Ranges,
    begins_of,
    chain,
    gap_ranges,
    write_streams,
)
from thinwire.kernels.entropy.rice import gaps_of
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.threads import run

BLOCK = 128
"""Gaps that share one order."""

MAX_ORDER = 15
"""Largest order: what four bits hold."""

MAX_WIDTH = 48
"""Most low bits of one ``q_j``: a gap is below ``2**48``, the longest vector of a message."""

_REASONS = {**REASONS, PADDING: "the bits after the last order, the last length or the last gap are not zero"}


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
        gaps: int64 ``[n]``, 0 to ``2**48 - 1``, as :func:`thinwire.kernels.entropy.rice.gaps_of` gives them.

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
        return body_for(orders_of_gaps_torch, gaps.device)(gaps)
    array, orders = array_of(gaps), np.empty(num_blocks_of(gaps.numel()), np.uint8)
    found = run(choose_orders, [(array, orders, *part) for part in _blocks_of(gap_ranges(array.size, BLOCK))])
    if min(found) < (0, 0):
        raise _out_of_range()
    unary, raw = (sum(bits) for bits in zip(*found, strict=True))
    return tensor_of(orders), num_bytes_of_bits(orders.size, unary, raw)


def orders_of_gaps_torch(gaps: Tensor) -> tuple[Tensor, int]:
    """:func:`orders_of_gaps` in torch operations, on any device."""
    if gaps.numel() and bool(((gaps < 0) | (gaps >= 2**MAX_WIDTH)).any()):
        raise _out_of_range()
    num_blocks = num_blocks_of(gaps.numel())
    orders = torch.arange(MAX_ORDER + 1, dtype=torch.int64, device=gaps.device)
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
        return body_for(encode_with_orders_torch, gaps.device)(gaps, orders)
    return encode_with_orders(gaps, orders, num_bytes)


def encode_with_orders(gaps: Tensor, orders: Tensor, num_bytes: int) -> Tensor:
    """:func:`exp_golomb_encode` of gaps whose :func:`orders_of_gaps` are at hand (on the CPU).

    Example:
        >>> encode_with_orders(torch.tensor([0, 2]), torch.tensor([0], dtype=torch.uint8), 3).tolist()
        [0, 5, 1]
    """
    array, chosen = array_of(gaps), array_of(orders)
    data = np.empty(num_bytes + SLACK, np.uint8)
    write_orders(chosen, data)
    calls = [(array, chosen, *part) for part in _blocks_of(gap_ranges(array.size, BLOCK))]
    write_streams(encode_blocks, calls, data, num_packed_bytes(chosen.size, 4))
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
    num_order_bytes = num_packed_bytes(num_blocks_of(count), 4)
    # A gap takes at least the one bit that ends its length.
    if not 0 <= count <= min(numel, 8 * (data.numel() - num_order_bytes)) or numel > 2**MAX_WIDTH:
        raise WireError(f"{data.numel()} bytes cannot hold {count} indices below {numel}")
    host, indices = array_of(data), empty_array(count, np.int64)
    ranges = gap_ranges(count, BLOCK)
    if len(ranges) == 1:
        num_bytes = int(decode_all(host, num_order_bytes, numel, indices))
    else:
        num_bytes = _decode_shares(host[:num_order_bytes], host[num_order_bytes:], numel, ranges, indices)
    if num_bytes < 0:
        raise WireError(_REASONS[num_bytes])
    return to_device(tensor_of(indices), data.device), num_bytes


def _decode_shares(orders: Any, unary: Any, numel: int, ranges: Ranges, indices: Any) -> int:
    """:func:`decode_all` on several threads."""
    begins = begins_of(unary, ranges)
    if begins is None:
        return ENDED
    end = begins.pop()
    wrong = int(check_lengths(orders, unary, indices.size, end))
    if wrong:
        return wrong
    raw = unary[(end + 7) // 8 :]
    calls = []
    for begin, (first, last) in zip(begins, ranges, strict=True):
        # A gap has as many low bits as its length has zeros, and its order more.
        start = begin - first + int(sum_orders(orders, 0, first // BLOCK))
        calls.append((orders, unary, begin, raw, start, numel, first, last, indices))
    raw_ends = run(decode_blocks, calls)
    if min(raw_ends) < 0 or not chain(indices, ranges, numel):
        return TOO_LARGE
    return int(num_bytes_read(orders.size, end, raw, raw_ends[-1]))


def _blocks_of(ranges: Ranges) -> Ranges:
    """The blocks of ranges that are cut between blocks."""
    return [(start // BLOCK, num_blocks_of(stop)) for start, stop in ranges]


def num_blocks_of(count: int) -> int:
    """How many orders so many gaps have."""
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
    return torch.arange(total, dtype=torch.int64, device=widths.device) - (ends - widths).repeat_interleave(widths)
