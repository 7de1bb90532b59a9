"""Rounding at random to a small number of levels, right on average."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bits import num_packed_bytes, pack_block, pack_torch
from thinwire.kernels.numba_tools import array_of, kernel, tensor_of
from thinwire.kernels.offsets import offsets_array
from thinwire.kernels.philox import check_stream, fill_blocks, uniform_torch


def quantize_levels(x: Tensor, units: Tensor, offsets: Tensor, num_levels: int, key: int) -> Tensor:
    """Signed level of every entry: ``sign(x_i) * min(floor(r_i) + (u_i < r_i - floor(r_i)), num_levels)``.

    ``r_i = |x_i| / units[s]`` for entry ``i`` of segment ``s`` and ``u_i`` is number ``i`` of
    :func:`thinwire.kernels.philox.uniform`. All arithmetic is f32. Where ``|x_i| <= num_levels * units[s]``
    the expected value of ``level_i * units[s]`` is ``x_i``, up to the 24 bits of ``u_i``.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse (here its level is ``num_levels``).
        units: f32 ``[s]``; a unit that is not above 0 makes every level of its segment 0.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        num_levels: 1 to ``2**24``.
        key: of the random numbers, in ``[0, 2**64)``.

    Returns:
        int32 ``[d]`` on the device of ``x``.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([0.0, 1.0, -2.0, 9.0])
        >>> quantize_levels(x, torch.tensor([1.0]), torch.tensor([0, 4]), 3, key=5).tolist()
        [0, 1, -2, 3]
    """
    ends = _check(x, units, offsets, num_levels, key)
    if not x.is_cpu:
        return quantize_levels_torch(x, units, offsets, num_levels, key)
    levels = np.empty(x.numel(), np.int32)
    _quantize(
        array_of(x),
        array_of(units),
        ends,
        np.int32(num_levels),
        np.uint32(key & 0xFFFFFFFF),
        np.uint32(key >> 32),
        levels,
    )
    return tensor_of(levels)


def quantize_levels_torch(x: Tensor, units: Tensor, offsets: Tensor, num_levels: int, key: int) -> Tensor:
    """:func:`quantize_levels` in torch operations, on any device."""
    sizes = offsets.to(x.device).diff()
    unit = units.to(x.device).repeat_interleave(sizes, output_size=x.numel())
    ratio = x.abs() / unit
    floor = ratio.floor()
    level = floor + (uniform_torch(key, 0, x.numel(), x.device) < ratio - floor).to(torch.float32)
    # Written so that a NaN ends at num_levels, as in the kernel.
    level = torch.where(level < num_levels, level, torch.full_like(level, num_levels))
    level = torch.where(unit > 0, level, torch.zeros_like(level))
    return torch.where(x < 0, -level, level).to(torch.int32)


def quantize_packed(x: Tensor, units: Tensor, offsets: Tensor, num_levels: int, key: int) -> Tensor:
    """``pack(quantize_levels(...) + num_levels, width)`` in one pass, ``width`` the bits of ``2 * num_levels``.

    Args:
        x: as for :func:`quantize_levels`, and so are the others.
        units: as there.
        offsets: as there.
        num_levels: as there.
        key: as there.

    Returns:
        uint8 ``[ceil(d * width / 8)]`` on the device of ``x``, unused bits zero.

    Raises:
        ConfigError: as :func:`quantize_levels`.

    Example:
        >>> x = torch.tensor([0.0, 1.0, -2.0, 9.0])
        >>> quantize_packed(x, torch.tensor([1.0]), torch.tensor([0, 4]), 3, key=5).tolist()  # 3, 4, 1, 6
        [99, 12]
    """
    ends = _check(x, units, offsets, num_levels, key)
    if not x.is_cpu:
        return quantize_packed_torch(x, units, offsets, num_levels, key)
    width = (2 * num_levels).bit_length()
    num_bytes = num_packed_bytes(x.numel(), width)
    words = np.empty((num_bytes + 3) // 4, np.uint32)
    _quantize_packed(
        array_of(x),
        array_of(units),
        ends,
        np.int32(num_levels),
        np.uint32(key & 0xFFFFFFFF),
        np.uint32(key >> 32),
        width,
        words,
    )
    return tensor_of(words.view(np.uint8)[:num_bytes])


def quantize_packed_torch(x: Tensor, units: Tensor, offsets: Tensor, num_levels: int, key: int) -> Tensor:
    """:func:`quantize_packed` in torch operations, on any device."""
    levels = quantize_levels_torch(x, units, offsets, num_levels, key)
    return pack_torch(levels + num_levels, (2 * num_levels).bit_length())


def _check(
    x: Tensor, units: Tensor, offsets: Tensor, num_levels: int, key: int
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    if x.dtype != torch.float32 or x.dim() != 1 or units.dtype != torch.float32:
        raise ConfigError(f"entries and units are vectors of float32, got {x.dtype} and {units.dtype}")
    if not 1 <= num_levels <= 2**24:
        raise ConfigError(f"{num_levels} levels were asked for; 1 to 2**24 are possible")
    ends = offsets_array(offsets, x.numel())
    if units.shape != (ends.size - 1,):
        raise ConfigError(f"{ends.size - 1} segments need as many units, got shape {tuple(units.shape)}")
    check_stream(key, 0, x.numel())
    return ends


@kernel
def _quantize(x: Any, units: Any, offsets: Any, num_levels: Any, k0: Any, k1: Any, levels: Any) -> None:
    lanes = np.empty((4, 256), np.uint32)
    numbers = np.empty(1024, np.float32)
    segment = 0
    for start in range(0, x.size, 1024):
        end = min(start + 1024, x.size)
        segment = _quantize_block(
            x, units, offsets, num_levels, k0, k1, start, segment, lanes, numbers, levels[start:end]
        )


@kernel
def _quantize_packed(
    x: Any, units: Any, offsets: Any, num_levels: Any, k0: Any, k1: Any, width: int, words: Any
) -> None:
    lanes = np.empty((4, 256), np.uint32)
    numbers = np.empty(1024, np.float32)
    block = np.empty(1024, np.int32)
    segment = 0
    for start in range(0, x.size, 1024):
        codes = block[: min(1024, x.size - start)]
        segment = _quantize_block(x, units, offsets, num_levels, k0, k1, start, segment, lanes, numbers, codes)
        for j in range(codes.size):
            codes[j] += num_levels
        # 1024 codes of any width are whole words.
        pack_block(codes, width, words[start // 32 * width :])


@kernel
def _quantize_block(
    x: Any, units: Any, offsets: Any, num_levels: Any, k0: Any, k1: Any,
    start: int, segment: int, lanes: Any, numbers: Any, levels: Any,
) -> int:  # fmt: skip
    """Fill ``levels``, those of entries ``start`` on; return the segment of the last one.

    ``segment`` is that of the first entry or an earlier one.
    ``lanes`` and ``numbers`` are scratch for as many random numbers as a block has entries.
    """
    fill_blocks(k0, k1, start >> 2, lanes)
    lane0, lane1, lane2, lane3 = lanes[0], lanes[1], lanes[2], lanes[3]
    for j in range(lane0.size):
        numbers[4 * j] = np.float32(np.int32(lane0[j] >> np.uint32(8))) * np.float32(2.0**-24)
        numbers[4 * j + 1] = np.float32(np.int32(lane1[j] >> np.uint32(8))) * np.float32(2.0**-24)
        numbers[4 * j + 2] = np.float32(np.int32(lane2[j] >> np.uint32(8))) * np.float32(2.0**-24)
        numbers[4 * j + 3] = np.float32(np.int32(lane3[j] >> np.uint32(8))) * np.float32(2.0**-24)
    end = start + levels.size
    position = start
    while position < end:
        while offsets[segment + 1] <= position:
            segment += 1
        stop = min(end, offsets[segment + 1])
        run = levels[position - start : stop - start]
        if units[segment] > np.float32(0):
            _quantize_run(x[position:stop], units[segment], num_levels, numbers[position - start :], run)
        else:
            run[:] = 0
        position = stop
    return segment


@kernel
def _quantize_run(x: Any, unit: Any, num_levels: Any, numbers: Any, levels: Any) -> None:
    most = np.float32(num_levels)
    for i in range(x.size):
        ratio = np.abs(x[i]) / unit
        # Below the largest level the conversion to an integer is floor; at it, there is nothing to round. NaN is
        # put there too.
        ratio = ratio if ratio < most else most
        level = np.int32(ratio)
        level += np.int32(numbers[i] < ratio - np.float32(level))
        levels[i] = -level if x[i] < np.float32(0) else level
