"""Packed points of a grid back onto a sum; :mod:`thinwire.kernels.quantize.grid` makes them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import num_packed_bytes, unpack_block, unpack_torch
from thinwire.kernels.flat.checks import check_sum, offsets_array
from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.reduce.block_norms import BLOCK


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
    _check(codes, width, lows, steps, offsets, out)
    if not out.is_cpu:
        body_for(add_points_torch, out.device)(codes, width, lows, steps, offsets, out, factor)
        return
    _run(codes, width, lows, steps, offsets, out, factor, True)


def add_points_torch(
    codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """:func:`add_points` in torch operations, on any device."""
    sizes = offsets.to(out.device).diff()
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
    _check(codes, width, lows, steps, offsets, out)
    if not out.is_cpu:
        body_for(write_points_torch, out.device)(codes, width, lows, steps, offsets, out)
        return
    _run(codes, width, lows, steps, offsets, out, 1.0, False)


def write_points_torch(codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor) -> None:
    """:func:`write_points` in torch operations, on any device."""
    # x + -0.0 is x for every x, -0.0 included.
    add_points_torch(codes, width, lows, steps, offsets, out.fill_(-0.0))


def _check(codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor) -> None:
    for numbers in (lows, steps):
        check_sum(numbers, offsets, out)
    if not 1 <= width <= 31:
        raise ConfigError(f"codes of {width} bits were given; they have 1 to 31")
    if codes.dtype != torch.uint8 or codes.dim() != 1 or codes.numel() < num_packed_bytes(out.numel(), width):
        raise ConfigError(f"{out.numel()} codes of {width} bits were asked for, got shape {tuple(codes.shape)}")


def _run(
    codes: Tensor, width: int, lows: Tensor, steps: Tensor, offsets: Tensor, out: Tensor, factor: float, kept: bool
) -> None:
    ends = offsets_array(offsets, out.numel())
    shared = (array_of(codes), width, array_of(lows), array_of(steps), ends, array_of(out), np.float32(factor), kept)
    run(_add_range, [(*shared, first, last) for first, last in shares(out.numel(), BLOCK)])


@kernel
def _add_range(
    codes: Any, width: int, lows: Any, steps: Any, ends: Any, out: Any, factor: Any, kept: bool, first: int, last: int
) -> None:
    """Entries ``first``, a multiple of 1024, to ``last``."""
    block = np.empty(1024, np.int32)
    segment = np.searchsorted(ends, first, "right") - 1
    for start in range(first, last, 1024):
        stop = min(start + 1024, last)
        # 1024 codes of any width are whole bytes.
        unpack_block(codes[start // 8 * width :], width, block[: stop - start])
        position = start
        while position < stop:
            while ends[segment + 1] <= position:
                segment += 1
            end = min(stop, ends[segment + 1])
            part = block[position - start : end - start]
            _add_part(part, lows[segment], steps[segment], factor, kept, out[position:end])
            position = end


@kernel
def _add_part(points: Any, low: Any, step: Any, factor: Any, kept: bool, out: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    if kept:
        for j in range(out.size):
            out[j] += (low + step * np.float32(points[j])) * factor
    else:
        for j in range(out.size):
            out[j] = low + step * np.float32(points[j])
