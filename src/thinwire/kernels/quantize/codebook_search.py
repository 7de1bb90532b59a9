"""Between which of a table's borders the magnitude of an entry lies, found in three ways with one result."""

from typing import Any, Final

import numpy as np

from thinwire.kernels.jit.compiling import helper
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors

CELLS: Final = 1024
"""Parts of equal width of the magnitudes: so many that no two borders of a Gaussian codebook lie in one."""


@helper
def list_limits(unit: Any, borders: Any, limits: Any) -> None:
    """The magnitudes above which a place ends; no entry is above the last one."""
    for k in range(borders.size):
        limits[k] = unit * borders[k]
    limits[borders.size] = np.float32(np.inf)


@helper
def fill_cells(limits: Any, grid: Any, cells: Any) -> Any:
    """The place at which each of equal cells of the magnitudes begins, and the most limits that lie in one.

    Cells are as :func:`place_by_cell` computes them, rounding and all: to no magnitude in a cell is a limit below in a
    later one, and above none in an earlier one. -1 where a unit is so large or small that they cannot be computed.
    """
    if limits.size == 0 or not (grid > np.float32(2.0**-100) and grid < np.float32(2.0**100)):
        return -1
    most = 0
    k = 0
    for cell in range(cells.size):
        cells[cell] = k
        found = 0
        while k < limits.size and _cell(limits[k], grid) == cell:
            k += 1
            found += 1
        most = max(most, found)
    return most


@helper
def _cell(size: Any, grid: Any) -> Any:
    """The cell of a magnitude, the last one of everything beyond; 0 of NaN."""
    always_inline()
    place = size * grid
    place = place if place < np.float32(CELLS - 1) else np.float32(CELLS - 1)
    return np.int32(place if size == size else np.float32(0))


@helper
def place_by_cell(x: Any, limits: Any, grid: Any, cells: Any, places: Any) -> None:
    """The number of limits below each magnitude, where at most one lies in a cell."""
    prefer_wide_vectors()
    always_inline()
    for j in range(x.size):
        size = np.abs(x[j])
        place = cells[np.uint32(_cell(size, grid))]
        places[j] = place + np.int32(size > limits[np.uint32(place)])


@helper
def place_by_halves(x: Any, limits: Any, places: Any) -> None:
    """The number of limits below each magnitude, of ``limits.size``, a power of two of them with the last one."""
    prefer_wide_vectors()
    always_inline()
    for j in range(x.size):
        places[j] = np.int32(0)
    step = limits.size // 2
    while step > 0:
        for j in range(x.size):
            place = places[j]
            limit = limits[np.uint32(place + np.int32(step - 1))]
            places[j] = place + (np.int32(step) if np.abs(x[j]) > limit else np.int32(0))
        step //= 2


@helper
def place_by_counting(x: Any, limits: Any, places: Any) -> None:
    """The same for so few limits that comparing with each is faster than looking one up."""
    prefer_wide_vectors()
    always_inline()
    for j in range(x.size):
        places[j] = np.int32(0)
    # Four limits a sweep: what is counted stays in registers a little longer.
    whole = limits.size // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = limits[k], limits[k + 1], limits[k + 2], limits[k + 3]
        for j in range(x.size):
            size = np.abs(x[j])
            above = np.int32(size > a) + np.int32(size > b) + np.int32(size > c) + np.int32(size > d)
            places[j] += np.int32(above)
    for k in range(whole, limits.size):
        a = limits[k]
        for j in range(x.size):
            places[j] += np.int32(np.abs(x[j]) > a)
