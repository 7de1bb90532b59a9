"""The loops of :mod:`.dither`: a block of 1024 entries at a time, all of it in the nearest cache."""

from typing import Any, Final

import numpy as np

from thinwire.kernels.bitpack.bits import pack_block
from thinwire.kernels.flat.finite import LARGEST
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.hints import always_inline, borrowed, prefer_wide_vectors
from thinwire.kernels.quantize.dither_simd import round_groups, round_groups_asking
from thinwire.kernels.random.philox import fill_pairs
from thinwire.kernels.random.philox_simd import philox_pairs
from thinwire.kernels.reduce.block_norms import fits_in_cache, load, load_measured, measure
from thinwire.kernels.reduce.block_norms_simd import AHEAD

_LARGEST: Final = np.float32(LARGEST)


@kernel
def quantize_range(
    x: Any, residual: Any, decay: Any, has_residual: bool, out: Any, ends: Any, power: int, measures: Any,
    num_levels: Any, factors: Any, k0: Any, k1: Any, codes: Any, width: int, words: Any, scales: Any,
    first: int, last: int,
) -> None:  # fmt: skip
    """Levels and scales of entries ``first``, a multiple of 1024, to ``last``.

    ``measures`` has the segments that :func:`.block_norms.fits_in_cache` does not; the others are
    measured here.
    """
    # A group of sixteen may begin at the last entry.
    u = np.empty(1024 + 16, np.float32)
    folded = np.empty(1024, np.float64)
    totals = np.empty(1024, np.float64)
    coarse = np.empty(256 + 4, np.uint64)
    fine = np.empty(256, np.uint64)
    spare = np.empty(16, np.float32)
    _quantize_range(
        x, residual, decay, has_residual, out, ends, power, measures, num_levels, factors, k0, k1, codes, width, words,
        scales, first, last, u, folded, totals, coarse, fine, spare,
    )  # fmt: skip


