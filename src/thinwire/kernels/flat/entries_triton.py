"""Entries of a vector, or of its sum with a decayed residual, on CUDA. For other kernels."""

from typing import Any

import triton
import triton.language as tl


@triton.jit
def load_entries(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, places: tl.tensor, inside: tl.tensor, REMEMBERS: tl.constexpr
) -> Any:
    """``decay * residual + x``, the product rounded, or ``x`` alone; zeros where not ``inside``."""
    u = tl.load(x + places, mask=inside, other=0.0)
    if REMEMBERS:
        u = tl.load(residual + places, mask=inside, other=0.0) * decay + u
    return u
