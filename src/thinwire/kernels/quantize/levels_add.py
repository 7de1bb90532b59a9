"""Packed levels back onto a sum."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import check_packed, unpack_block, unpack_torch
from thinwire.kernels.flat.checks import check_sum, offsets_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import empty, first_from
from thinwire.kernels.jit.simd import LANES, LARGEST_WIDTH, add_level_groups
from thinwire.kernels.jit.threads import STREAMED_NS, run, shares


def add_levels(
    codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """``out_i += factor * (units[s] * (code_i - num_levels))`` for entry ``i`` of segment ``s``.

    Everything is f32: the level is rounded to f32 (exact up to ``2**24``), then the product with the unit, the
    product with the factor (itself rounded first), then the sum.

    Args:
        codes: uint8, at least ``num_packed_bytes(d, width)`` long, as :func:`thinwire.kernels.bitpack.bits.pack`
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
    _check(codes, width, num_levels, units, offsets, out)
    if not out.is_cpu:
        body_for(add_levels_torch, out.device)(codes, width, num_levels, units, offsets, out, factor)
        return
    _run(codes, width, num_levels, units, offsets, out, factor, True)


def add_levels_torch(
    codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """:func:`add_levels` in torch operations, on any device."""
    unit = units.repeat_interleave(to_device(offsets, out.device).diff(), output_size=out.numel())
    levels = (unpack_torch(codes, out.numel(), width) - num_levels).to(torch.float32)
    out.add_(unit * levels * factor)


def write_levels(codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor) -> None:
    """``out_i = units[s] * (code_i - num_levels)``: :func:`add_levels` that reads nothing of ``out``.

    Arguments and errors are those of :func:`add_levels`.

    Example:
        >>> out = torch.empty(3)
        >>> codes = torch.tensor([0b100100], dtype=torch.uint8)  # levels -1, 0, 1
        >>> write_levels(codes, 2, 1, torch.tensor([3.0]), torch.tensor([0, 3]), out)
        >>> out.tolist()
        [-3.0, 0.0, 3.0]
    """
    _check(codes, width, num_levels, units, offsets, out)
    if not out.is_cpu:
        body_for(write_levels_torch, out.device)(codes, width, num_levels, units, offsets, out)
        return
    _run(codes, width, num_levels, units, offsets, out, 1.0, False)


def write_levels_torch(codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor) -> None:
    """:func:`write_levels` in torch operations, on any device."""
    # x + -0.0 is x for every x, -0.0 included.
    add_levels_torch(codes, width, num_levels, units, offsets, out.fill_(-0.0))


def _check(codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor) -> None:
    check_sum(units, offsets, out)
    check_packed(codes, out.numel(), width)
    if not 0 <= num_levels < 2**30:
        raise ConfigError(f"{num_levels} levels were given; at most 2**30 - 1 can be")


def _run(
    codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor, factor: float, kept: bool
) -> None:
    ends, middle = offsets_array(offsets, out.numel()), np.int32(num_levels)
    shared = (array_of(codes), width, middle, array_of(units), ends, array_of(out), np.float32(factor), kept)
    run(add_level_range, [(*shared, start, stop) for start, stop in shares(out.numel(), LANES, STREAMED_NS)])


@kernel
def add_level_range(
    codes: Any, width: int, num_levels: Any, units: Any, offsets: Any, out: Any, factor: Any, kept: bool, start: int,
    stop: int,
) -> None:  # fmt: skip
    """Entries ``start`` to ``stop``: levels are added where ``kept``, else written."""
    block = empty(1024, np.int32)
    segment = first_from(offsets, start + 1) - 1
    position = start
    while position < stop:
        while offsets[segment + 1] <= position:
            segment += 1
        end = min(stop, offsets[segment + 1])
        if width <= LARGEST_WIDTH:
            _add_narrow(codes, width, num_levels, units[segment], out, factor, kept, position, end)
        else:
            _add_wide(codes, width, num_levels, units[segment], out, factor, kept, position, end, block)
        position = end


@helper
def _add_narrow(
    codes: Any, width: int, num_levels: Any, unit: Any, out: Any, factor: Any, kept: bool, start: int, stop: int
) -> None:
    # Eight codes are whole bytes; segments may begin and end between them.
    first = min(stop, (start + 7) // 8 * 8)
    groups = (stop - first) // LANES
    last = first + groups * LANES
    _add_each(codes, width, num_levels, unit, out, factor, kept, start, first)
    add_level_groups(codes, first // 8 * width, width, num_levels, unit, factor, kept, out, first, groups)
    _add_each(codes, width, num_levels, unit, out, factor, kept, last, stop)


@helper
def _add_each(
    codes: Any, width: int, num_levels: Any, unit: Any, out: Any, factor: Any, kept: bool, start: int, stop: int
) -> None:
    mask = np.int32((1 << width) - 1)
    for i in range(start, stop):
        bit = i * width
        byte = bit >> 3
        # A code of at most 8 bits lies in two bytes, the second of which may not be there.
        window = np.int32(codes[byte]) | (np.int32(codes[min(byte + 1, codes.size - 1)]) << np.int32(8))
        level = np.int32(((window >> np.int32(bit & 7)) & mask) - num_levels)
        value = unit * np.float32(level) * factor
        out[i] = out[i] + value if kept else value


@helper
def _add_wide(
    codes: Any, width: int, num_levels: Any, unit: Any, out: Any, factor: Any, kept: bool, start: int, stop: int,
    block: Any,
) -> None:  # fmt: skip
    position = start
    while position < stop:
        # Read from the byte border before; 1024 codes of any width are whole bytes.
        first = position // 8 * 8
        end = min(stop, first + block.size)
        unpack_block(codes[first // 8 * width :], width, block[: end - first])
        part = out[position:end]
        levels = block[position - first : end - first]
        if kept:
            for j in range(part.size):
                part[j] += unit * np.float32(levels[j] - num_levels) * factor
        else:
            for j in range(part.size):
                part[j] = unit * np.float32(levels[j] - num_levels) * factor
        position = end
