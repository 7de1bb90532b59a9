"""The signs of numbers as packed bits, and with the mean magnitude of each segment."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.bitpack.bits import pack_torch
from thinwire.kernels.flat.checks import check_entries, offsets_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, borrowed
from thinwire.kernels.jit.intrinsics import first_from
from thinwire.kernels.jit.simd import LANES
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.signs_simd import sign_groups, sign_groups_leaving
from thinwire.kernels.reduce.block_norms import (
    BLOCK,
    Source,
    check_residual,
    fits_in_cache,
    load,
    measure,
    measure_ahead,
    scratch,
)
from thinwire.kernels.reduce.segment_sums import segment_sums_torch


def sign_bits(x: Tensor) -> Tensor:
    """One bit an entry, set where ``x_i < 0``; the layout of :func:`thinwire.kernels.bitpack.bits.pack` with width 1.

    Args:
        x: f32 ``[d]``; zero of either sign and NaN count as not negative.

    Returns:
        uint8 ``[ceil(d / 8)]`` on the device of ``x``, unused bits zero.

    Raises:
        ConfigError: not a vector of float32.

    Example:
        >>> sign_bits(torch.tensor([-1.0, 2.0, -0.5, -0.0])).tolist()
        [5]
    """
    check_entries(x)
    if not x.is_cpu:
        return body_for(sign_bits_torch, x.device)(x)
    bits = arrays.empty_array((x.numel() + 7) // 8, np.uint8)
    _sign_bits(array_of(x), bits)
    return tensor_of(bits)


def sign_bits_torch(x: Tensor) -> Tensor:
    """:func:`sign_bits` in torch operations, on any device."""
    return pack_torch((x < 0).to(torch.uint8), 1)


def mean_signs(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`sign_bits` and the mean magnitude of each segment.

    Args:
        x: f32 ``[d]``; NaN makes the mean of its segment NaN.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.

    Returns:
        The bits, uint8 ``[ceil(d / 8)]``, and the means, f32 ``[s]``:
        :func:`thinwire.kernels.reduce.segment_sums.segment_sums` divided by the size in f64, rounded to f32; 0 for an
        empty segment.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> bits, means = mean_signs(torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([0, 2, 3]))
        >>> bits.tolist(), means.tolist()
        ([1], [1.5, 0.5])
    """
    check_entries(x)
    ends = offsets_array(offsets, x.numel())
    if not x.is_cpu:
        return body_for(mean_signs_torch, x.device)(x, offsets)
    entries = array_of(x)
    return _run((entries, entries, np.float32(1), False), entries, ends)


