"""Exact top-k by magnitude, in every segment of a vector at once, on CUDA."""

from torch import Tensor

from thinwire.kernels.select.parallel_triton import select_all


def top_k(x: Tensor, offsets: Tensor, counts: Tensor) -> Tensor:
    """See :func:`thinwire.kernels.select.top_k.top_k_torch`.

    One pass over memory for a segment of at most 4,096 entries, else two; seven where more than an eighth of a
    segment is wanted, or a sample of it misled.
    """
    entries = x.contiguous()
    return select_all(entries, entries, 1.0, False, entries, offsets, counts)[0]
