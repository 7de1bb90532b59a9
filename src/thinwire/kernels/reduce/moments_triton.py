"""Mean, squares and largest magnitude of each segment, on CUDA."""

import torch
from torch import Tensor

from thinwire.kernels.reduce.extents_triton import measure_sides
from thinwire.kernels.reduce.moments import Moments


def segment_moments(x: Tensor, offsets: Tensor) -> Moments:
    """See :func:`thinwire.kernels.reduce.moments.segment_moments_torch`; one pass over ``x``."""
    sums, largest = measure_sides(x, offsets, True)
    return Moments(sums[0] - sums[1], sums[2], largest.to(torch.int32).view(torch.float32))
