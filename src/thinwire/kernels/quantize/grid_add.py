"""Packed points of a grid back onto a sum; :mod:`thinwire.kernels.quantize.grid` makes them."""

from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.kernels.bitpack.bits import check_packed, unpack_torch
from thinwire.kernels.flat.checks import check_sum, offsets_array
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.quantize.packed_add import add_packed


def add_points(
    codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """``out_i += factor * (lows[s] + steps[s] * code_i)`` for entry ``i`` of segment ``s``, each step rounded to f32.

    Args:
        codes: uint8, at least ``num_packed_bytes(d, width)`` long, as :func:`thinwire.kernels.bitpack.bits.pack` makes
        them. width: bits a code, 1 to 31.
        lows: f32 ``[s]``.
        steps: f32 ``[s]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        out: contiguous f32 ``[d]`` on the device of ``codes``; changed in place.
        factor: any number, rounded to f32 first.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> out = torch.ones(3)
        >>> codes = torch.tensor([0b100100], dtype=torch.uint8)  # 0, 1, 2
        >>> add_points(codes, 2, torch.tensor([-1.0]), torch.tensor([0.5]), torch.tensor([0, 3]), out, 2.0)
        >>> out.tolist()
        [-1.0, 0.0, 1.0]
    """
    ends = _check(codes, width, lows, steps, offsets, out)
    if not out.is_cpu:
        body_for(add_points_torch, out.device)(codes, width, lows, steps, offsets, out, factor)
        return
    add_packed(codes, width, (lows, steps), None, ends, out, factor)


def add_points_torch(
    codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """:func:`add_points` in torch operations, on any device."""
    sizes = to_device(offsets, out.device).diff()
    low, step = (each.repeat_interleave(sizes, output_size=out.numel()) for each in (lows, steps))
    points = unpack_torch(codes, out.numel(), width).to(torch.float32)
    out.add_(points.mul_(step).add_(low).mul_(factor))


def write_points(codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor) -> None:
    """``out_i = lows[s] + steps[s] * code_i``: :func:`add_points` that reads nothing of ``out``.

    Arguments and errors are those of :func:`add_points`.

    Example:
        >>> out = torch.empty(3)
        >>> codes = torch.tensor([0b100100], dtype=torch.uint8)  # 0, 1, 2
        >>> write_points(codes, 2, torch.tensor([-1.0]), torch.tensor([0.5]), torch.tensor([0, 3]), out)
        >>> out.tolist()
        [-1.0, -0.5, 0.0]
    """
    ends = _check(codes, width, lows, steps, offsets, out)
    if not out.is_cpu:
        body_for(write_points_torch, out.device)(codes, width, lows, steps, offsets, out)
        return
    add_packed(codes, width, (lows, steps), None, ends, out, None)


def write_points_torch(codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor) -> None:
    """:func:`write_points` in torch operations, on any device."""
    # x + -0.0 is x for every x, -0.0 included.
    add_points_torch(codes, width, lows, steps, offsets, out.fill_(-0.0))


def _check(codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor) -> Any:
    for numbers in (lows, steps):
        check_sum(numbers, offsets, out)
    check_packed(codes, out.numel(), width)
    return offsets_array(offsets, out.numel())
