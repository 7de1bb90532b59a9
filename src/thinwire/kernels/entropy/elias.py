"""Packed levels in Elias omega, as QSGD writes them.

A code ``c`` stands for the level ``c - L``, from ``-L`` to ``L``. Level ``l`` is written as omega of ``|l| + 1``, and
for ``l != 0`` a sign bit, 1 for the negative. Omega of ``k`` is a string of bits: begin with ``0``; while ``k > 1``
put the binary digits of ``k`` before it and let ``k`` be their number less one. Strings are written one after the
other, the first bit of each first, to the lowest bits of a byte first. A zero takes 1 bit, 1 and 2 take 4 bits, 3 to
6 take 7, 7 to 14 take 8.

This is the dense one of QSGD's two codes. The sparse one lists the gaps between levels that are not 0; here that is
a sparse vector of levels, whose indices have codes of their own.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.errors import WireError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_block, pack_torch, unpack_block, unpack_torch
from thinwire.kernels.jit.compiling import helper, intrinsic, kernel, types
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import count_leading_zeros, empty, load_word_padded, zeros

MAX_NUM_BITS = 43
"""Most bits of one level: 2, 3, 5 and 31 digits, the 0 that ends them, and a sign."""

_ENDED, _TOO_LARGE, _PADDING = -1, -2, -3
_REASONS = {
    _ENDED: "the levels go on past the end of the data",
    _TOO_LARGE: "a level is larger than the number of levels",
    _PADDING: "the bits after the last level are not zero",
}


def elias_num_bytes(packed: Tensor, count: int, num_levels: int) -> int:
    """Exact length of :func:`elias_encode` without encoding.

    Example:
        >>> elias_num_bytes(torch.tensor([0b10100100], dtype=torch.uint8), 4, 1)
        2
    """
    if not packed.is_cpu:
        return int((_strings_torch(packed, count, num_levels)[1].sum() + 7) // 8)
    return (int(_num_bits_of(array_of(packed), count, _width(num_levels), num_levels)) + 7) // 8


def elias_encode(packed: Tensor, count: int, num_levels: int) -> Tensor:
    """Every level in Elias omega, then its sign.

    Args:
        packed: uint8, ``count`` codes from 0 to ``2 * num_levels`` in as many bits as the largest needs, as
            :func:`thinwire.kernels.bitpack.bits.pack` writes them.
        count: number of codes.
        num_levels: the largest level, 1 to ``2**30 - 1``.

    Returns:
        uint8 of length :func:`elias_num_bytes` on the device of ``packed``; unused bits of the last byte are 0.

    Example:
        Levels -1, 0, 1, 1 are 1001, 0, 1000, 1000.

        >>> elias_encode(torch.tensor([0b10100100], dtype=torch.uint8), 4, 1).tolist()
        [41, 2]
    """
    if not packed.is_cpu:
        return body_for(elias_encode_torch, packed.device)(packed, count, num_levels)
    data = np.empty(elias_num_bytes(packed, count, num_levels), np.uint8)
    _encode(array_of(packed), count, _width(num_levels), num_levels, data)
    return tensor_of(data)


def elias_encode_torch(packed: Tensor, count: int, num_levels: int) -> Tensor:
    """:func:`elias_encode` in torch operations, on any device."""
    strings, lengths = _strings_torch(packed, count, num_levels)
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if count else 0
    places = torch.arange(total, dtype=torch.int64, device=packed.device) - (ends - lengths).repeat_interleave(lengths)
    return pack_torch(strings.repeat_interleave(lengths) >> places & 1, 1)


def elias_decode_prefix(data: Tensor, count: int, num_levels: int) -> tuple[Tensor, int]:
    """The packed codes whose levels are at the beginning of ``data``, and how many bytes these take.

    Args:
        data: uint8.
        count: number of levels; each takes a bit at least, which is checked before anything is allocated.
        num_levels: the largest level that is allowed, 1 to ``2**30 - 1``.

    Raises:
        WireError: data that ends early, a level above ``num_levels``, or padding bits that are not zero.

    Example:
        >>> packed, num_bytes = elias_decode_prefix(torch.tensor([41, 2, 77], dtype=torch.uint8), 4, 1)
        >>> packed.tolist(), num_bytes
        ([164], 2)
    """
    if not 0 <= count <= 8 * data.numel():
        raise WireError(f"{data.numel()} bytes cannot hold {count} levels")
    host = array_of(data)
    width = _width(num_levels)
    words = np.empty((num_packed_bytes(count, width) + 3) // 4, np.uint32)
    result = int(_decode(host, count, width, num_levels, words))
    if result < 0:
        raise WireError(_REASONS[result])
    return to_device(tensor_of(words.view(np.uint8)[: num_packed_bytes(count, width)]), data.device), result


def _width(num_levels: int) -> int:
    return (2 * num_levels).bit_length()


def _strings_torch(packed: Tensor, count: int, num_levels: int) -> tuple[Tensor, Tensor]:
    """The bits of every level, the first the lowest, and their number."""
    levels = unpack_torch(packed, count, _width(num_levels)).to(torch.int64) - num_levels
    number = levels.abs() + 1
    strings, lengths = torch.zeros_like(levels), torch.ones_like(levels)
    for most in (31, 5, 3, 2):
        # Exact: below 2**53 a float64 holds every integer.
        digits = torch.where(number > 1, torch.frexp(number.to(torch.float64)).exponent.to(torch.int64), 0)
        for place in range(most):
            # The lowest digit of the number comes last, so it is put before what is there first.
            strings = torch.where(place < digits, strings << 1 | number >> place & 1, strings)
        lengths = lengths + digits
        number = (digits - 1).clamp(min=1)
    signs = (levels < 0).to(torch.int64) << lengths
    return strings | signs, lengths + (levels != 0).to(torch.int64)


def _reverse_bits(typing_context: Any, word: Any) -> Any:
    """The 64 bits of a uint64 in reverse order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitreverse(arguments[0])

    return types.uint64(types.uint64), generate


