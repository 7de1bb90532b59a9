"""Integers of a few bits each, packed without gaps."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty, load_word, load_word_padded, seen_as
from thinwire.kernels.jit.simd import LANES, LARGEST_WIDTH, unpack_groups
from thinwire.kernels.jit.threads import STREAMED_NS, run, shares

_PACKED_DTYPES = (torch.uint8, torch.int32, torch.int64)
"""Packed as they are, booleans like bytes. A kernel takes seconds to compile: rarer integers become int64."""


def num_packed_bytes(count: int, width: int) -> int:
    """Bytes that ``count`` codes of ``width`` bits take: ``ceil(count * width / 8)``.

    Example:
        >>> num_packed_bytes(3, 3), num_packed_bytes(0, 3)
        (2, 0)
    """
    return (count * width + 7) // 8


def pack(codes: Tensor, width: int) -> Tensor:
    """Write ``codes`` one after another, ``width`` bits each, the lowest bit first.

    Bit ``b`` of code ``i`` becomes bit ``p % 8`` of byte ``p // 8`` with ``p = i * width + b``.

    Args:
        codes: integers (or booleans) ``[n]`` in ``[0, 2**width)``; of any other value only the low bits
            count.
        width: bits a code, 1 to 32.

    Returns:
        uint8 ``[ceil(n * width / 8)]`` on the device of ``codes``, unused bits zero; empty for ``n = 0``.

    Raises:
        ConfigError: another width, or codes that are not a vector of integers.

    Example:
        >>> pack(torch.tensor([1, 2, 7]), 3).tolist()
        [209, 1]
    """
    _check_width(width, 32)
    if codes.dim() != 1 or codes.is_floating_point() or codes.is_complex():
        raise ConfigError(f"codes must be a vector of integers, got {codes.dtype} of shape {tuple(codes.shape)}")
    if not codes.is_cpu:
        return body_for(pack_torch, codes.device)(codes, width)
    numbers = array_of(codes)
    if codes.dtype == torch.bool:
        numbers = numbers.view(np.uint8)
    elif codes.dtype not in _PACKED_DTYPES:
        numbers = numbers.astype(np.int64)
    num_bytes = num_packed_bytes(codes.numel(), width)
    words = empty_array((num_bytes + 3) // 4, np.uint32)
    pack_block(numbers, width, words)
    return tensor_of(words.view(np.uint8)[:num_bytes])


def pack_torch(codes: Tensor, width: int) -> Tensor:
    """:func:`pack` in torch operations, on any device."""
    bits = (codes.to(torch.int64).unsqueeze(1) >> torch.arange(width, dtype=torch.int64, device=codes.device)) & 1
    padded = torch.nn.functional.pad(bits.reshape(-1), (0, -bits.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.int64, device=codes.device)).sum(1).to(torch.uint8)


def unpack(packed: Tensor, count: int, width: int) -> Tensor:
    """Read ``count`` codes that :func:`pack` wrote.

    Args:
        packed: uint8, at least ``num_packed_bytes(count, width)`` long; bytes after these are ignored.
        count: number of codes, 0 or more.
        width: bits a code, 1 to 31, so that every code fits into an int32.

    Returns:
        int32 ``[count]`` on the device of ``packed``.

    Raises:
        ConfigError: another width, or fewer bytes than the codes take.

    Example:
        >>> unpack(torch.tensor([209, 1], dtype=torch.uint8), 3, 3).tolist()
        [1, 2, 7]
    """
    check_packed(packed, count, width)
    if not packed.is_cpu:
        return body_for(unpack_torch, packed.device)(packed, count, width)
    codes = empty_array(count, np.int32)
    unpack_block(array_of(packed), width, codes)
    return tensor_of(codes)


def unpack_torch(packed: Tensor, count: int, width: int) -> Tensor:
    """:func:`unpack` in torch operations, on any device."""
    data = packed[: num_packed_bytes(count, width)].to(torch.int32)
    bits = (data.unsqueeze(1) >> torch.arange(8, device=packed.device, dtype=torch.int32)) & 1
    per_code = bits.reshape(-1)[: count * width].view(count, width)
    weights = torch.arange(width, device=packed.device, dtype=torch.int32)
    return (per_code << weights).sum(1, dtype=torch.int32)


def largest_code(packed: Tensor, count: int, width: int) -> int:
    """The largest of the codes that :func:`unpack` would return, in O(1) memory; -1 where there is none.

    Raises:
        ConfigError: as :func:`unpack`.

    Example:
        >>> largest_code(torch.tensor([209, 1], dtype=torch.uint8), 3, 3)
        7
    """
    check_packed(packed, count, width)
    if not packed.is_cpu:
        return body_for(largest_code_torch, packed.device)(packed, count, width)
    if count == 0:
        return -1
    data, ranges = array_of(packed), shares(count, 1024, STREAMED_NS)
    return int(max(run(_largest, [(data, width, *borders) for borders in ranges])))


def largest_code_torch(packed: Tensor, count: int, width: int) -> int:
    """:func:`largest_code` in torch operations, on any device."""
    return int(unpack_torch(packed, count, width).max()) if count else -1


def _check_width(width: int, largest: int) -> None:
    if not 1 <= width <= largest:
        raise ConfigError(f"a width of {width} bits was given; it must be 1 to {largest}")


def check_packed(packed: Tensor, count: int, width: int, largest: int = 31) -> None:
    """Raise ConfigError unless bytes hold so many codes, of at most ``largest`` bits each.

    Example:
        >>> check_packed(torch.tensor([209, 1], dtype=torch.uint8), 3, 3)
    """
    _check_width(width, largest)
    if packed.dtype != torch.uint8 or packed.dim() != 1:
        raise ConfigError(f"packed codes are a vector of uint8, got {packed.dtype} of shape {tuple(packed.shape)}")
    if count < 0 or packed.numel() < num_packed_bytes(count, width):
        raise ConfigError(f"{packed.numel()} bytes were given, {count} codes of {width} bits were asked for")


@helper
def _pack_words(codes: Any, width: int, words: Any) -> None:
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    pending = np.uint64(0)
    num_pending = 0
    written = 0
    for i in range(codes.size):
        pending |= (np.uint64(codes[i]) & mask) << np.uint64(num_pending)
        num_pending += width
        if num_pending >= 32:
            words[written] = np.uint32(pending)
            written += 1
            pending >>= np.uint64(32)
            num_pending -= 32
    if num_pending > 0:
        words[written] = np.uint32(pending)


@helper
def gather_flags(flags: Any, packed: Any) -> None:
    """Bytes of 0 or 1, eight for each byte of ``packed``, as its bits, the first lowest; for other kernels."""
    prefer_wide_vectors()
    always_inline()
    # Eight bytes are gathered into one by a multiplication that shifts each to its place in the top byte.
    eights = seen_as(flags, np.uint64)
    for j in range(packed.size):
        packed[j] = np.uint8((eights[j] * np.uint64(0x0102040810204080)) >> np.uint64(56))


@helper
def _pack_1(codes: Any, packed: Any) -> None:
    block = empty(1024, np.uint8)
    for start in range(0, codes.size, 1024):
        num = min(1024, codes.size - start)
        part = codes[start : start + num]
        for j in range(num):
            block[j] = np.uint8(part[j] & 1)
        block[num : (num + 7) // 8 * 8] = 0
        gather_flags(block, packed[start // 8 : start // 8 + (num + 7) // 8])


@helper
def _pack_2(codes: Any, packed: Any) -> None:
    for j in range(codes.size // 4):
        low = (codes[4 * j] & 3) | ((codes[4 * j + 1] & 3) << 2)
        packed[j] = np.uint8(low | ((codes[4 * j + 2] & 3) << 4) | ((codes[4 * j + 3] & 3) << 6))
    if codes.size % 4:
        last = np.uint8(0)
        for t in range(codes.size % 4):
            last |= np.uint8((codes[codes.size // 4 * 4 + t] & 3) << (2 * t))
        packed[codes.size // 4] = last


@helper
def _pack_4(codes: Any, packed: Any) -> None:
    for j in range(codes.size // 2):
        packed[j] = np.uint8((codes[2 * j] & 15) | ((codes[2 * j + 1] & 15) << 4))
    if codes.size % 2:
        packed[codes.size // 2] = np.uint8(codes[codes.size - 1] & 15)


@helper
def _pack_8(codes: Any, packed: Any) -> None:
    for j in range(codes.size):
        packed[j] = np.uint8(codes[j])


@helper
def _unpack_any(packed: Any, width: int, codes: Any) -> None:
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    # Eight codes are `width` whole bytes; their words must lie inside.
    safe = max(0, min(codes.size // 8, (packed.size - 8) // width)) * 8
    for i in range(safe):
        bit = i * width
        codes[i] = np.int32((load_word(packed, bit >> 3) >> np.uint64(bit & 7)) & mask)
    for i in range(safe, codes.size):
        bit = i * width
        codes[i] = np.int32((load_word_padded(packed, bit >> 3) >> np.uint64(bit & 7)) & mask)


@kernel
def unpack_block(packed: Any, width: int, codes: Any) -> None:
    """Fill int32 ``codes`` from the beginning of uint8 ``packed``, which must hold them; for other kernels."""
    groups = codes.size // LANES if width <= LARGEST_WIDTH else 0
    unpack_groups(packed, 0, width, codes, 0, groups)
    done = groups * LANES
    _unpack_any(packed[done // 8 * width :], width, codes[done:])


@kernel
def pack_block(codes: Any, width: int, words: Any) -> None:
    """Write integers ``codes`` to the beginning of uint32 ``words``; for other kernels.

    Bytes of the last word after those that the codes take may keep what was there.
    """
    packed = seen_as(words, np.uint8)[: (codes.size * width + 7) // 8]
    if width == 1:
        _pack_1(codes, packed)
    elif width == 2:
        _pack_2(codes, packed)
    elif width == 4:
        _pack_4(codes, packed)
    elif width == 8:
        _pack_8(codes, packed)
    else:
        _pack_words(codes, width, words)


@kernel
def _largest(packed: Any, width: int, start: int, stop: int) -> Any:
    """The largest of codes ``start``, a multiple of 1024, to ``stop``."""
    if width <= 2 or width == 4 or width == 8:
        return _largest_of_bytes(packed, width, start, stop)
    block = empty(1024, np.int32)
    largest = np.int64(-1)
    for first in range(start, stop, 1024):
        num = min(1024, stop - first)
        # 1024 codes of any width are whole bytes.
        unpack_block(packed[first // 8 * width :], width, block[:num])
        most = np.int32(-1)
        for j in range(num):
            most = block[j] if block[j] > most else most
        largest = max(largest, np.int64(most))
    return largest


@helper
def _largest_of_bytes(packed: Any, width: int, start: int, stop: int) -> Any:
    """The same where no code lies in two bytes: the largest at every place of a byte."""
    first = start * width // 8
    last = stop * width // 8
    largest = np.uint8(0)
    # Every place looks at all bytes: of so many the nearest cache has them each time but the first.
    for begin in range(first, last, 1 << 14):
        whole = packed[begin : min(begin + (1 << 14), last)]
        for place in range(0, 8, width):
            # Compared in place; a shift of every byte would cost more than the rest.
            mask = np.uint8(((1 << width) - 1) << place)
            most = np.uint8(0)
            for j in range(whole.size):
                code = np.uint8(whole[j] & mask)
                most = code if code > most else most
            largest = max(largest, np.uint8(most >> place))
    rest = stop * width % 8
    if rest > 0:
        byte = packed[last]
        for place in range(0, rest, width):
            largest = max(largest, np.uint8((byte >> place) & ((1 << width) - 1)))
    return np.int64(largest)
