"""Rounding at random to a small number of levels, right on average, with or without error feedback."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import array_of, over, tensor_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_torch
from thinwire.kernels.flat.checks import check_entries, offsets_array
from thinwire.kernels.flat.finite import LARGEST
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.dither_numba import quantize_range
from thinwire.kernels.random.philox import check_stream, philox_blocks_torch
from thinwire.kernels.reduce.block_norms import BLOCK, Source, check_residual, measure_ahead
from thinwire.kernels.reduce.segment_sums import segment_max_torch, segment_sums_torch

Norm = Literal["l2", "max"]
_POWERS = {"l2": 2, "max": 0}


def quantize(
    x: Tensor, offsets: Tensor, num_levels: int, norm: Norm, key: int, shrink: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Signed level of every entry, packed, and the scale of each segment.

    With the norm ``n`` of a segment (the root of :func:`thinwire.kernels.reduce.segment_sums.segment_sums` rounded to
    f32, or the maximum), its ``unit = n / num_levels`` and ``r_i = |x_i| * (1 / unit)``, at most ``num_levels``, the
    level is ``sign(x_i) * (floor(r_i) + (u_i < r_i - floor(r_i)))``. Each operation is rounded to f32; a unit below
    ``2**-100`` or above ``2**100``, whose inverse would be imprecise, divides. ``u_i`` is a multiple of ``2**-32`` in
    ``[0, 1)``, number ``i`` of :func:`dither_torch`: the expected level is ``r_i`` within ``2**-32``.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse (it makes the scale NaN and every level of its segment 0).
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        num_levels: 1 to 32767.
        norm: ``"l2"`` or ``"max"``; a segment whose norm is not above 0 has levels 0.
        key: of the random numbers, in ``[0, 2**64)``.
        shrink: f32, one factor for all scales or one for each segment; the levels do not depend on it.

    Returns:
        The codes ``level + num_levels``, uint8 ``[ceil(d * width / 8)]`` as of
        :func:`thinwire.kernels.bitpack.bits.pack`, ``width`` the bits of ``2 * num_levels``; and the scales, f32
        ``[s]``: norm times factor.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([0.0, 1.0, -2.0, 3.0])
        >>> codes, scales = quantize(x, torch.tensor([0, 4]), 3, "max", key=5)  # codes 3, 4, 1, 6
        >>> codes.tolist(), scales.tolist()
        ([99, 12], [3.0])
    """
    ends = _check(x, offsets, num_levels, norm, key, shrink)
    if not x.is_cpu:
        return body_for(quantize_torch, x.device)(x, offsets, num_levels, norm, key, shrink)
    entries = array_of(x)
    return _run((entries, entries, np.float32(1), False), entries, ends, num_levels, norm, key, shrink)


