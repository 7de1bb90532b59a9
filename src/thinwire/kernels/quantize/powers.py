"""Rounding at random to signed powers of two times a scale, right on average up to the scale."""

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
from thinwire.kernels.jit.intrinsics import empty, first_from, seen_as, zeros
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.dither import dither_torch
from thinwire.kernels.quantize.dither_numba import is_usual
from thinwire.kernels.quantize.grid import ratios_torch
from thinwire.kernels.random.philox import check_stream, fill_pairs
from thinwire.kernels.reduce.block_norms import BLOCK

MOST_LEVELS = 127
"""Exponents that fit into one byte with a sign and zero; the least, ``2**-126``, is the least normal f32."""


def round_to_powers(x: Tensor, offsets: Tensor, scales: Tensor, num_levels: int, key: int) -> Tensor:
    """The code of 0 or of a power of two next to every entry, packed, as :class:`.PowersOfTwo` wants them.

    ``r_i = |x_i| * (1 / scale)``, at most 1, lies between two of ``0, 2**(1 - num_levels), ..., 1/2, 1``, and becomes
    the upper one with a probability that makes it right on average (``u_i`` below it, a multiple of ``2**-32``, number
    ``i`` of :func:`thinwire.kernels.quantize.dither.dither_torch`). The product is rounded to f32 (a scale below
    ``2**-100`` or above ``2**100`` divides), all else is exact.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        scales: f32 ``[s]``; where one is not above 0 all codes are 0.
        num_levels: 1 to 127.
        key: of the random numbers, in ``[0, 2**64)``.

    Returns:
        uint8 ``[ceil(d * width / 8)]`` as of :func:`thinwire.kernels.bitpack.bits.pack`, ``width`` the bits of ``2 *
        num_levels``: 0 for 0, ``l`` for ``2**(1 - l)``, ``num_levels + l`` for ``-2**(1 - l)``.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([0.0, 8.0, 4.0, -4.0])
        >>> round_to_powers(x, torch.tensor([0, 4]), torch.tensor([8.0]), 7, key=5).tolist()
        [16, 146]
    """
    _check(x, offsets, scales, num_levels, key)
    if not x.is_cpu:
        return body_for(round_to_powers_torch, x.device)(x, offsets, scales, num_levels, key)
    entries, ends = array_of(x), offsets_array(offsets, x.numel())
    width = (2 * num_levels).bit_length()
    num_bytes = num_packed_bytes(entries.size, width)
    words = np.empty((num_bytes + 3) // 4, np.uint32)
    seeds = (np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32))
    shared = (entries, ends, array_of(scales), np.uint32(num_levels), *seeds, width, words)
    run(_round_range, [(*shared, first, last) for first, last in shares(entries.size, BLOCK)])
    return tensor_of(words.view(np.uint8)[:num_bytes])


def round_to_powers_torch(x: Tensor, offsets: Tensor, scales: Tensor, num_levels: int, key: int) -> Tensor:
    """:func:`round_to_powers` in torch operations, on any device."""
    sizes = to_device(offsets, x.device).diff()
    ratio = ratios_torch(x.abs(), sizes, scales)
    ratio = torch.where(ratio < 1, ratio, torch.ones_like(ratio))
    bits = ratio.view(torch.int32)
    down = 128 - (bits >> 23)
    # The share of the way to the upper neighbour: the mantissa's fraction, or below the least power all of it.
    share = torch.where(
        down > num_levels, ratio * 2.0 ** (num_levels - 1), (bits & 0x7FFFFF).to(torch.float32) * 2.0**-23
    )
    coarse, fine = dither_torch(key, x.numel(), x.device)
    up = fine * 2.0**-16 < share * 2.0**16 - coarse
    level = down.clamp(max=num_levels + 1) - up.to(torch.int32)
    scale = scales.repeat_interleave(sizes, output_size=x.numel())
    code = torch.where(x < 0, level + num_levels, level)
    return pack_torch(torch.where((level > num_levels) | ~(scale > 0), 0, code), (2 * num_levels).bit_length())


