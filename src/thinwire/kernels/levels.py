"""Packed levels back onto a sum."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bits import num_packed_bytes, unpack_block, unpack_torch
from thinwire.kernels.numba_tools import array_of, kernel
from thinwire.kernels.offsets import check_sum, offsets_array


def add_levels(
    codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """``out_i += factor * (units[s] * (code_i - num_levels))`` for entry ``i`` of segment ``s``.

    Everything is f32: the level is rounded to f32 (exact up to ``2**24``), then the product with the unit, the
    product with the factor (itself rounded first), then the sum.

    Args:
        codes: uint8, at least ``num_packed_bytes(d, width)`` long, as :func:`thinwire.kernels.bits.pack`
            makes them.
        width: bits a code, 1 to 31.
        num_levels: the code of level 0, 0 to ``2**30 - 1``.
        units: f32 ``[s]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        out: contiguous f32 ``[d]`` on the device of ``codes``; changed in place.
        factor: any number.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> out = torch.ones(3)
        >>> codes = torch.tensor([0b100100], dtype=torch.uint8)  # levels -1, 0, 1
        >>> add_levels(codes, 2, 1, torch.tensor([3.0]), torch.tensor([0, 3]), out)
        >>> out.tolist()
        [-2.0, 1.0, 4.0]
    """
    check_sum(units, offsets, out)
    if not 1 <= width <= 31 or not 0 <= num_levels < 2**30:
        raise ConfigError(f"codes of {width} bits and {num_levels} levels were given; at most 31 and 2**30 - 1 can be")
    if codes.dtype != torch.uint8 or codes.dim() != 1 or codes.numel() < num_packed_bytes(out.numel(), width):
        raise ConfigError(f"{out.numel()} codes of {width} bits were asked for, got shape {tuple(codes.shape)}")
    if not out.is_cpu:
        add_levels_torch(codes, width, num_levels, units, offsets, out, factor)
        return
    _add_levels(
        array_of(codes),
        width,
        np.int32(num_levels),
        array_of(units),
        offsets_array(offsets, out.numel()),
        array_of(out),
        np.float32(factor),
    )


def add_levels_torch(
    codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """:func:`add_levels` in torch operations, on any device."""
    unit = units.repeat_interleave(offsets.to(out.device).diff(), output_size=out.numel())
    levels = (unpack_torch(codes, out.numel(), width) - num_levels).to(torch.float32)
    out.add_(unit * levels * factor)


@kernel
def _add_levels(codes: Any, width: int, num_levels: Any, units: Any, offsets: Any, out: Any, factor: Any) -> None:
    block = np.empty(1024, np.int32)
    segment = 0
    for start in range(0, out.size, 1024):
        end = min(start + 1024, out.size)
        # 1024 codes of any width are whole bytes.
        unpack_block(codes[start // 8 * width :], width, block[: end - start])
        position = start
        while position < end:
            while offsets[segment + 1] <= position:
                segment += 1
            stop = min(end, offsets[segment + 1])
            unit = units[segment]
            part = out[position:stop]
            levels = block[position - start : stop - start]
            for j in range(part.size):
                part[j] += unit * np.float32(levels[j] - num_levels) * factor
            position = stop