def accumulate_quantize(
    x: Tensor,
    residual: Tensor,
    decay: float,
    out: Tensor,
    offsets: Tensor,
    num_levels: int,
    norm: Norm,
    key: int,
    shrink: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`quantize` of ``u = decay * residual + x``; what the message leaves out of ``u`` is written to ``out``.

    The factor is rounded to f32 first, the product next, then the sum.
    ``out_i = u_i - level_i * (scale / num_levels)``, each operation rounded to f32, as
    :func:`thinwire.kernels.quantize.levels_add.add_levels` with a factor of -1 does.

    Args:
        x: as for :func:`quantize`, and so are the others.
        residual: contiguous f32 ``[d]``.
        decay: factor on the residual.
        out: contiguous f32 ``[d]``, written; may be ``x`` or ``residual``.
        offsets: as there.
        num_levels: as there.
        norm: as there.
        key: as there.
        shrink: as there.

    Raises:
        ConfigError: as :func:`quantize`, or vectors that do not fit one another.

    Example:
        >>> x, residual = torch.tensor([0.0, 1.0, -2.0, 3.0]), torch.tensor([0.0, 0.0, 2.0, 0.0])
        >>> codes, scales = accumulate_quantize(x, residual, 0.5, residual, torch.tensor([0, 4]), 3, "max", key=5)
        >>> residual.tolist(), scales.tolist()
        ([0.0, 0.0, 0.0, 0.0], [3.0])
    """
    ends = _check(x, offsets, num_levels, norm, key, shrink)
    check_residual(x, residual, out)
    if not x.is_cpu:
        return body_for(accumulate_quantize_torch, x.device)(
            x, residual, decay, out, offsets, num_levels, norm, key, shrink
        )
    source = (array_of(x), array_of(residual), np.float32(decay), True)
    return _run(source, array_of(out), ends, num_levels, norm, key, shrink)


def _run(
    source: Source,
    out: "np.ndarray[Any, Any]",
    ends: "np.ndarray[Any, Any]",
    num_levels: int,
    norm: Norm,
    key: int,
    shrink: Tensor | None,
) -> tuple[Tensor, Tensor]:
    width = (2 * num_levels).bit_length()
    num_bytes = num_packed_bytes(out.size, width)
    words = arrays.empty_array((num_bytes + 3) // 4, np.uint32)
    # Zeros for the empty segments.
    scales = np.zeros(ends.size - 1, np.float32)
    measures = np.empty(ends.size - 1, np.float64)
    factors = np.ones(1, np.float32) if shrink is None else array_of(shrink)
    ranges = shares(out.size, BLOCK)
    measure_ahead(source, ends, _POWERS[norm], ranges, measures)
    shared = (*source, out, ends, _POWERS[norm], measures, np.float32(num_levels), factors)
    seeds = (np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32))
    # One byte a code where that is enough; the compiler makes a kernel of each kind.
    kind = np.uint8 if width <= 8 else np.uint16
    run(
        quantize_range,
        [(*shared, *seeds, np.empty(BLOCK + 16, kind), width, words, scales, first, last) for first, last in ranges],
    )
    return tensor_of(words.view(np.uint8)[:num_bytes]), tensor_of(scales)


def quantize_torch(
    x: Tensor, offsets: Tensor, num_levels: int, norm: Norm, key: int, shrink: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:func:`quantize` in torch operations, on any device."""
    levels, scales = _levels_torch(x, offsets, num_levels, norm, key, shrink)
    return pack_torch(levels + num_levels, (2 * num_levels).bit_length()), scales


def accumulate_quantize_torch(
    x: Tensor,
    residual: Tensor,
    decay: float,
    out: Tensor,
    offsets: Tensor,
    num_levels: int,
    norm: Norm,
    key: int,
    shrink: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`accumulate_quantize` in torch operations, on any device."""
    u = residual * decay + x
    levels, scales = _levels_torch(u, offsets, num_levels, norm, key, shrink)
    sizes = to_device(offsets, x.device).diff()
    unit = over(scales, num_levels).repeat_interleave(sizes, output_size=x.numel())
    torch.sub(u, unit * levels, out=out)
    return pack_torch(levels + num_levels, (2 * num_levels).bit_length()), scales


def _levels_torch(
    u: Tensor, offsets: Tensor, num_levels: int, norm: Norm, key: int, shrink: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The signed levels as int32, and the scales."""
    measures = segment_max_torch(u, offsets) if norm == "max" else segment_sums_torch(u, offsets, 2).sqrt()
    norms = torch.where(torch.isfinite(measures), measures.clamp(max=LARGEST), measures).to(torch.float32)
    units = over(norms, num_levels)
    inverses = 1 / units
    usual = (units > 2.0**-100) & (units < 2.0**100)
    sizes = to_device(offsets, u.device).diff()
    unit, inverse, is_usual = (
        each.repeat_interleave(sizes, output_size=u.numel()) for each in (units, inverses, usual)
    )
    ratio = torch.where(is_usual, u.abs() * inverse, u.abs() / unit)
    # Written so that a NaN ends at num_levels, as in the kernel.
    ratio = torch.where(ratio < num_levels, ratio, torch.full_like(ratio, num_levels))
    floor = ratio.floor()
    coarse, fine = dither_torch(key, u.numel(), u.device)
    rounded_up = fine * 2.0**-16 < (ratio - floor) * 2.0**16 - coarse
    level = torch.where(unit > 0, floor + rounded_up, torch.zeros_like(floor))
    scales = norms if shrink is None else norms * to_device(shrink, u.device)
    return torch.where(u < 0, -level, level).to(torch.int32), scales


def dither_torch(key: int, count: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """The high and the low 16 bits of the first numbers ``u_i * 2**32`` of a stream: f32 ``[count]`` each, all exact.

    A block of Philox makes eight of either kind; the counter of the low bits has 1 in its highest word. Entries
    ``1024 g`` to ``1024 g + 1023`` take blocks ``128 g`` to ``128 g + 127``: the first half of them the halves, the
    lower one first, of words 1 and 0 of each block, the second half those of words 3 and 2.

    Example:
        >>> high, low = dither_torch(key=5, count=3000)
        >>> high.shape, bool(high.max() < 2**16)
        (torch.Size([3000]), True)
    """
    num_groups = -(-count // BLOCK)
    blocks = torch.arange(num_groups * 128, dtype=torch.int64, device=device)
    both = []
    for stage in (0, 1):
        counter = (blocks & 0xFFFFFFFF, blocks >> 32, torch.zeros_like(blocks), torch.full_like(blocks, stage))
        w0, w1, w2, w3 = philox_blocks_torch(counter, key)
        words = torch.stack([w1, w0, w3, w2], 1).view(num_groups, 128, 2, 2).transpose(1, 2)
        halves = torch.stack([words & 0xFFFF, words >> 16], -1).reshape(-1)
        both.append(halves[:count].to(torch.float32))
    return both[0], both[1]


def _check(
    x: Tensor, offsets: Tensor, num_levels: int, norm: Norm, key: int, shrink: Tensor | None
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    check_entries(x)
    if not 1 <= num_levels <= 32767:
        raise ConfigError(f"{num_levels} levels were asked for; 1 to 32767 are possible")
    if norm not in _POWERS:
        raise ConfigError(f"norm {norm!r} is not known; 'l2' and 'max' are")
    ends = offsets_array(offsets, x.numel())
    if shrink is not None and (shrink.dtype != torch.float32 or shrink.shape not in ((1,), (ends.size - 1,))):
        raise ConfigError(
            f"{ends.size - 1} segments need one float32 factor or as many, got {shrink.dtype} of shape "
            f"{tuple(shrink.shape)}"
        )
    check_stream(key, 0, x.numel())
    return ends
