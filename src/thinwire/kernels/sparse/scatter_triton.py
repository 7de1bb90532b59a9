"""A few values onto their places in a long vector, on CUDA.

Indices that do not ascend strictly within the vector leave it unchanged, as on the CPU; but no error is raised, for
which the device would have to be waited for.
"""

import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.flat.order_triton import first_disorder
from thinwire.kernels.jit.launches import BLOCK, Argument, launch


def scatter_add(indices: Tensor, values: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """See :func:`thinwire.kernels.sparse.scatter.scatter_add_torch`; two passes over the indices."""
    _run(indices, values, out, factor, True)


def scatter_write(indices: Tensor, values: Tensor, out: Tensor) -> None:
    """See :func:`thinwire.kernels.sparse.scatter.scatter_write_torch`; two passes over the indices."""
    _run(indices, values, out, 1.0, False)


def _run(indices: Tensor, values: Tensor, out: Tensor, factor: float, kept: bool) -> None:
    indices = indices.contiguous()
    disorder = first_disorder(indices, out.numel())
    arguments: list[Argument] = [
        indices,
        values.detach().contiguous(),
        out,
        float(factor),
        disorder,
        indices.numel(),
    ]
    launch(_scatter, triton.cdiv(indices.numel(), BLOCK), arguments, {"KEPT": kept, "BLOCK": BLOCK})


@triton.jit
def _scatter(
    indices: tl.tensor, values: tl.tensor, out: tl.tensor, factor: tl.tensor, disorder: tl.tensor, count: tl.tensor,
    KEPT: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    # Nothing is inside if the indices are out of order.
    inside = places < tl.where(tl.load(disorder) == count, count, 0)
    index = tl.load(indices + places, mask=inside, other=0)
    value = tl.load(values + places, mask=inside, other=0.0)
    if KEPT:
        value = tl.load(out + index, mask=inside, other=0.0) + value * factor
    tl.store(out + index, value, mask=inside)