reverse_bits: Any = intrinsic(_reverse_bits)


@helper
def _string(level: int) -> Any:
    """The bits of a level, the first the lowest, and their number."""
    number = np.uint64(abs(level) + 1)
    bits = np.uint64(level < 0)
    length = np.uint64(1 + (level != 0))
    # The 0 that ends omega lies below the sign.
    bits <<= np.uint64(1)
    while number > np.uint64(1):
        digits = np.uint64(64) - np.uint64(count_leading_zeros(number))
        bits = bits << digits | reverse_bits(number) >> (np.uint64(64) - digits)
        length += digits
        number = digits - np.uint64(1)
    return bits, np.int64(length)


@helper
def _small_lengths() -> Any:
    lengths = empty(256, np.int64)
    for level in range(256):
        lengths[level] = _string(level)[1]
    return lengths


@kernel
def _num_bits_of(packed: Any, count: int, width: int, num_levels: int) -> Any:
    codes = empty(2048, np.int32)
    lengths = _small_lengths()
    total = np.int64(0)
    for begin in range(0, count, 2048):
        num = min(2048, count - begin)
        unpack_block(packed[begin // 8 * width :], width, codes[:num])
        for j in range(num):
            level = abs(codes[j] - num_levels)
            total += lengths[level] if level < 256 else _string(level)[1]
    return total


@kernel
def _encode(packed: Any, count: int, width: int, num_levels: int, data: Any) -> None:
    codes = empty(2048, np.int32)
    largest = min(num_levels, 255)
    strings = empty(2 * largest + 1, np.uint64)
    lengths = empty(2 * largest + 1, np.int64)
    for small in range(-largest, largest + 1):
        strings[small + largest], lengths[small + largest] = _string(small)
    pending = np.uint64(0)
    num_pending = np.int64(0)
    written = 0
    for begin in range(0, count, 2048):
        num = min(2048, count - begin)
        unpack_block(packed[begin // 8 * width :], width, codes[:num])
        for j in range(num):
            level = codes[j] - num_levels
            if abs(level) <= largest:
                bits, length = strings[level + largest], lengths[level + largest]
            else:
                bits, length = _string(level)
            # At most 15 + 43 bits are pending.
            pending |= bits << np.uint64(num_pending)
            num_pending += length
            while num_pending >= 16:
                data[written] = np.uint8(pending)
                data[written + 1] = np.uint8(pending >> np.uint64(8))
                written += 2
                pending >>= np.uint64(16)
                num_pending -= 16
    while num_pending > 0:
        data[written] = np.uint8(pending)
        written += 1
        pending >>= np.uint64(8)
        num_pending -= 8


@kernel
def _decode(data: Any, count: int, width: int, num_levels: int, packed: Any) -> Any:
    codes = empty(2048, np.int32)
    # For the next eight bits, the code and how many of them it takes, 0 if more: levels to 14 take eight.
    short_codes = zeros(256, np.int32)
    short_lengths = zeros(256, np.int64)
    for small in range(-min(14, num_levels), min(14, num_levels) + 1):
        bits, length = _string(small)
        for rest in range(1 << (8 - length)):
            short_codes[np.int64(bits) | rest << length] = small + num_levels
            short_lengths[np.int64(bits) | rest << length] = length
    position = np.int64(0)
    end = np.int64(8) * data.size
    for begin in range(0, count, 2048):
        num = min(2048, count - begin)
        for j in range(num):
            window = load_word_padded(data, position >> 3) >> np.uint64(position & 7)
            length = short_lengths[np.int64(window & np.uint64(255))]
            if length:
                codes[j] = short_codes[np.int64(window & np.uint64(255))]
            else:
                number = np.uint64(1)
                length = np.int64(1)
                while window & np.uint64(1):
                    # The next group has number + 1 digits.
                    if number > np.uint64(30):
                        return _TOO_LARGE
                    digits = number + np.uint64(1)
                    number = reverse_bits(window) >> (np.uint64(64) - digits)
                    window >>= digits
                    length += np.int64(digits)
                level = np.int64(number) - 1
                if level > num_levels:
                    return _TOO_LARGE
                if level:
                    length += 1
                    if window & np.uint64(2):
                        level = -level
                codes[j] = level + num_levels
            position += length
            if position > end:
                return _ENDED
        pack_block(codes[:num], width, packed[begin // 32 * width :])
    if position & 7 and data[position >> 3] >> (position & 7):
        return _PADDING
    return (position + 7) >> 3