@helper
def _quantize_range(
    x: Any, residual: Any, decay: Any, has_residual: bool, out: Any, ends: Any, power: int, measures: Any,
    num_levels: Any, factors: Any, k0: Any, k1: Any, codes: Any, width: int, words: Any, scales: Any,
    first: int, last: int, u: Any, folded: Any, totals: Any, coarse: Any, fine: Any, spare: Any,
) -> None:  # fmt: skip
    x, residual, out, codes, words = borrowed(x), borrowed(residual), borrowed(out), borrowed(codes), borrowed(words)
    u, folded, totals = borrowed(u), borrowed(folded), borrowed(totals)
    coarse, fine, spare = borrowed(coarse), borrowed(fine), borrowed(spare)
    drawn = coarse.view(np.uint16)
    # Packing takes a few more codes than there are at the end.
    codes[:] = 0
    segment = np.searchsorted(ends, first, "right") - 1
    position = first
    while position < last:
        while ends[segment + 1] <= position:
            segment += 1
        begin = ends[segment]
        end = ends[segment + 1]
        fits = fits_in_cache(begin, end, first, last)
        at_hand = fits and end - begin <= 1024
        if at_hand:
            measured = load_measured(x, residual, decay, has_residual, False, begin, u, end - begin, power, folded)
        elif fits:
            measured = measure(x, residual, decay, has_residual, begin, end, power, u, folded, totals)
        else:
            measured = measures[segment]
        norm = np.float32(np.sqrt(measured)) if power == 2 else np.float32(measured)
        if norm > _LARGEST and measured < np.inf:
            norm = _LARGEST  # of finite entries; they are clipped there
        unit = norm / num_levels
        scale = norm * factors[segment if factors.size > 1 else 0]
        sent = scale / num_levels
        if begin >= first:
            scales[segment] = scale
        stop = min(end, last)
        while position < stop:
            start = position // 1024 * 1024
            if position == start:
                philox_pairs(k0, k1, start // 8, 0, coarse, 0, 128, 128)
            till = min(stop, start + 1024)
            size = till - position
            at = 0
            if at_hand:
                at = position - begin
            else:
                load(x, residual, decay, has_residual, False, position, u, size)
            there = position - start
            decided = round_part(
                u, at, size, unit, num_levels, sent, drawn, codes, there, has_residual, residual, out, position, spare
            )
            if not decided:
                fill_pairs(k0, k1, start // 8, 1, fine)
                rest, part = u[at : at + size], codes[there:]
                settle(rest, unit, num_levels, drawn[there:], fine.view(np.uint16)[there:], part)
                if has_residual:
                    _leave(rest, part, num_levels, sent, out[position:till])
            position = till
            if position == start + 1024 or position == last:
                # 1024 codes of any width are whole words.
                _pack(codes, position - start, width, words[start // 32 * width :])


@helper
def is_usual(unit: Any) -> Any:
    """Whether the inverse of a unit is as precise as any number."""
    always_inline()
    return unit > np.float32(2.0**-100) and unit < np.float32(2.0**100)


@helper
def round_block(
    u: Any, unit: Any, most: Any, sent: Any, coarse: Any, codes: Any, has_residual: bool, out: Any, position: int,
    spare: Any,
) -> Any:  # fmt: skip
    """Codes as the high 16 bits of the random numbers say, what they leave to ``out[position:]`` if that is wanted.

    False where those bits may not decide all entries. Up to 15 codes behind the last are written too; as many
    entries and random numbers are read, and ``spare`` has room for 16.
    """
    always_inline()
    return round_part(u, 0, u.size, unit, most, sent, coarse, codes, 0, has_residual, spare, out, position, spare)


@helper
def round_part(
    u: Any, at: int, size: int, unit: Any, most: Any, sent: Any, coarse: Any, codes: Any, there: int,
    has_residual: bool, residual: Any, out: Any, position: int, spare: Any,
) -> Any:  # fmt: skip
    """:func:`round_block` of ``u[at : at + size]``, whose random numbers and codes begin at ``there``.

    With ``remembers``, memory is asked for what ``residual`` holds a little behind ``position``.
    """
    always_inline()
    if not is_usual(unit):
        return False
    inverse = np.float32(1) / unit
    groups = size // 16
    whole = groups * 16
    if has_residual:
        ahead = position + AHEAD
        decided = round_groups_asking(
            u, at, groups, inverse, most, sent, coarse, codes, there, out, position, 16, residual, ahead
        )
    else:
        decided = round_groups(u, at, groups, inverse, most, sent, coarse, codes, there, spare, 0, 0)
    if whole < size:
        decided &= round_groups(u, at + whole, 1, inverse, most, sent, coarse, codes, there + whole, spare, 0, 0)
        if has_residual:
            for i in range(size - whole):
                out[position + whole + i] = spare[i]
    return decided


@helper
def settle(u: Any, unit: Any, most: Any, coarse: Any, fine: Any, codes: Any) -> None:
    """Codes as all bits of the random numbers say: one block in a hundred needs them, and units out of the usual."""
    zero = np.int32(most)
    inverse = np.float32(1) / unit
    usual = is_usual(unit)
    for i in range(u.size):
        magnitude = np.abs(u[i])
        ratio = magnitude * inverse if usual else magnitude / unit
        # Below the largest level the conversion to an integer is floor; at it, there is nothing to round. NaN is
        # put there too.
        ratio = ratio if ratio < most else most
        level = np.int32(ratio)
        excess = (ratio - np.float32(level)) * np.float32(65536) - np.float32(coarse[i])
        level += np.int32(np.float32(fine[i]) * np.float32(2.0**-16) < excess)
        level = level if unit > np.float32(0) else np.int32(0)
        codes[i] = zero + (-level if u[i] < np.float32(0) else level)


@helper
def _leave(u: Any, codes: Any, num_levels: Any, unit: Any, out: Any) -> None:
    """Write what the levels leave out."""
    prefer_wide_vectors()
    always_inline()
    zero = np.int32(num_levels)
    for i in range(u.size):
        out[i] = u[i] - unit * np.float32(np.int32(codes[i]) - zero)


@helper
def _pack(codes: Any, count: int, width: int, words: Any) -> None:
    """Pack the first ``count`` codes, of one byte each where the width is up to 8; clear those behind."""
    prefer_wide_vectors()
    always_inline()
    codes[count:] = 0
    if width == 2:
        packed = words.view(np.uint8)[: (count + 3) // 4]
        fours = codes.view(np.uint32)
        for j in range(packed.size):
            four = fours[j]
            packed[j] = np.uint8(four | (four >> np.uint32(6)) | (four >> np.uint32(12)) | (four >> np.uint32(18)))
    elif width == 4:
        packed = words.view(np.uint8)[: (count + 1) // 2]
        twos = codes.view(np.uint16)
        for j in range(packed.size):
            packed[j] = np.uint8(twos[j] | (twos[j] >> np.uint16(4)))
    elif width == 8:
        packed = words.view(np.uint8)[:count]
        for j in range(count):
            packed[j] = codes[j]
    else:
        pack_block(codes[:count], width, words)
