"""Whether indices ascend within a vector, on CUDA and unread: for kernels that write nothing unless they do."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.jit.launches import BLOCK, launch


def first_disorder(indices: Tensor, numel: int) -> Tensor:
    """The first place whose index is not above the one before or not in ``[0, numel)``; ``k`` if all are right.

    Args:
        indices: contiguous int64 ``[k]``.
        numel: entries of the vector.

    Returns:
        int64 ``[]`` on the device of the indices: a kernel looks at it where the host would have to wait.
    """
    first = torch.full((), indices.numel(), dtype=torch.int64, device=indices.device)
    programs = triton.cdiv(indices.numel(), BLOCK)
    launch(_first_disorder, programs, [indices, first, indices.numel(), numel], {"BLOCK": BLOCK})
    return first


@triton.jit
def _first_disorder(
    indices: tl.tensor, first: tl.tensor, count: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr
) -> None:
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    index = tl.load(indices + places, mask=inside, other=0)
    before = tl.load(indices + places - 1, mask=inside & (places > 0), other=-1)
    is_wrong = inside & ((index <= before) | (index < 0) | (index >= numel))
    found = tl.min(tl.where(is_wrong, places, count), 0)
    tl.atomic_min(first, found, mask=found < count)
