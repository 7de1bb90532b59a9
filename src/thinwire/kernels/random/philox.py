"""Philox4x32-7, a counter-based generator: random numbers by address, without a state.

The numbers of a key form one long stream. Word ``i`` of it is word ``i % 4`` of the block whose 128-bit
counter is ``i // 4``; the 64-bit key is :meth:`thinwire.random.Key.bits64`, its low half first. Reference:
Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Seven rounds are the fewest
that pass all of BigCrush there; ten is that paper's default.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline
from thinwire.kernels.jit.intrinsics import copy_to, empty
from thinwire.kernels.random.philox_simd import KEY_STEPS, MULTIPLIERS, ROUNDS, philox_pairs

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
        ['5f6fb709', '0d893f64', '4f121f81', '4f730a48']
    """
    check_stream(key, start, count)
    if torch.device(device).type != "cpu":
        return body_for(random_words_torch, torch.device(device))(key, start, count, device)
    words = np.empty(count, np.int64)
    _random_words(np.uint32(key & _LOW), np.uint32(key >> 32), start, words)
    return tensor_of(words)


def random_words_torch(key: int, start: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """:func:`random_words` in torch operations, on any device."""
    first, end = start // 4, (start + count + 3) // 4
    blocks = torch.arange(first, max(first, end), dtype=torch.int64, device=device)
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
        return body_for(uniform_torch, torch.device(device))(key, start, count, device)
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
    for _ in range(ROUNDS):
        # The product of two 32-bit words overflows int64, but wraps: its low 64 bits are right.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW, ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + KEY_STEPS[0]) & _LOW, (k1 + KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def check_stream(key: int, start: int, count: int) -> None:
    """Raise ConfigError unless the numbers lie in the stream."""
    if not 0 <= key < 2**64:
        raise ConfigError(f"a generator's key is in [0, 2**64), got {key}")
    if start < 0 or count < 0 or start + count > 2**62:
        raise ConfigError(f"random numbers {start} to {start} + {count} were asked for; a stream has 2**62")


@helper
def fill_pairs(k0: Any, k1: Any, first: int, stage: int, pairs: Any) -> None:
    """The words of blocks ``first, first + 1, ...`` to uint64 ``pairs``, two for each block.

    Of block ``first + j`` ``pairs[j]`` has words 1 and 0 and ``pairs[n + j]`` words 3 and 2, the former in the low
    half, where ``n = pairs.size / 2``: the order that costs the fewest instructions. ``stage`` is the highest word of
    the counter, 0 for the stream of :func:`random_words`.
    """
    always_inline()
    num_blocks = pairs.size // 2
    philox_pairs(k0, k1, first, stage, pairs, 0, num_blocks, num_blocks)


@helper
def fill_words(k0: Any, k1: Any, first: int, pairs: Any, words: Any) -> None:
    """The words of blocks ``first, first + 1, ...`` in order to uint32 ``words``; ``pairs`` is scratch of its size."""
    fill_pairs(k0, k1, first, 0, pairs)
    num_blocks = pairs.size // 2
    for j in range(num_blocks):
        words[4 * j] = np.uint32(pairs[j] >> np.uint64(32))
        words[4 * j + 1] = np.uint32(pairs[j])
        words[4 * j + 2] = np.uint32(pairs[num_blocks + j] >> np.uint64(32))
        words[4 * j + 3] = np.uint32(pairs[num_blocks + j])


@kernel
def _random_words(k0: Any, k1: Any, start: int, out: Any) -> None:
    pairs = empty(512, np.uint64)
    words = empty(1024, np.uint32)
    done = 0
    while done < out.size:
        skip = (start + done) & 3
        fill_words(k0, k1, (start + done) >> 2, pairs, words)
        num = min(1024 - skip, out.size - done)
        copy_to(out[done : done + num], words[skip : skip + num])
        done += num


@kernel
def _uniform(k0: Any, k1: Any, start: int, out: Any) -> None:
    pairs = empty(512, np.uint64)
    words = empty(1024, np.uint32)
    done = 0
    while done < out.size:
        skip = (start + done) & 3
        fill_words(k0, k1, (start + done) >> 2, pairs, words)
        num = min(1024 - skip, out.size - done)
        part = out[done : done + num]
        used = words[skip : skip + num]
        for j in range(num):
            part[j] = np.float32(np.int32(used[j] >> np.uint32(8))) * np.float32(2.0**-24)
        done += num
