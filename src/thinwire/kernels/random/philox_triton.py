"""Random numbers by address on CUDA, for other kernels and by themselves.

A kernel takes the key as one argument, :func:`key_argument` of it, and names that argument in ``do_not_specialize``:
a key is another with every message, and none is worth a compilation of its own.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.jit.launches import BLOCK, launch
from thinwire.kernels.random import philox_simd

_FIRST_MULTIPLIER = tl.constexpr(philox_simd.MULTIPLIERS[0])
_SECOND_MULTIPLIER = tl.constexpr(philox_simd.MULTIPLIERS[1])
_FIRST_STEP = tl.constexpr(philox_simd.KEY_STEPS[0])
_SECOND_STEP = tl.constexpr(philox_simd.KEY_STEPS[1])
_ROUNDS = tl.constexpr(philox_simd.ROUNDS)


def key_argument(key: int) -> int:
    """The key as a kernel takes it: the same 64 bits with a sign.

    Example:
        >>> key_argument(2**64 - 1)
        -1
    """
    return key - (key >> 63 << 64)


def random_words(key: int, start: int, count: int, device: torch.device | str) -> Tensor:
    """See :func:`thinwire.kernels.random.philox.random_words_torch`; one pass over the result."""
    words = torch.empty(count, dtype=torch.int64, device=device)
    _fill(words, key, start)
    return words


def uniform(key: int, start: int, count: int, device: torch.device | str) -> Tensor:
    """See :func:`thinwire.kernels.random.philox.uniform_torch`; one pass over the result."""
    numbers = torch.empty(count, dtype=torch.float32, device=device)
    _fill(numbers, key, start)
    return numbers


def _fill(out: Tensor, key: int, start: int) -> None:
    # The first block of the generator may begin before the first number.
    programs = triton.cdiv(start % 4 + out.numel(), BLOCK) if out.numel() else 0
    constants = {"UNIFORM": out.is_floating_point(), "BLOCK": BLOCK}
    launch(_fill_numbers, programs, [out, out.numel(), key_argument(key), start], constants)


@triton.jit
def philox(blocks: tl.tensor, STAGE: tl.constexpr, key: tl.tensor) -> Any:
    """The four words (uint32) of each of ``blocks`` (int64); ``STAGE`` is the highest word of the counter."""
    # A sum, since the interpreter holds what is just above 2**31 in 32 bits whatever its type says.
    wide = tl.zeros([], tl.int64) + key
    k0, k1 = wide.to(tl.uint32), (wide >> 32).to(tl.uint32)
    c0, c1 = blocks.to(tl.uint32), (blocks >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0)
    c3 = tl.full(c0.shape, STAGE, tl.uint32)
    for _ in tl.static_range(_ROUNDS):
        # Of the module below: Triton before 3.6 does not name them above.
        low0 = tl.core.mul(_FIRST_MULTIPLIER, c0, sanitize_overflow=False)
        low1 = tl.core.mul(_SECOND_MULTIPLIER, c2, sanitize_overflow=False)
        c0, c2 = tl.umulhi(_SECOND_MULTIPLIER, c2) ^ c1 ^ k0, tl.umulhi(_FIRST_MULTIPLIER, c0) ^ c3 ^ k1
        c1, c3 = low1, low0
        k0 = tl.core.add(k0, _FIRST_STEP, sanitize_overflow=False)
        k1 = tl.core.add(k1, _SECOND_STEP, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def words_in_order(first: tl.tensor, STAGE: tl.constexpr, key: tl.tensor, COUNT: tl.constexpr) -> Any:
    """Words ``4 * first`` to ``4 * first + COUNT - 1`` of the stream: uint32 ``[COUNT]``."""
    w0, w1, w2, w3 = philox(first + tl.arange(0, COUNT // 4), STAGE, key)
    # The last word of a place comes from the outer of two interleavings.
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))


@triton.jit
def halves_in_order(first: tl.tensor, STAGE: tl.constexpr, key: tl.tensor, COUNT: tl.constexpr) -> Any:
    """The halves, the lower one first, of the words from ``4 * first`` on: uint32 ``[COUNT]`` below ``2**16``."""
    words = words_in_order(first, STAGE, key, COUNT // 2)
    return tl.interleave(words & 0xFFFF, words >> 16)


@triton.jit(do_not_specialize=["key", "start"])
def _fill_numbers(
    out: tl.tensor, count: tl.tensor, key: tl.tensor, start: tl.tensor, UNIFORM: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    words = words_in_order(start // 4 + begin // 4, 0, key, BLOCK)
    places = begin - start % 4 + tl.arange(0, BLOCK)
    inside = (places >= 0) & (places < count)
    if UNIFORM:
        tl.store(out + places, (words >> 8).to(tl.float32) * 2.0**-24, mask=inside)
    else:
        tl.store(out + places, words.to(tl.int64), mask=inside)
