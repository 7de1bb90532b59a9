"""Many vectors of packed levels or signs, added up block by block, while a block is in the cache.

Added one after another, every vector reads and writes the whole sum once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import check_packed
from thinwire.kernels.flat.checks import check_sum, offsets_array
from thinwire.kernels.flat.finite import INFINITY_BITS, divide_block, divide_finite_torch
from thinwire.kernels.jit.compiling import carray, helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import first_from, pointer
from thinwire.kernels.jit.simd import LANES, LARGEST_WIDTH, add_level_groups, add_sign_groups
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.levels_add import add_level_range, add_levels_torch
from thinwire.kernels.quantize.signs_add import add_sign_range, add_signs_torch

WIDEST = LARGEST_WIDTH
"""Bits of the widest codes."""

_BLOCK = 1 << 12
"""Entries whose sums the nearest cache holds, with room for the codes that come by."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A vector of packed levels as :func:`thinwire.kernels.quantize.levels_add.add_levels` takes it, or of signs.

    Args:
        codes: uint8, packed.
        units: f32 ``[s]``.
        offsets: int64 ``[s + 1]``: where the segments begin.
        num_levels: the code of level 0; None for signs, as :func:`thinwire.kernels.quantize.signs_add.add_signs` takes
            them.

    Raises:
        ConfigError: codes of more than 8 bits.
    """

    codes: Tensor
    units: Tensor
    offsets: Tensor
    num_levels: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.width <= WIDEST:
            raise ConfigError(f"codes of {self.width} bits were given; at most {WIDEST} can be")

    @property
    def width(self) -> int:
        """Bits a code."""
        return 1 if self.num_levels is None else (2 * self.num_levels).bit_length()


def add_codes(parts: Sequence[Codes], out: Tensor, fresh: bool, divisor: int) -> bool:
    """``out = (out + vector 0 + vector 1 + ...) / divisor``, rounded to f32 after each; whether all of it is finite.

    Args:
        parts: vectors of as many entries as ``out``.
        out: contiguous f32 ``[d]``; changed in place.
        fresh: take zeros for what is in ``out``.
        divisor: a positive integer below ``2**24``, so that f32 holds it exactly.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> import torch
        >>> signs = Codes(torch.tensor([0b01], dtype=torch.uint8), torch.tensor([3.0]), torch.tensor([0, 2]))
        >>> out = torch.empty(2)
        >>> add_codes([signs, signs], out, True, 4), out.tolist()
        (True, [-1.5, 1.5])
    """
    for part in parts:
        check_sum(part.units, part.offsets, out)
        check_packed(part.codes, out.numel(), part.width)
    if not 1 <= divisor < 2**24:
        raise ConfigError(f"a divisor of {divisor} was given; it must be 1 to 2**24 - 1")
    if not out.is_cpu:
        return body_for(add_codes_torch, out.device)(parts, out, fresh, divisor)
    total = array_of(out)
    # The kernel is given addresses: what they belong to must live until it is done.
    arrays = [(array_of(each.codes), array_of(each.units), offsets_array(each.offsets, total.size)) for each in parts]
    rows = [
        (codes.ctypes.data, codes.size, units.ctypes.data, units.size, ends.ctypes.data, part.num_levels or 0)
        for part, (codes, units, ends) in zip(parts, arrays, strict=True)
    ]
    table = np.array(rows, np.int64).reshape(-1, 6)
    shared = (table, total, fresh, np.float32(divisor))
    return all(run(_add, [(*shared, start, stop) for start, stop in shares(total.size, _BLOCK)]))


def add_codes_torch(parts: Sequence[Codes], out: Tensor, fresh: bool, divisor: int) -> bool:
    """:func:`add_codes` in torch operations, on any device."""
    if fresh:
        out.zero_()
    for each in parts:
        if each.num_levels is None:
            add_signs_torch(each.codes, each.units, each.offsets, out)
        else:
            add_levels_torch(each.codes, each.width, each.num_levels, each.units, each.offsets, out)
    return divide_finite_torch(out, divisor)


@kernel
def _add(table: Any, out: Any, fresh: bool, divisor: Any, start: int, stop: int) -> bool:
    """Entries ``start``, a multiple of ``_BLOCK``, to ``stop - 1``."""
    most = np.uint32(0)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        sums = out[first:last]
        if fresh:
            sums[:] = 0.0
        for each in range(table.shape[0]):
            codes = carray(pointer(table[each, 0]), (table[each, 1],), np.uint8)
            num_segments = table[each, 3]
            units = carray(pointer(table[each, 2]), (num_segments,), np.float32)
            ends = carray(pointer(table[each, 4]), (num_segments + 1,), np.int64)
            _add_segments(codes, table[each, 5], units, ends, out, first, last)
        most = max(most, divide_block(sums, divisor))
    return bool(most < np.uint32(INFINITY_BITS))


@helper
def _add_segments(codes: Any, num_levels: Any, units: Any, ends: Any, out: Any, first: Any, last: Any) -> None:
    # As one call of either range's kernel for each block, a mean of 32 messages took a tenth to a third longer.
    one, middle = np.float32(1.0), np.int32(num_levels)
    width = _num_bits(2 * num_levels)
    segment = first_from(ends, first + 1) - 1
    position = first
    while position < last:
        while ends[segment + 1] <= position:
            segment += 1
        end = min(last, ends[segment + 1])
        unit = units[segment]
        groups = (end - position) // LANES
        if (position | end) % LANES:
            # Segments may begin and end inside a byte.
            if num_levels:
                add_level_range(codes, width, middle, units, ends, out, one, True, position, end)
            else:
                add_sign_range(codes, units, ends, out, one, True, position, end)
        elif num_levels:
            add_level_groups(codes, position // 8 * width, width, middle, unit, one, True, out, position, groups)
        else:
            add_sign_groups(codes, position // 8, unit, True, out, position, groups)
        position = end


@helper
def _num_bits(number: Any) -> Any:
    count = 0
    while number >> count:
        count += 1
    return count
