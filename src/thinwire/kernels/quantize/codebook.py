"""Entries to the nearest number of a table, packed, and back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import check_packed, pack, pack_torch, unpack_torch
from thinwire.kernels.flat.checks import check_entries, check_scales, check_sum, offsets_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty, first_from
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.codebook_search import (
    CELLS,
    fill_cells,
    list_limits,
    place_by_cell,
    place_by_counting,
    place_by_halves,
)
from thinwire.kernels.quantize.packed_add import add_packed
from thinwire.kernels.reduce.block_norms import BLOCK, fold
from thinwire.kernels.reduce.segment_sums import segment_sums_torch


def nearest_codes(x: Tensor, offsets: Tensor, units: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every entry the place in ``table`` of what is nearest to ``x_i / units[s]``, and how well it fits.

    With ``q_i`` the number at that place, the fit of a segment is ``<x, q>`` and ``<q, q>``, summed in f64 in the order
    of :func:`thinwire.kernels.reduce.segment_sums.segment_sums`. Between neighbours ``a < b`` of the upper half the
    border is ``units[s] * ((a + b) / 2)``, both steps rounded to f32; a magnitude on it goes to ``a``. Zero of either
    sign and NaN count as positive.

    Args:
        x: f32 ``[d]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        units: f32 ``[s]``, not negative.
        table: f32 ``[2**b]`` with b from 1 to 8, ascending, ``table[-1 - j] == -table[j]``.

    Returns:
        The codes, packed in b bits each as by :func:`thinwire.kernels.bitpack.bits.pack`, and the two sums, f64
        ``[s]``.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> codes, fits, squares = nearest_codes(
        ...     torch.tensor([-1.0, 4.0]), torch.tensor([0, 2]), torch.tensor([2.0]), torch.tensor([-1.0, 1.0])
        ... )
        >>> codes.tolist(), fits.tolist(), squares.tolist()
        ([2], [5.0], [2.0])
    """
    ends = offsets_array(offsets, x.numel())
    positive, borders, width = _upper_half(table)
    check_entries(x)
    check_scales(units, offsets)
    if not x.is_cpu:
        return body_for(nearest_codes_torch, x.device)(x, offsets, units, table)
    codes = arrays.empty_array(x.numel(), np.uint8)
    starts = _block_starts(ends)
    sums = np.empty((2, int(starts[-1])), np.float64)
    arguments = (array_of(x), ends, starts, array_of(units), array_of(positive), array_of(borders), codes, sums)
    # Whole blocks for each thread; about as many entries.
    num_blocks = int(starts[-1])
    parts = shares(num_blocks * BLOCK, BLOCK)
    run(_nearest, [(*arguments, first // BLOCK, -(-last // BLOCK)) for first, last in parts])
    fits = np.zeros((2, ends.size - 1), np.float64)
    _fold_blocks(sums, starts, fits)
    return pack(tensor_of(codes), width), tensor_of(fits[0]), tensor_of(fits[1])


def nearest_codes_torch(x: Tensor, offsets: Tensor, units: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`nearest_codes` in torch operations, on any device."""
    positive, borders, width = _upper_half(to_device(table, x.device))
    unit = units.repeat_interleave(to_device(offsets, x.device).diff(), output_size=x.numel())
    magnitudes, place = x.abs(), torch.zeros(x.numel(), dtype=torch.int64, device=x.device)
    for border in borders:
        place += magnitudes > unit * border
    numbers = positive[place].to(torch.float64)
    # A product of two f32 is exact in f64; none is negative.
    fits = segment_sums_torch(magnitudes.to(torch.float64) * numbers, offsets, 1)
    codes = torch.where(x < 0, positive.numel() - 1 - place, positive.numel() + place)
    return pack_torch(codes, width), fits, segment_sums_torch(numbers, offsets, 2)


def add_codes(
    codes: Tensor, width: int, table: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """``out_i += factor * (scales[s] * table[code_i])`` for entry ``i`` of segment ``s``, each step rounded to f32.

    Args:
        codes: uint8, as :func:`thinwire.kernels.bitpack.bits.pack` makes them; below ``len(table)``, else the value is
        NaN. width: bits a code, 1 to 8.
        table: f32 ``[1 to 2**width]``.
        scales: f32 ``[s]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        out: contiguous f32 ``[d]`` on the device of ``codes``; changed in place.
        factor: any number, rounded to f32 first.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> out = torch.ones(2)
        >>> codes, table = torch.tensor([2], dtype=torch.uint8), torch.tensor([-1.0, 3.0])
        >>> add_codes(codes, 1, table, torch.tensor([2.0]), torch.tensor([0, 2]), out)
        >>> out.tolist()
        [-1.0, 7.0]
    """
    padded, ends = _check_codes(codes, width, table, scales, offsets, out)
    if not out.is_cpu:
        body_for(add_codes_torch, out.device)(codes, width, table, scales, offsets, out, factor)
        return
    add_packed(codes, width, (scales, scales), padded, ends, out, factor)


def add_codes_torch(
    codes: Tensor, width: int, table: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """:func:`add_codes` in torch operations, on any device."""
    out.add_(_values_torch(codes, width, table, scales, offsets, out.numel()) * factor)


def write_codes(codes: Tensor, width: int, table: Tensor, scales: Tensor, offsets: Tensor, out: Tensor) -> None:
    """``out_i = scales[s] * table[code_i]``: :func:`add_codes` that reads nothing of ``out``.

    Raises:
        ConfigError: as :func:`add_codes`.

    Example:
        >>> out = torch.empty(2)
        >>> codes, table = torch.tensor([2], dtype=torch.uint8), torch.tensor([-1.0, 3.0])
        >>> write_codes(codes, 1, table, torch.tensor([2.0]), torch.tensor([0, 2]), out)
        >>> out.tolist()
        [-2.0, 6.0]
    """
    padded, ends = _check_codes(codes, width, table, scales, offsets, out)
    if not out.is_cpu:
        out.copy_(_values_torch(codes, width, table, scales, offsets, out.numel()))
        return
    add_packed(codes, width, (scales, scales), padded, ends, out, None)


def _values_torch(codes: Tensor, width: int, table: Tensor, scales: Tensor, offsets: Tensor, numel: int) -> Tensor:
    scale = scales.repeat_interleave(to_device(offsets, codes.device).diff(), output_size=numel)
    return scale * _padded(table, width)[unpack_torch(codes, numel, width)]


def _upper_half(table: Tensor) -> tuple[Tensor, Tensor, int]:
    """The positive numbers, the borders between them, and the bits of a code."""
    width = max(1, (table.numel() - 1).bit_length())
    if table.dtype != torch.float32 or table.dim() != 1 or table.numel() != 1 << width or width > 8:
        raise ConfigError(
            f"a table has 2, 4, 8, ... or 256 float32, got {table.dtype} of shape {tuple(table.shape)}; "
            "its lower half mirrors its upper half"
        )
    positive = table[table.numel() // 2 :].contiguous()
    return positive, (positive[:-1] + positive[1:]) * 0.5, width


def _padded(table: Tensor, width: int) -> Tensor:
    missing = (1 << width) - table.numel()
    return torch.cat([table, table.new_full((missing,), float("nan"))]) if missing else table.contiguous()


def _check_codes(
    codes: Tensor, width: int, table: Tensor, scales: Tensor, offsets: Tensor, out: Tensor
) -> tuple[Tensor, "np.ndarray[Any, Any]"]:
    check_sum(scales, offsets, out)
    ends = offsets_array(offsets, out.numel())
    check_packed(codes, out.numel(), width, 8)
    if table.dtype != torch.float32 or not 1 <= table.numel() <= 1 << width:
        raise ConfigError(f"a table of {table.numel()} {table.dtype} was given; it has at most 2**{width} float32")
    return _padded(table, width), ends


def _block_starts(ends: "np.ndarray[Any, Any]") -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The number of each segment's first block of 1024 entries, and the number of all blocks."""
    starts = np.zeros(ends.size, np.int64)
    np.cumsum((np.diff(ends) + (BLOCK - 1)) // BLOCK, out=starts[1:])
    return starts


@kernel
def _nearest(
    x: Any, ends: Any, starts: Any, units: Any, positive: Any, borders: Any, codes: Any, sums: Any, first: int,
    last: int,
) -> None:  # fmt: skip
    """Codes and sums of blocks ``first`` to ``last``; blocks are counted from the beginning of each segment."""
    places = empty(1024, np.int32)
    numbers = empty(1024, np.float32)
    fits = empty(1024, np.float64)
    squares = empty(1024, np.float64)
    limits = empty(borders.size + 1, np.float32)
    cells = empty(CELLS, np.int32)
    segment = first_from(starts, first + 1) - 1
    fresh = True
    few = -1
    grid = np.float32(0)
    for block in range(first, last):
        while starts[segment + 1] <= block:
            segment += 1
            fresh = True
        unit = units[segment]
        if fresh:
            list_limits(unit, borders, limits)
            grid = np.float32(CELLS) / limits[borders.size - 1] if borders.size else np.float32(0)
            # Worth it for what is long enough; else halving finds the place.
            few = fill_cells(limits[: borders.size], grid, cells) if _is_long(starts, segment) else -1
            fresh = False
        begin = ends[segment] + (block - starts[segment]) * 1024
        end = min(begin + 1024, ends[segment + 1])
        entries = x[begin:end]
        if borders.size < 8:
            place_by_counting(entries, limits[: borders.size], places)
        elif few == 1:
            place_by_cell(entries, limits, grid, cells, places)
        else:
            place_by_halves(entries, limits, places)
        _look_up_places(entries, positive, places, codes[begin:end], numbers)
        left = _multiply(entries, numbers, fits, squares)
        sums[0, block] = fold(fits, left)
        sums[1, block] = fold(squares, left)


@helper
def _is_long(starts: Any, segment: int) -> Any:
    return starts[segment + 1] - starts[segment] >= 4


@helper
def _look_up_places(x: Any, positive: Any, places: Any, codes: Any, numbers: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    half = np.int32(positive.size)
    for j in range(x.size):
        place = places[j]
        codes[j] = np.uint8(half - np.int32(1) - place if x[j] < np.float32(0) else half + place)
        numbers[j] = positive[np.uint32(place)]


@helper
def _multiply(x: Any, numbers: Any, fits: Any, squares: Any) -> Any:
    """``|x| * number`` and ``number ** 2`` in f64, of a full block the first three halvings done; how many are left."""
    prefer_wide_vectors()
    always_inline()
    if x.size < 1024:
        for j in range(x.size):
            number = np.float64(numbers[j])
            fits[j] = np.float64(np.abs(x[j])) * number
            squares[j] = number * number
        return x.size
    for j in range(128):
        a, b = np.float64(numbers[j]), np.float64(numbers[j + 128])
        c, d = np.float64(numbers[j + 256]), np.float64(numbers[j + 384])
        e, f = np.float64(numbers[j + 512]), np.float64(numbers[j + 640])
        g, h = np.float64(numbers[j + 768]), np.float64(numbers[j + 896])
        squares[j] = ((a * a + e * e) + (c * c + g * g)) + ((b * b + f * f) + (d * d + h * h))
        a *= np.float64(np.abs(x[j]))
        b *= np.float64(np.abs(x[j + 128]))
        c *= np.float64(np.abs(x[j + 256]))
        d *= np.float64(np.abs(x[j + 384]))
        e *= np.float64(np.abs(x[j + 512]))
        f *= np.float64(np.abs(x[j + 640]))
        g *= np.float64(np.abs(x[j + 768]))
        h *= np.float64(np.abs(x[j + 896]))
        fits[j] = ((a + e) + (c + g)) + ((b + f) + (d + h))
    return 128


@kernel
def _fold_blocks(sums: Any, starts: Any, fits: Any) -> None:
    """The sums of each segment from those of its blocks, which are used up."""
    for segment in range(starts.size - 1):
        for which in range(2):
            parts = sums[which, starts[segment] : starts[segment + 1]]
            count = parts.size
            while count > 1:
                kept = 0
                for start in range(0, count, 1024):
                    parts[kept] = fold(parts[start:count], min(1024, count - start))
                    kept += 1
                count = kept
            if count == 1:
                fits[which, segment] = parts[0]
