"""Entries to the nearest number of a table, packed, and back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels import buffers
from thinwire.kernels.bits import num_packed_bytes, pack, pack_torch, unpack_block, unpack_torch
from thinwire.kernels.measures import BLOCK, fold
from thinwire.kernels.numba_tools import array_of, kernel, tensor_of
from thinwire.kernels.offsets import check_sum, offsets_array
from thinwire.kernels.sums import segment_sums_torch
from thinwire.kernels.threads import run, shares
from thinwire.kernels.vector_width import always_inline, prefer_wide_vectors


def nearest_codes(x: Tensor, offsets: Tensor, units: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every entry the place in ``table`` of what is nearest to ``x_i / units[s]``, and how well it fits.

    With ``q_i`` the number at that place, the fit of a segment is ``<x, q>`` and ``<q, q>``, summed in f64 in the order
    of :func:`thinwire.kernels.sums.segment_sums`. Between neighbours ``a < b`` of the upper half the border is
    ``units[s] * ((a + b) / 2)``, both steps rounded to f32; a magnitude on it goes to ``a``. Zero of either sign and
    NaN count as positive.

    Args:
        x: f32 ``[d]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        units: f32 ``[s]``, not negative.
        table: f32 ``[2**b]`` with b from 1 to 8, ascending, ``table[-1 - j] == -table[j]``.

    Returns:
        The codes, packed in b bits each as by :func:`thinwire.kernels.bits.pack`, and the two sums, f64 ``[s]``.

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
    if x.dtype != torch.float32 or x.dim() != 1 or units.dtype != torch.float32 or units.numel() != ends.size - 1:
        raise ConfigError(
            f"entries are a vector of float32 and {ends.size - 1} segments need as many units, "
            f"got {x.dtype} of shape {tuple(x.shape)} and {units.dtype} of shape {tuple(units.shape)}"
        )
    if not x.is_cpu:
        return nearest_codes_torch(x, offsets, units, table)
    codes = buffers.empty(x.numel(), np.uint8)
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
    positive, borders, width = _upper_half(table.to(x.device))
    unit = units.repeat_interleave(offsets.to(x.device).diff(), output_size=x.numel())
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
        codes: uint8, as :func:`thinwire.kernels.bits.pack` makes them; below ``len(table)``, else the value is NaN.
        width: bits a code, 1 to 8.
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
        add_codes_torch(codes, width, table, scales, offsets, out, factor)
        return
    _run_codes(codes, width, padded, scales, ends, out, factor, True)


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
    _run_codes(codes, width, padded, scales, ends, out, 1.0, False)


def _values_torch(codes: Tensor, width: int, table: Tensor, scales: Tensor, offsets: Tensor, numel: int) -> Tensor:
    scale = scales.repeat_interleave(offsets.to(codes.device).diff(), output_size=numel)
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
    if not 1 <= width <= 8 or table.dtype != torch.float32 or not 1 <= table.numel() <= 1 << width:
        raise ConfigError(
            f"codes of {width} bits and a table of {table.numel()} {table.dtype} were given; "
            "a width is 1 to 8, and a table has at most 2**width float32"
        )
    if codes.dtype != torch.uint8 or codes.numel() < num_packed_bytes(out.numel(), width):
        raise ConfigError(f"{codes.numel()} of {codes.dtype} were given for {out.numel()} codes of {width} bits")
    return _padded(table, width), ends


def _run_codes(
    codes: Tensor, width: int, table: Tensor, scales: Tensor, ends: Any, out: Tensor, factor: float, kept: bool
) -> None:
    arguments = (array_of(codes), width, array_of(table), array_of(scales), ends, out.numpy(), np.float32(factor), kept)
    run(_add_codes, [(*arguments, first, last) for first, last in shares(out.numel(), BLOCK)])


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
    places = np.empty(1024, np.int32)
    fits = np.empty(1024, np.float64)
    squares = np.empty(1024, np.float64)
    segment = np.searchsorted(starts, first, "right") - 1
    for block in range(first, last):
        while starts[segment + 1] <= block:
            segment += 1
        begin = ends[segment] + (block - starts[segment]) * 1024
        end = min(begin + 1024, ends[segment + 1])
        _place(x[begin:end], units[segment], positive, borders, places, codes[begin:end], fits, squares)
        sums[0, block] = fold(fits, end - begin)
        sums[1, block] = fold(squares, end - begin)


@kernel
def _place(x: Any, unit: Any, positive: Any, borders: Any, places: Any, codes: Any, fits: Any, squares: Any) -> None:
    prefer_wide_vectors()
    count = x.size
    for j in range(count):
        places[j] = np.int32(0)
    # Four borders a sweep: what is counted stays in registers a little longer.
    whole = borders.size // 4 * 4
    for k in range(0, whole, 4):
        a, b = unit * borders[k], unit * borders[k + 1]
        c, d = unit * borders[k + 2], unit * borders[k + 3]
        for j in range(count):
            size = np.abs(x[j])
            above = np.int32(size > a) + np.int32(size > b) + np.int32(size > c) + np.int32(size > d)
            places[j] += np.int32(above)
    for k in range(whole, borders.size):
        a = unit * borders[k]
        for j in range(count):
            places[j] += np.int32(np.abs(x[j]) > a)
    half = np.int32(positive.size)
    for j in range(count):
        place = places[j]
        codes[j] = np.uint8(half - np.int32(1) - place if x[j] < np.float32(0) else half + place)
        number = np.float64(positive[np.uint32(place)])
        fits[j] = np.float64(np.abs(x[j])) * number
        squares[j] = number * number


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


@kernel
def _add_codes(
    codes: Any, width: int, table: Any, scales: Any, ends: Any, out: Any, factor: Any, kept: bool, first: int, last: int
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
            _look_up(block[position - start : end - start], table, scales[segment], factor, kept, out[position:end])
            position = end


@kernel
def _look_up(places: Any, table: Any, scale: Any, factor: Any, kept: bool, out: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    if kept:
        for j in range(out.size):
            out[j] += scale * table[np.uint32(places[j])] * factor
    else:
        for j in range(out.size):
            out[j] = scale * table[np.uint32(places[j])]