def mean_signs_torch(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`mean_signs` in torch operations, on any device."""
    sizes = to_device(offsets, x.device).diff().clamp_(min=1)
    return sign_bits_torch(x), (segment_sums_torch(x, offsets, 1) / sizes).to(torch.float32)


def accumulate_signs(x: Tensor, residual: Tensor, decay: float, out: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`mean_signs` of ``u = decay * residual + x``; what the message leaves out of ``u`` is written to ``out``.

    The factor is rounded to f32 first, the product next, then the sum, then ``out_i = u_i - mean``
    (``u_i + mean`` where ``u_i < 0``).

    Args:
        x: f32 ``[d]``.
        residual: contiguous f32 ``[d]``.
        decay: factor on the residual.
        out: contiguous f32 ``[d]``, written; may be ``x`` or ``residual``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.

    Returns:
        As :func:`mean_signs`.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> x, residual = torch.tensor([-1.0, 2.0]), torch.tensor([0.0, 1.0])
        >>> bits, means = accumulate_signs(x, residual, 1.0, residual, torch.tensor([0, 2]))
        >>> bits.tolist(), means.tolist(), residual.tolist()
        ([1], [2.0], [1.0, 1.0])
    """
    check_entries(x)
    check_residual(x, residual, out)
    ends = offsets_array(offsets, x.numel())
    if not x.is_cpu:
        return body_for(accumulate_signs_torch, x.device)(x, residual, decay, out, offsets)
    return _run((array_of(x), array_of(residual), np.float32(decay), True), array_of(out), ends)


def accumulate_signs_torch(
    x: Tensor, residual: Tensor, decay: float, out: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`accumulate_signs` in torch operations, on any device."""
    u = residual * decay + x
    bits, means = mean_signs_torch(u, offsets)
    mean = means.repeat_interleave(to_device(offsets, x.device).diff(), output_size=x.numel())
    torch.sub(u, torch.where(u < 0, -mean, mean), out=out)
    return bits, means


def _run(source: Source, out: "np.ndarray[Any, Any]", ends: "np.ndarray[Any, Any]") -> tuple[Tensor, Tensor]:
    bits = arrays.empty_array((out.size + 7) // 8, np.uint8)
    # Zeros for the empty segments.
    scales = np.zeros(ends.size - 1, np.float32)
    measures = np.empty(ends.size - 1, np.float64)
    ranges = shares(out.size, BLOCK)
    measure_ahead(source, ends, 1, ranges, measures)
    run(_sign_part, [(*source, out, ends, measures, bits, scales, first, last) for first, last in ranges])
    return tensor_of(bits), tensor_of(scales)


@kernel
def _sign_bits(x: Any, bits: Any) -> None:
    groups = x.size // LANES
    sign_groups(x, 0, groups, bits, 0)
    for i in range(groups * LANES, x.size):
        _put_bit(x[i], bits, i)


def _sign_part(*arguments: Any) -> None:
    _sign_range(*arguments, *scratch())


@kernel
def _sign_range(
    x: Any, residual: Any, decay: Any, has_residual: bool, out: Any, ends: Any, measures: Any, bits: Any, scales: Any,
    first: int, last: int, u: Any, folded: Any, totals: Any,
) -> None:  # fmt: skip
    """Bits and scales of entries ``first``, a multiple of 1024, to ``last``; as ``_quantize_range`` in dither_numba."""
    x, residual, out, bits = borrowed(x), borrowed(residual), borrowed(out), borrowed(bits)
    u, folded, totals = borrowed(u), borrowed(folded), borrowed(totals)
    segment = first_from(ends, first + 1) - 1
    position = first
    while position < last:
        while ends[segment + 1] <= position:
            segment += 1
        begin = ends[segment]
        end = ends[segment + 1]
        at_hand = False
        if fits_in_cache(begin, end, first, last):
            measured = measure(x, residual, decay, has_residual, begin, end, 1, u, folded, totals)
            at_hand = end - begin <= 1024
        else:
            measured = measures[segment]
        scale = np.float32(measured / np.float64(end - begin))
        if begin >= first:
            scales[segment] = scale
        stop = min(end, last)
        while position < stop:
            till = min(stop, position // 1024 * 1024 + 1024)
            at = 0
            if at_hand:
                at = position - begin
            else:
                load(x, residual, decay, has_residual, True, position, u, till - position)
            # Segments may begin and end inside a byte.
            whole = min(till, (position + 7) // 8 * 8)
            groups = (till - whole) // LANES
            rest = whole + groups * LANES
            _sign_each(u, at, whole - position, scale, has_residual, bits, out, position)
            if has_residual:
                sign_groups_leaving(u, at + whole - position, groups, bits, whole // 8, scale, out, whole)
            else:
                sign_groups(u, at + whole - position, groups, bits, whole // 8)
            _sign_each(u, at + rest - position, till - rest, scale, has_residual, bits, out, rest)
            position = till


@helper
def _sign_each(u: Any, at: int, count: int, scale: Any, has_residual: bool, bits: Any, out: Any, position: int) -> None:
    """The same for a few entries, ``out[position:]`` and its bits."""
    always_inline()
    for j in range(count):
        entry = u[at + j]
        _put_bit(entry, bits, position + j)
        if has_residual:
            out[position + j] = entry - (-scale if entry < np.float32(0) else scale)


@helper
def _put_bit(entry: Any, bits: Any, place: int) -> None:
    """In the order of the places: the first bit of a byte clears the others."""
    always_inline()
    bit = np.uint8(entry < np.float32(0)) << np.uint8(place & 7)
    bits[place >> 3] = bit if place & 7 == 0 else bits[place >> 3] | bit
