"""Packed codes back onto a sum, block by block: what grids and codebooks share."""

from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.kernels.bitpack.bits import unpack_block
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty, first_from
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.reduce.block_norms import BLOCK

_NO_TABLE = np.empty(0, np.float32)


def add_packed(
    codes: Tensor, width: int, numbers: tuple[Tensor, Tensor], table: Tensor | None, ends: Any, out: Tensor,
    factor: float | None,
) -> None:  # fmt: skip
    """``out_i += factor * (low + step * code_i)``, or with a table ``out_i += factor * (step * table[code_i])``.

    Args:
        codes: as :func:`thinwire.kernels.bitpack.bits.pack` makes them, of ``width`` bits.
        width: bits a code.
        numbers: ``low`` and ``step`` of each segment; with a table the first is not read.
        table: ``2**width`` numbers; None for a grid.
        ends: where the segments begin, as an array that is checked.
        out: contiguous f32 ``[d]`` on the CPU; changed in place.
        factor: None to write what would be added, without reading ``out``.
    """
    lows, steps = map(array_of, numbers)
    places = _NO_TABLE if table is None else array_of(table)
    kept, times = factor is not None, np.float32(1.0 if factor is None else factor)
    shared = (array_of(codes), width, lows, steps, places, ends, array_of(out), times, kept)
    run(_add_range, [(*shared, first, last) for first, last in shares(out.numel(), BLOCK)])


@kernel
def _add_range(
    codes: Any, width: int, lows: Any, steps: Any, table: Any, ends: Any, out: Any, factor: Any, kept: bool, first: int,
    last: int,
) -> None:  # fmt: skip
    """Entries ``first``, a multiple of 1024, to ``last``."""
    block = empty(1024, np.int32)
    segment = first_from(ends, first + 1) - 1
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
            if table.size:
                _look_up(part, table, steps[segment], factor, kept, out[position:end])
            else:
                _add_points(part, lows[segment], steps[segment], factor, kept, out[position:end])
            position = end


@helper
def _add_points(points: Any, low: Any, step: Any, factor: Any, kept: bool, out: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    if kept:
        for j in range(out.size):
            out[j] += (low + step * np.float32(points[j])) * factor
    else:
        for j in range(out.size):
            out[j] = low + step * np.float32(points[j])


@helper
def _look_up(places: Any, table: Any, scale: Any, factor: Any, kept: bool, out: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    if kept:
        for j in range(out.size):
            out[j] += scale * table[np.uint32(places[j])] * factor
    else:
        for j in range(out.size):
            out[j] = scale * table[np.uint32(places[j])]
