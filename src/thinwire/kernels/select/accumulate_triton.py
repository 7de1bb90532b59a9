"""Add a vector to a decayed residual, and take some entries of the sum, on CUDA."""

import triton
from torch import Tensor

from thinwire.kernels.jit.launches import BLOCK, launch
from thinwire.kernels.select.parallel_triton import select_all
from thinwire.kernels.select.short_triton import add


def accumulate_top_k(
    x: Tensor, residual: Tensor, decay: float, out: Tensor, offsets: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`thinwire.kernels.select.accumulate.accumulate_top_k_torch`.

    One pass over memory for a segment of at most 4,096 entries, else two: one that adds, one that reads the sum. Seven
    where more than an eighth of a segment is wanted, or a sample of it misled.
    """
    return select_all(x, residual, decay, True, out, offsets, counts)


def accumulate_take(x: Tensor, residual: Tensor, decay: float, out: Tensor, indices: Tensor) -> Tensor:
    """See :func:`thinwire.kernels.select.accumulate.accumulate_take_torch`. One pass, and a gather."""
    programs, numel = triton.cdiv(out.numel(), BLOCK), out.numel()
    launch(add, programs, [x.contiguous(), residual.contiguous(), float(decay), out, numel], {"BLOCK": BLOCK})
    return out[indices]
