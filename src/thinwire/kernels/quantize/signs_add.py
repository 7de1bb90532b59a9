"""Packed signs back onto a sum."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import unpack_torch
from thinwire.kernels.flat.checks import check_sum, offsets_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import first_from
from thinwire.kernels.jit.simd import LANES, add_sign_groups
from thinwire.kernels.jit.threads import run, shares


def add_signs(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """``out_i += factor * (-scales[s] if bit i is set else scales[s])`` for entry ``i`` of segment ``s``.

    The factor is rounded to f32 first, the product to f32 next, then the sum.

    Args:
        bits: uint8 ``[ceil(d / 8)]`` as :func:`thinwire.kernels.quantize.signs.sign_bits` makes them, or longer.
        scales: f32 ``[s]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        out: contiguous f32 ``[d]`` on the device of ``bits``; changed in place.
        factor: any number.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> out = torch.ones(3)
        >>> add_signs(torch.tensor([0b101], dtype=torch.uint8), torch.tensor([0.5]), torch.tensor([0, 3]), out)
        >>> out.tolist()
        [0.5, 1.5, 0.5]
    """
    _check(bits, scales, offsets, out)
    if not out.is_cpu:
        body_for(add_signs_torch, out.device)(bits, scales, offsets, out, factor)
        return
    _run(bits, scales, offsets, out, factor, True)


def add_signs_torch(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """:func:`add_signs` in torch operations, on any device."""
    sizes = to_device(offsets, out.device).diff()
    values = (scales * factor).repeat_interleave(sizes, output_size=out.numel())
    out.add_(torch.where(unpack_torch(bits, out.numel(), 1) != 0, -values, values))


def write_signs(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor) -> None:
    """``out_i = -scales[s] if bit i is set else scales[s]``: :func:`add_signs` that reads nothing of ``out``.

    Arguments and errors are those of :func:`add_signs`.

    Example:
        >>> out = torch.empty(3)
        >>> write_signs(torch.tensor([0b101], dtype=torch.uint8), torch.tensor([0.5]), torch.tensor([0, 3]), out)
        >>> out.tolist()
        [-0.5, 0.5, -0.5]
    """
    _check(bits, scales, offsets, out)
    if not out.is_cpu:
        body_for(write_signs_torch, out.device)(bits, scales, offsets, out)
        return
    _run(bits, scales, offsets, out, 1.0, False)


def write_signs_torch(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor) -> None:
    """:func:`write_signs` in torch operations, on any device."""
    # x + -0.0 is x for every x, -0.0 included.
    add_signs_torch(bits, scales, offsets, out.fill_(-0.0))


def _check(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor) -> None:
    check_sum(scales, offsets, out)
    check_bits(bits, out.numel())


def check_bits(bits: Tensor, count: int) -> None:
    """Raise :class:`ConfigError` unless these are the packed bits of so many signs, or more."""
    if bits.dtype != torch.uint8 or bits.dim() != 1 or 8 * bits.numel() < count:
        raise ConfigError(f"{count} signs take {(count + 7) // 8} bytes of uint8, got {tuple(bits.shape)}")


def _run(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float, kept: bool) -> None:
    shared = (
        array_of(bits),
        array_of(scales),
        offsets_array(offsets, out.numel()),
        array_of(out),
        np.float32(factor),
        kept,
    )
    run(add_sign_range, [(*shared, start, stop) for start, stop in shares(out.numel(), LANES)])


@kernel
def add_sign_range(
    bits: Any, scales: Any, offsets: Any, out: Any, factor: Any, kept: bool, start: int, stop: int
) -> None:
    """Entries ``start`` to ``stop``: signs are added where ``kept``, else written."""
    segment = first_from(offsets, start + 1) - 1
    position = start
    while position < stop:
        while offsets[segment + 1] <= position:
            segment += 1
        value = scales[segment] * factor
        end = min(stop, offsets[segment + 1])
        # Segments may begin and end inside a byte.
        first = min(end, (position + 7) // 8 * 8)
        groups = (end - first) // LANES
        _add_each(bits, value, kept, out, position, first)
        add_sign_groups(bits, first // 8, value, kept, out, first, groups)
        _add_each(bits, value, kept, out, first + groups * LANES, end)
        position = end


@helper
def _add_each(bits: Any, value: Any, kept: bool, out: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        signed = -value if (bits[i >> 3] >> (i & 7)) & 1 else value
        out[i] = out[i] + signed if kept else signed
