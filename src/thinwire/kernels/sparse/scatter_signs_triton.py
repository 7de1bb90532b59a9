"""Packed signs onto their places in a long vector, on CUDA."""

import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.flat.order_triton import first_disorder
from thinwire.kernels.flat.segments_triton import cut_at
from thinwire.kernels.jit.launches import BLOCK, Argument, launch
from thinwire.kernels.quantize.signs_add_triton import signed_values


def scatter_add_signs(
    indices: Tensor, bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """See :func:`thinwire.kernels.sparse.scatter_signs.scatter_add_signs_torch`; two passes over the indices.

    Indices that do not ascend strictly within ``out`` leave it unchanged and raise nothing: that would wait.
    """
    if not indices.numel():
        return
    indices, cut = indices.contiguous(), cut_at(offsets, out.device)
    disorder = first_disorder(indices, out.numel())
    arguments: list[Argument] = [
        indices,
        bits.contiguous(),
        scales.contiguous(),
        out,
        float(factor),
        disorder,
        *cut.arguments,
    ]
    constants = {"UNIFORM": cut.is_uniform, "BLOCK": BLOCK}
    launch(_add_signs, triton.cdiv(indices.numel(), BLOCK), arguments, constants)


@triton.jit
def _add_signs(
    indices: tl.tensor, bits: tl.tensor, scales: tl.tensor, out: tl.tensor, factor: tl.tensor, disorder: tl.tensor,
    table: tl.tensor, num_segments: tl.tensor, size: tl.tensor, count: tl.tensor,
    UNIFORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * BLOCK
    places = start + tl.arange(0, BLOCK)
    # Nothing is inside if the indices are out of order.
    inside = places < tl.where(tl.load(disorder) == count, count, 0)
    index = tl.load(indices + places, mask=inside, other=0)
    value = signed_values(bits, scales, factor, table, num_segments, size, count, start, UNIFORM, BLOCK)
    tl.store(out + index, tl.load(out + index, mask=inside, other=0.0) + value, mask=inside)
