"""Philox4x32-10, a counter-based generator: random numbers by address, without a state.

The numbers of a key form one long stream. Word ``i`` of it is word ``i % 4`` of the block whose 128-bit
counter is ``i // 4``; the 64-bit key is :meth:`thinwire.random.Key.bits64`, its low half first. Reference:
Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.numba_tools import kernel, tensor_of

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def random_words(key: int, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Words ``start`` to ``start + count - 1`` of the stream: int64 ``[count]`` that holds 32-bit numbers.

    Args:
        key: in ``[0, 2**64)``.
        start: 0 or more; ``start + count`` is at most ``2**62``.
        count: 0 or more.
        device: where the numbers are made; the bits do not depend on it.

    Raises:
        ConfigError: an argument out of its range.

    Example:
        >>> [f"{word:08x}" for word in random_words(0, 0, 4).tolist()]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    check_stream(key, start, count)
    if torch.device(device).type != "cpu":
        return random_words_torch(key, start, count, device)
    words = np.empty(count, np.int64)
    _random_words(np.uint32(key & _LOW), np.uint32(key >> 32), start, words)
    return tensor_of(words)


def random_words_torch(key: int, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """:func:`random_words` in torch operations, on any device."""
    first, end = start // 4, (start + count + 3) // 4
    blocks = torch.arange(first, max(first, end), device=device)
    zeros = torch.zeros_like(blocks)
    words = philox_blocks_torch((blocks & _LOW, blocks >> 32, zeros, zeros), key)
    return torch.stack(words, 1).view(-1)[start - 4 * first :][:count]


def uniform(key: int, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Uniform numbers ``(word >> 8) * 2**-24`` in ``[0, 1)``: f32 ``[count]``, every one exact.

    Raises:
        ConfigError: as :func:`random_words`.

    Example:
        >>> torch.equal(uniform(7, 0, 10)[3:], uniform(7, 3, 7))
        True
    """
    check_stream(key, start, count)
    if torch.device(device).type != "cpu":
        return uniform_torch(key, start, count, device)
    numbers = np.empty(count, np.float32)
    _uniform(np.uint32(key & _LOW), np.uint32(key >> 32), start, numbers)
    return tensor_of(numbers)


def uniform_torch(key: int, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """:func:`uniform` in torch operations, on any device."""
    return (random_words_torch(key, start, count, device) >> 8).to(torch.float32) * 2.0**-24


def philox_blocks_torch(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The generator itself: four counter words a block to four random words a block, as int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key & _LOW, key >> 32
    for _ in range(10):
        # The product of two 32-bit words overflows int64, but wraps: its low 64 bits are right.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW, ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def check_stream(key: int, start: int, count: int) -> None:
    """Raise ConfigError unless the numbers lie in the stream."""
    if not 0 <= key < 2**64:
        raise ConfigError(f"a generator's key is in [0, 2**64), got {key}")
    if start < 0 or count < 0 or start + count > 2**62:
        raise ConfigError(f"random numbers {start} to {start} + {count} were asked for; a stream has 2**62")


@kernel
def fill_blocks(k0: Any, k1: Any, first: int, lanes: Any) -> None:
    """Write the words of blocks ``first, first + 1, ...`` to the rows of uint32 ``lanes`` ``[4, blocks]``."""
    u32, u64 = np.uint32, np.uint64
    lane0, lane1, lane2, lane3 = lanes[0], lanes[1], lanes[2], lanes[3]
    for j in range(lanes.shape[1]):
        block = u64(first + j)
        c0 = u32(block)
        c1 = u32(block >> u64(32))
        c2 = u32(0)
        c3 = u32(0)
        a = k0
        b = k1
        for _ in range(10):
            p0 = u64(c0) * u64(0xD2511F53)
            p1 = u64(c2) * u64(0xCD9E8D57)
            c0 = u32(u32(p1 >> u64(32)) ^ c1 ^ a)
            c2 = u32(u32(p0 >> u64(32)) ^ c3 ^ b)
            c1 = u32(p1)
            c3 = u32(p0)
            a = u32(a + u32(0x9E3779B9))
            b = u32(b + u32(0xBB67AE85))
        lane0[j] = c0
        lane1[j] = c1
        lane2[j] = c2
        lane3[j] = c3


@kernel
def fill_words(k0: Any, k1: Any, first: int, lanes: Any, words: Any) -> None:
    """Write the words of blocks ``first, first + 1, ...`` in order to uint32 ``words``, four a column of ``lanes``.

    ``lanes`` is scratch: words of one kind side by side are what the processor's vector unit wants.
    """
    fill_blocks(k0, k1, first, lanes)
    lane0, lane1, lane2, lane3 = lanes[0], lanes[1], lanes[2], lanes[3]
    for j in range(lanes.shape[1]):
        words[4 * j] = lane0[j]
        words[4 * j + 1] = lane1[j]
        words[4 * j + 2] = lane2[j]
        words[4 * j + 3] = lane3[j]


@kernel
def _random_words(k0: Any, k1: Any, start: int, out: Any) -> None:
    lanes = np.empty((4, 256), np.uint32)
    words = np.empty(1024, np.uint32)
    done = 0
    while done < out.size:
        skip = (start + done) & 3
        fill_words(k0, k1, (start + done) >> 2, lanes, words)
        num = min(1024 - skip, out.size - done)
        out[done : done + num] = words[skip : skip + num]
        done += num


@kernel
def _uniform(k0: Any, k1: Any, start: int, out: Any) -> None:
    lanes = np.empty((4, 256), np.uint32)
    words = np.empty(1024, np.uint32)
    done = 0
    while done < out.size:
        skip = (start + done) & 3
        fill_words(k0, k1, (start + done) >> 2, lanes, words)
        num = min(1024 - skip, out.size - done)
        part = out[done : done + num]
        used = words[skip : skip + num]
        for j in range(num):
            part[j] = np.float32(np.int32(used[j] >> np.uint32(8))) * np.float32(2.0**-24)
        done += num
