"""Tensors of 16 bits to a vector of float32 and back, in the pass that moves them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.kernels.jit.compiling import carray, helper, kernel
from thinwire.kernels.jit.intrinsics import pointer, seen_as

WRITTEN = frozenset({torch.float32, torch.bfloat16})
"""What tensors are written of; torch has the processor's own instruction for f16, and is faster."""

FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""What tensors are read of, and the numbers by which kernels know it."""

_BLOCK = 4096
"""Entries that the cache holds between two loops over them."""


def formats_of(tensors: Sequence[Tensor]) -> Any:
    """The format of each tensor, by its number: int64 ``[n]``.

    Example:
        >>> formats_of([torch.ones(1), torch.ones(2).half()]).tolist()
        [0, 2]
    """
    return np.array([FORMATS[tensor.dtype] for tensor in tensors], np.int64)


@kernel
def flatten_any_format(
    pieces: Any, formats: Any, minuend: Any, out: Any, subtracts: bool, start: int, stop: int
) -> Any:
    """Entries ``start`` to ``stop - 1`` of tensors of several formats, or what they are short of; all finite?"""
    most = np.uint32(0)
    begin = 0
    addresses, ends = pieces[: pieces.size // 2], pieces[pieces.size // 2 :]
    for number in range(addresses.size):
        end, place, kind = ends[number], pointer(addresses[number]), formats[number]
        for first in range(max(start, begin), min(stop, end), _BLOCK):
            last = min(first + _BLOCK, stop, end)
            target = out[first:last]
            if kind == 0:
                target[:] = carray(place, (end - begin,), np.float32)[first - begin : last - begin]
            elif kind == 1:
                _widen_bf16(carray(place, (end - begin,), np.uint16)[first - begin : last - begin], target)
            else:
                _widen_f16(carray(place, (end - begin,), np.uint16)[first - begin : last - begin], target)
            bits = seen_as(target, np.uint32)
            for j in range(target.size):
                most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
            if subtracts:
                base = minuend[first:last]
                for j in range(target.size):
                    target[j] = base[j] - target[j]
        begin = end
    return most < np.uint32(0x7F800000)


@kernel
def unflatten_any_format(pieces: Any, formats: Any, x: Any, start: int, stop: int) -> None:
    """Entries ``start`` to ``stop - 1`` of a vector onto tensors of f32 and of bf16, rounded to nearest."""
    addresses, ends = pieces[: pieces.size // 2], pieces[pieces.size // 2 :]
    begin = 0
    for number in range(addresses.size):
        end, place, kind = ends[number], pointer(addresses[number]), formats[number]
        first, last = max(start, begin), min(stop, end)
        if first < last:
            source = x[first:last]
            if kind == 0:
                carray(place, (end - begin,), np.float32)[first - begin : last - begin] = source
            else:
                _narrow_bf16(source, carray(place, (end - begin,), np.uint16)[first - begin : last - begin])
        begin = end


@helper
def _widen_bf16(halves: Any, out: Any) -> None:
    bits = seen_as(out, np.uint32)
    for j in range(halves.size):
        bits[j] = np.uint32(halves[j]) << np.uint32(16)


@helper
def _narrow_bf16(x: Any, halves: Any) -> None:
    bits = seen_as(x, np.uint32)
    for j in range(halves.size):
        word = bits[j]
        rounded = np.uint32(word + np.uint32(0x7FFF) + (word >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
        # Rounding would carry a NaN's bits into those of another number.
        is_nan = (word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        halves[j] = np.uint16(word >> np.uint32(16) | np.uint32(64)) if is_nan else np.uint16(rounded)


@helper
def _widen_f16(halves: Any, out: Any) -> None:
    """The exponent's bits are moved to where float32 has them, and a product sets the rest right, denormals too."""
    bits = seen_as(out, np.uint32)
    for j in range(halves.size):
        bits[j] = (np.uint32(halves[j]) & np.uint32(0x7FFF)) << np.uint32(13)
    for j in range(halves.size):
        out[j] *= np.float32(2.0**112)
    for j in range(halves.size):
        half = np.uint32(halves[j])
        # Infinity and NaN have the largest exponent in either format.
        is_special = (half & np.uint32(0x7C00)) == np.uint32(0x7C00)
        special = np.uint32(0x7F800000) if is_special else np.uint32(0)
        bits[j] |= (half & np.uint32(0x8000)) << np.uint32(16) | special
