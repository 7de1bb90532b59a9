"""How results of Triton's interpreter are compared with the CPU's."""

import torch
from torch import Tensor

_WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}


def same_bits(one: Tensor, other: Tensor) -> bool:
    """By bits, and of one format and shape; NaN is NaN whatever its bits."""
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    if not one.is_floating_point():
        return torch.equal(one, other)
    both, whole = one.isnan() & other.isnan(), _WHOLE[one.dtype]
    return torch.equal(
        one.contiguous().view(whole).masked_fill(both, 0), other.contiguous().view(whole).masked_fill(both, 0)
    )
