"""Triton's kernels that look for what is not finite, in its interpreter, against the twin in torch."""

import math

import pytest
import torch
from bits import LONG, on_device

from thinwire.kernels.flat import finite_triton
from thinwire.kernels.flat.finite import first_nonfinite_torch

kernels = on_device(finite_triton)


@pytest.mark.parametrize("numel", [0, 1, 63, 64, 65, 4097, *LONG])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_the_first_is_found(numel: int, bad: float) -> None:
    x = torch.randn(numel, generator=torch.Generator().manual_seed(numel)) * 3e38
    x.clamp_(-3.4e38, 3.4e38)
    x[:1] = 1e-42  # denormal
    assert kernels.first_nonfinite(x).item() == numel
    for places in ([numel - 1], [0, numel - 1], [numel // 2, numel - 1]) if numel else []:
        y = x.clone()
        y[places] = bad
        assert torch.equal(kernels.first_nonfinite(y), first_nonfinite_torch(y))
        assert kernels.first_nonfinite(y).item() == places[0]
