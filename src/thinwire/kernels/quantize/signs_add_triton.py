"""Packed signs back onto a sum, on CUDA."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.flat.segments_triton import cut_at, segments_of
from thinwire.kernels.jit.launches import BLOCK, launch


def add_signs(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """See :func:`thinwire.kernels.quantize.signs_add.add_signs_torch`; one pass."""
    _run(bits, scales, offsets, out, factor, True)


def write_signs(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor) -> None:
    """See :func:`thinwire.kernels.quantize.signs_add.write_signs_torch`; one pass that reads nothing of ``out``."""
    _run(bits, scales, offsets, out, 1.0, False)


def _run(bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float, kept: bool) -> None:
    if not out.numel():
        return
    cut = cut_at(offsets, out.device)
    arguments = [bits.contiguous(), scales.contiguous(), out, float(factor), *cut.arguments]
    constants = {"KEPT": kept, "UNIFORM": cut.is_uniform, "BLOCK": BLOCK}
    launch(_add_signs, triton.cdiv(out.numel(), BLOCK), arguments, constants)


@triton.jit
def _add_signs(
    bits: tl.tensor, scales: tl.tensor, out: tl.tensor, factor: tl.tensor, table: tl.tensor,
    num_segments: tl.tensor, size: tl.tensor, numel: tl.tensor,
    KEPT: tl.constexpr, UNIFORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * BLOCK
    places = start + tl.arange(0, BLOCK)
    inside = places < numel
    signed = signed_values(bits, scales, factor, table, num_segments, size, numel, start, UNIFORM, BLOCK)
    if KEPT:
        signed = tl.load(out + places, mask=inside, other=0.0) + signed
    tl.store(out + places, signed, mask=inside)


@triton.jit
def signed_values(
    bits: tl.tensor, scales: tl.tensor, factor: tl.tensor, table: tl.tensor, num_segments: tl.tensor,
    size: tl.tensor, numel: tl.tensor, start: tl.tensor,
    UNIFORM: tl.constexpr, BLOCK: tl.constexpr,
) -> Any:  # fmt: skip
    """``factor`` times the scale of its segment, minus where the bit is set, for ``BLOCK`` entries from ``start`` on.

    For other kernels too.
    """
    places = start + tl.arange(0, BLOCK)
    segments = segments_of(table, num_segments, size, numel, start, UNIFORM, BLOCK)
    values = tl.load(scales + segments) * factor
    octets = tl.load(bits + places // 8, mask=places < numel, other=0).to(tl.int32)
    is_set = (octets >> (places % 8).to(tl.int32)) & 1
    return tl.where(is_set != 0, -values, values)
