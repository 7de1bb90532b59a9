"""Where the first entry is that is not finite, on CUDA."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.jit.launches import BLOCK, launch


def first_nonfinite(x: Tensor) -> Tensor:
    """See :func:`thinwire.kernels.flat.finite.first_nonfinite_torch`."""
    first = torch.full((), x.numel(), dtype=torch.int64, device=x.device)
    launch(_first_nonfinite, triton.cdiv(x.numel(), BLOCK), [x, first, x.numel()], {"BLOCK": BLOCK})
    return first


@triton.jit
def _first_nonfinite(x: tl.tensor, first: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr) -> None:
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < numel
    bits = tl.load(x + places, mask=inside, other=0.0).to(tl.uint32, bitcast=True) & 0x7FFFFFFF
    # The smallest of whole numbers is the same in any order.
    found = tl.min(tl.where(inside & (bits >= 0x7F800000), places, numel), 0)
    tl.atomic_min(first, found, mask=found < numel)
