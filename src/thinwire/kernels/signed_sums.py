"""Packed signs back onto a sum."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bits import unpack_torch
from thinwire.kernels.numba_tools import array_of, kernel
from thinwire.kernels.offsets import check_sum, offsets_array


def add_signs(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """``out_i += factor * (-scales[s] if bit i is set else scales[s])`` for entry ``i`` of segment ``s``.

    The factor is rounded to f32 first, the product to f32 next, then the sum.

    Args:
        bits: uint8 ``[ceil(d / 8)]`` as :func:`thinwire.kernels.signs.sign_bits` makes them, or longer.
        scales: f32 ``[s]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        out: contiguous f32 ``[d]`` on the device of ``bits``; changed in place.
        factor: any number.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> out = torch.ones(3)
        >>> add_signs(torch.tensor([0b101], dtype=torch.uint8), torch.tensor([0.5]), torch.tensor([0, 3]), out)
        >>> out.tolist()
        [0.5, 1.5, 0.5]
    """
    check_sum(scales, offsets, out)
    if bits.dtype != torch.uint8 or bits.dim() != 1 or 8 * bits.numel() < out.numel():
        raise ConfigError(f"{out.numel()} signs take {(out.numel() + 7) // 8} bytes of uint8, got {tuple(bits.shape)}")
    if not out.is_cpu:
        add_signs_torch(bits, scales, offsets, out, factor)
        return
    _add_signs(
        array_of(bits),
        array_of(scales),
        offsets_array(offsets, out.numel()),
        array_of(out),
        np.float32(factor),
        _pairs(),
    )


def add_signs_torch(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """:func:`add_signs` in torch operations, on any device."""
    sizes = offsets.to(out.device).diff()
    values = (scales * factor).repeat_interleave(sizes, output_size=out.numel())
    out.add_(torch.where(unpack_torch(bits, out.numel(), 1) != 0, -values, values))


@functools.cache
def _pairs() -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """For each byte its eight signs, 1 or -1, as four words of two f32 each: ``[1024]``."""
    negative = np.unpackbits(np.arange(256, dtype=np.uint8), bitorder="little")
    return np.where(negative, np.float32(-1), np.float32(1)).view(np.uint64)


@kernel
def _add_signs(bits: Any, scales: Any, offsets: Any, out: Any, factor: Any, pairs: Any) -> None:
    block = np.empty(1024, np.float32)
    words = block.view(np.uint64)
    for segment in range(scales.size):
        value = scales[segment] * factor
        begin = offsets[segment]
        end = offsets[segment + 1]
        # Segments may begin and end inside a byte.
        first = min(end, (begin + 7) // 8 * 8)
        last = max(first, end // 8 * 8)
        for i in range(begin, first):
            out[i] += -value if (bits[i >> 3] >> (i & 7)) & 1 else value
        for start in range(first, last, 1024):
            part = out[start : min(start + 1024, last)]
            codes = bits[start >> 3 : (start + part.size) >> 3]
            for j in range(codes.size):
                row = 4 * np.int64(codes[j])
                words[4 * j] = pairs[row]
                words[4 * j + 1] = pairs[row + 1]
                words[4 * j + 2] = pairs[row + 2]
                words[4 * j + 3] = pairs[row + 3]
            for j in range(part.size):
                # Times 1 or -1 is exact: this is the rounded product and its negation.
                part[j] += value * block[j]
        for i in range(last, end):
            out[i] += -value if (bits[i >> 3] >> (i & 7)) & 1 else value
