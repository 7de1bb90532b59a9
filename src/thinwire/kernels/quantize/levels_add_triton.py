"""Packed levels back onto a sum, on CUDA."""

import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.bitpack.bits_triton import load_packed
from thinwire.kernels.flat.segments_triton import cut_at, segments_of
from thinwire.kernels.jit.launches import BLOCK, launch


def add_levels(
    codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """See :func:`thinwire.kernels.quantize.levels_add.add_levels_torch`; one pass over codes and sum."""
    _run(codes, width, num_levels, units, offsets, out, factor, True)


def write_levels(codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor) -> None:
    """See :func:`thinwire.kernels.quantize.levels_add.write_levels_torch`; one pass over codes and result."""
    _run(codes, width, num_levels, units, offsets, out, 1.0, False)


def _run(
    codes: Tensor, width: int, num_levels: int, units: Tensor, offsets: Tensor, out: Tensor, factor: float, kept: bool
) -> None:
    cut = cut_at(offsets, out.device)
    arguments = [codes.contiguous(), num_levels, units.contiguous(), *cut.arguments, out, float(factor)]
    constants = {"KEPT": kept, "WIDTH": width, "UNIFORM": cut.is_uniform, "BLOCK": BLOCK}
    launch(_add, triton.cdiv(out.numel(), BLOCK), arguments, constants)


@triton.jit(do_not_specialize=["num_levels"])
def _add(
    codes: tl.tensor, num_levels: tl.tensor, units: tl.tensor, table: tl.tensor, num_segments: tl.tensor,
    size: tl.tensor, numel: tl.tensor, out: tl.tensor, factor: tl.tensor,
    KEPT: tl.constexpr, WIDTH: tl.constexpr, UNIFORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BLOCK
    places = first + tl.arange(0, BLOCK)
    inside = places < numel
    levels = (load_packed(codes, places, numel, WIDTH) - num_levels).to(tl.float32)
    segments = segments_of(table, num_segments, size, numel, first, UNIFORM, BLOCK)
    values = tl.load(units + segments) * levels * factor
    if KEPT:
        values = tl.load(out + places, mask=inside, other=0.0) + values
    tl.store(out + places, values, mask=inside)
