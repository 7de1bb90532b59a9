"""Numbers of 32 bits rounded to bf16 at random, so that what rounding takes from many of them is 0 on average."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline
from thinwire.kernels.jit.intrinsics import empty
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.random.philox import check_stream, fill_words, random_words_torch

_PER_BLOCK = 8
"""Entries that a block of the generator serves: each takes half a word."""


def round_to_bf16(x: Tensor, key: int, out: Tensor) -> Tensor:
    """``out`` = ``x`` rounded to one of the two nearest numbers of bf16, such that ``E[out] = x``.

    The 16 bits that bf16 lacks are compared with 16 random ones: entry ``i`` takes half ``i % 2`` of word ``i // 2`` of
    the stream, the low half first. What would round beyond the largest number of bf16 is rounded towards zero: these
    are numbers above 3.3895e38, the only ones whose expectation is another. Infinities stay, and so does NaN.

    Args:
        x: contiguous f32 ``[d]``.
        key: in ``[0, 2**64)``.
        out: contiguous bf16 ``[d]`` on the device of ``x``.

    Returns:
        ``out``.

    Raises:
        ConfigError: a tensor that is not as described.

    Example:
        >>> x = torch.tensor([1.0, 1.0 + 2.0**-8])
        >>> [round_to_bf16(x, key, x.to(torch.bfloat16)).tolist() for key in (0, 1)]
        [[1.0, 1.0], [1.0, 1.0078125]]
    """
    check_stream(key, 0, x.numel())
    if x.dtype != torch.float32 or x.dim() != 1 or not x.is_contiguous():
        raise ConfigError(f"contiguous float32 [d] is rounded, got {x.dtype} of shape {tuple(x.shape)}")
    if (out.dtype, out.shape, out.device, out.is_contiguous()) != (torch.bfloat16, x.shape, x.device, True):
        raise ConfigError(
            f"what is rounded takes a contiguous bfloat16 of shape {tuple(x.shape)} on {x.device}, got {out.dtype} of "
            f"shape {tuple(out.shape)} on {out.device}"
        )
    if not x.is_cpu:
        return body_for(round_to_bf16_torch, x.device)(x, key, out)
    words = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    source, target = array_of(x).view(np.uint32), array_of(out.view(torch.int16)).view(np.uint16)
    run(_round, [(*words, source, target, start, stop) for start, stop in shares(x.numel(), _PER_BLOCK)])
    return out


def round_to_bf16_torch(x: Tensor, key: int, out: Tensor) -> Tensor:
    """:func:`round_to_bf16` in torch operations, on any device."""
    words = random_words_torch(key, 0, (x.numel() + 1) // 2, x.device)
    random = torch.stack((words & 0xFFFF, words >> 16), 1).view(-1)[: x.numel()]
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    magnitude = bits & 0x7FFFFFFF
    rounded = (bits + random * (magnitude < 0x7F7F0000)) >> 16 | (magnitude > 0x7F800000).long() << 6
    out.view(torch.int16).copy_(rounded - (rounded >> 15 << 16))
    return out


@kernel
def _round(k0: Any, k1: Any, x: Any, out: Any, start: int, stop: int) -> None:
    pairs, words = empty(512, np.uint64), empty(1024, np.uint32)
    halves = words.view(np.uint16)
    first = start
    while first < stop:
        fill_words(k0, k1, first // 8, pairs, words)
        last = min(first + 2048, stop)
        part, target = x[first:last], out[first:last]
        for j in range(part.size):
            target[j] = _rounded(part[j], halves[j])
        first = last


@helper
def _rounded(bits: Any, random: Any) -> Any:
    always_inline()
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    added = np.uint32(random) if magnitude < np.uint32(0x7F7F0000) else np.uint32(0)
    # The bits of a NaN that are left may be none.
    quiet = np.uint32(64) if magnitude > np.uint32(0x7F800000) else np.uint32(0)
    return np.uint16(np.uint32(np.uint32(bits + added) >> np.uint32(16)) | quiet)
