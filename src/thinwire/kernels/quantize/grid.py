"""Rounding at random to the points of a grid that is given for each segment, right on average within the grid.

As :mod:`thinwire.kernels.quantize.dither`, which finds the grid itself; here who calls has measured the segments.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_block, pack_torch
from thinwire.kernels.flat.checks import check_entries, check_offsets, check_scales, offsets_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty, first_from, seen_as
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.dither import dither_torch
from thinwire.kernels.quantize.dither_numba import round_block, settle
from thinwire.kernels.random.philox import check_stream, fill_pairs
from thinwire.kernels.reduce.block_norms import BLOCK

MOST_CODES = 1 << 16
"""Points of the finest grid."""


def round_to_grid(x: Tensor, offsets: Tensor, lows: Tensor, steps: Tensor, num_codes: int, key: int) -> Tensor:
    """The number of a grid point next to every entry, packed; the points are ``low``, ``low + step``, and so on.

    With ``r_i = (x_i - low) * (1 / step)``, between 0 and ``num_codes - 1``, the code is ``floor(r_i) + (u_i < r_i -
    floor(r_i))``. Each operation is rounded to f32 (a step below ``2**-100`` or above ``2**100`` divides). ``u_i`` is
    a multiple of ``2**-32``, number ``i`` of :func:`thinwire.kernels.quantize.dither.dither_torch`. Entries outside the
    grid go to its ends.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        lows: f32 ``[s]``.
        steps: f32 ``[s]``; where a step is not above 0 all codes are 0.
        num_codes: 2 to 65536.
        key: of the random numbers, in ``[0, 2**64)``.

    Returns:
        uint8 ``[ceil(d * width / 8)]`` as of :func:`thinwire.kernels.bitpack.bits.pack`, ``width`` the bits of
        ``num_codes - 1``.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 2.0])
        >>> round_to_grid(x, torch.tensor([0, 3]), torch.tensor([-1.0]), torch.tensor([1.0]), 4, key=5).tolist()
        [52]
    """
    if not 2 <= num_codes <= MOST_CODES:
        raise ConfigError(f"a grid of {num_codes} points was asked for; 2 to {MOST_CODES} are possible")
    _check(x, offsets, (lows, steps), key)
    if not x.is_cpu:
        return body_for(round_to_grid_torch, x.device)(x, offsets, lows, steps, num_codes, key)
    return _run(x, offsets, array_of(lows), array_of(steps), num_codes - 1, True, key)


def round_to_levels(x: Tensor, offsets: Tensor, units: Tensor, num_levels: int, key: int) -> Tensor:
    """:func:`round_to_grid` of magnitudes to 0, ``unit``, ... ``num_levels * unit``, with the sign of the entry.

    Entries of a larger magnitude are clipped. The codes ``level + num_levels`` are packed in the bits of
    ``2 * num_levels``, as :class:`thinwire.payloads.Levels` wants them.

    Args:
        x: as there, and so are the others.
        offsets: as there.
        units: f32 ``[s]``; where one is not above 0 all levels are 0.
        num_levels: 1 to 32767.
        key: as there.

    Raises:
        ConfigError: as there.

    Example:
        >>> x = torch.tensor([-9.0, 0.0, 2.0])
        >>> round_to_levels(x, torch.tensor([0, 3]), torch.tensor([2.0]), 1, key=5).tolist()
        [36]
    """
    if not 1 <= num_levels <= 32767:
        raise ConfigError(f"{num_levels} levels were asked for; 1 to 32767 are possible")
    _check(x, offsets, (units,), key)
    if not x.is_cpu:
        return body_for(round_to_levels_torch, x.device)(x, offsets, units, num_levels, key)
    steps = array_of(units)
    return _run(x, offsets, steps, steps, num_levels, False, key)


def round_to_grid_torch(x: Tensor, offsets: Tensor, lows: Tensor, steps: Tensor, num_codes: int, key: int) -> Tensor:
    """:func:`round_to_grid` in torch operations, on any device."""
    sizes = to_device(offsets, x.device).diff()
    above = (x - lows.repeat_interleave(sizes, output_size=x.numel())).clamp_(min=0)
    return pack_torch(_levels_torch(above, sizes, steps, num_codes - 1, key), (num_codes - 1).bit_length())


def round_to_levels_torch(x: Tensor, offsets: Tensor, units: Tensor, num_levels: int, key: int) -> Tensor:
    """:func:`round_to_levels` in torch operations, on any device."""
    levels = _levels_torch(x.abs(), to_device(offsets, x.device).diff(), units, num_levels, key)
    return pack_torch(torch.where(x < 0, -levels, levels) + num_levels, (2 * num_levels).bit_length())


def _levels_torch(above: Tensor, sizes: Tensor, steps: Tensor, most: int, key: int) -> Tensor:
    ratio = ratios_torch(above, sizes, steps)
    ratio = torch.where(ratio < most, ratio, torch.full_like(ratio, most))
    floor = ratio.floor()
    coarse, fine = dither_torch(key, above.numel(), above.device)
    level = floor + (fine * 2.0**-16 < (ratio - floor) * 2.0**16 - coarse)
    step = steps.repeat_interleave(sizes, output_size=above.numel())
    return torch.where(step > 0, level, torch.zeros_like(level)).to(torch.int32)


def ratios_torch(above: Tensor, sizes: Tensor, units: Tensor) -> Tensor:
    """Each number times the inverse of its segment's unit, or divided by it where the inverse would be imprecise."""
    inverses = 1 / units
    usual = (units > 2.0**-100) & (units < 2.0**100)
    unit, inverse, is_usual = (
        each.repeat_interleave(sizes, output_size=above.numel()) for each in (units, inverses, usual)
    )
    return torch.where(is_usual, above * inverse, above / unit)