def _check(x: Tensor, offsets: Tensor, scales: Tensor, num_levels: int, key: int) -> None:
    check_entries(x)
    if not 1 <= num_levels <= MOST_LEVELS:
        raise ConfigError(f"{num_levels} powers of two were asked for; 1 to {MOST_LEVELS} are possible")
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
    check_scales(scales, offsets)
    check_stream(key, 0, x.numel())


@kernel
def _round_range(
    x: Any, ends: Any, scales: Any, num_levels: Any, k0: Any, k1: Any, width: int, words: Any, first: int, last: int
) -> None:
    """The packed codes of entries ``first``, a multiple of 1024, to ``last``."""
    ratios = empty(1024, np.float32)
    coarse = empty(256, np.uint64)
    fine = empty(256, np.uint64)
    codes = zeros(1024, np.uint8)
    segment = first_from(ends, first + 1) - 1
    position = first
    while position < last:
        while ends[segment + 1] <= position:
            segment += 1
        stop = min(ends[segment + 1], last)
        scale = scales[segment]
        while position < stop:
            start = position // 1024 * 1024
            if position == start:
                fill_pairs(k0, k1, start // 8, 0, coarse)
            till = min(stop, start + 1024)
            there = position - start
            entries = x[position:till]
            ratio = ratios[: till - position]
            drawn = seen_as(coarse, np.uint16)[there : till - start]
            part = codes[there : till - start]
            if scale > np.float32(0):
                _divide(entries, scale, ratio)
                if not _round(entries, ratio, num_levels, drawn, part):
                    fill_pairs(k0, k1, start // 8, 1, fine)
                    _settle(entries, ratio, num_levels, drawn, seen_as(fine, np.uint16)[there:], part)
            else:
                part[:] = 0
            position = till
            if position == start + 1024 or position == last:
                # 1024 codes of any width are whole words.
                pack_block(codes[: position - start], width, words[start // 32 * width :])


@helper
def _divide(x: Any, scale: Any, ratio: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    one = np.float32(1)
    if is_usual(scale):
        inverse = one / scale
        for j in range(x.size):
            part = np.abs(x[j]) * inverse
            ratio[j] = part if part < one else one
    else:
        for j in range(x.size):
            part = np.abs(x[j]) / scale
            ratio[j] = part if part < one else one


@helper
def _round(x: Any, ratio: Any, num_levels: Any, coarse: Any, codes: Any) -> Any:
    """Codes as the high 16 bits of the random numbers say; False where those do not decide."""
    prefer_wide_vectors()
    always_inline()
    bits = seen_as(ratio, np.int32)
    negative = seen_as(x, np.int32)
    most = np.int32(num_levels)
    stretch = np.float32(2.0 ** (most - np.int32(1)))
    undecided = np.int32(0)
    for j in range(x.size):
        down = np.int32(np.int32(128) - (bits[j] >> np.int32(23)))
        fraction = np.float32(bits[j] & np.int32(0x7FFFFF)) * np.float32(2.0**-23)
        below = down > most
        share = ratio[j] * stretch if below else fraction
        excess = share * np.float32(65536) - np.float32(np.int32(coarse[j]))
        up = np.int32(excess > np.float32(0))
        undecided |= up & np.int32(excess < np.float32(1))
        level = np.int32((most + np.int32(1) if below else down) - up)
        signed = np.int32(level + (most & (negative[j] >> np.int32(31))))
        codes[j] = np.uint8(np.int32(0) if level > most else signed)
    return undecided == 0


@helper
def _settle(x: Any, ratio: Any, num_levels: Any, coarse: Any, fine: Any, codes: Any) -> None:
    """The same as all bits of the random numbers say."""
    bits = seen_as(ratio, np.int32)
    most = np.int32(num_levels)
    stretch = np.float32(2.0 ** (most - np.int32(1)))
    for j in range(x.size):
        down = 128 - (bits[j] >> 23)
        share = ratio[j] * stretch if down > most else np.float32(bits[j] & 0x7FFFFF) * np.float32(2.0**-23)
        excess = share * np.float32(65536) - np.float32(coarse[j])
        level = min(down, most + 1) - np.int32(np.float32(fine[j]) * np.float32(2.0**-16) < excess)
        codes[j] = 0 if level > most else level + (most if x[j] < np.float32(0) else 0)