def _check(x: Tensor, offsets: Tensor, per_segment: tuple[Tensor, ...], key: int) -> None:
    check_entries(x)
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
    for numbers in per_segment:
        check_scales(numbers, offsets)
    check_stream(key, 0, x.numel())


def _run(x: Tensor, offsets: Tensor, lows: Any, steps: Any, most: int, from_low: bool, key: int) -> Tensor:
    entries, ends = array_of(x), offsets_array(offsets, x.numel())
    width = (most if from_low else 2 * most).bit_length()
    num_bytes = num_packed_bytes(entries.size, width)
    words = np.empty((num_bytes + 3) // 4, np.uint32)
    seeds = (np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32))
    # One byte a code where that is enough; the compiler makes a kernel of each kind.
    kind = np.uint8 if width <= 8 else np.uint16
    shared = (entries, ends, lows, steps, np.float32(most), from_low, *seeds)
    run(
        _round_range,
        [
            (*shared, np.empty(BLOCK + 16, kind), width, words, first, last)
            for first, last in shares(entries.size, BLOCK)
        ],
    )
    return tensor_of(words.view(np.uint8)[:num_bytes])


@kernel
def _round_range(
    x: Any, ends: Any, lows: Any, steps: Any, most: Any, from_low: bool, k0: Any, k1: Any, codes: Any, width: int,
    words: Any, first: int, last: int,
) -> None:  # fmt: skip
    """The packed codes of entries ``first``, a multiple of 1024, to ``last``."""
    # A group of sixteen may begin at the last entry.
    u = empty(1024 + 16, np.float32)
    coarse = empty(256 + 4, np.uint64)
    fine = empty(256, np.uint64)
    spare = empty(16, np.float32)
    codes[:] = 0
    segment = first_from(ends, first + 1) - 1
    position = first
    while position < last:
        while ends[segment + 1] <= position:
            segment += 1
        stop = min(ends[segment + 1], last)
        step = steps[segment]
        while position < stop:
            start = position // 1024 * 1024
            if position == start:
                fill_pairs(k0, k1, start // 8, 0, coarse[:256])
            till = min(stop, start + 1024)
            entries = u[: till - position]
            _load(x[position:till], lows[segment], from_low, entries)
            there = position - start
            drawn = seen_as(coarse, np.uint16)[there:]
            if not round_block(entries, step, most, step, drawn, codes[there:], False, spare, 0, spare):
                fill_pairs(k0, k1, start // 8, 1, fine)
                settle(entries, step, most, drawn, seen_as(fine, np.uint16)[there:], codes[there:])
            position = till
            if position == start + 1024 or position == last:
                # 1024 codes of any width are whole words.
                _pack(
                    codes[: position - start], most if from_low else np.float32(0), width, words[start // 32 * width :]
                )


@helper
def _load(x: Any, low: Any, from_low: bool, u: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    if from_low:
        for j in range(u.size):
            above = x[j] - low
            u[j] = above if above > np.float32(0) else np.float32(0)
    else:
        for j in range(u.size):
            u[j] = x[j]


@helper
def _pack(codes: Any, zero: Any, width: int, words: Any) -> None:
    """Pack codes, of which ``zero`` stands for the first point."""
    prefer_wide_vectors()
    shift = codes.dtype.type(zero)
    for j in range(codes.size):
        codes[j] -= shift
    pack_block(codes, width, words)
