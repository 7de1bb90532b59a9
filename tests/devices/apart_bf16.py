"""Triton's rounding to bf16, in its interpreter, against the loop on the CPU and the twin in torch."""

import math

import pytest
import torch
from bits import LONG, on_device

from thinwire.kernels.quantize import bf16_triton
from thinwire.kernels.quantize.bf16 import round_to_bf16, round_to_bf16_torch

kernels = on_device(bf16_triton)


@pytest.mark.parametrize("key", [0, 1, 2**31 + 5, 2**64 - 1])
@pytest.mark.parametrize("numel", [0, 1, 7, 63, 64, 65, 1025, 4097, *LONG])
def test_the_same_bits(numel: int, key: int) -> None:
    generator = torch.Generator().manual_seed(numel)
    # Of all bits there are: denormals, infinities and every NaN among them.
    anything = torch.randint(-(2**31), 2**31, (numel,), generator=generator).to(torch.int32).view(torch.float32)
    usual = torch.randn(numel, generator=generator)
    usual[::5], usual[1::5] = -0.0, 1e-42
    edges = torch.tensor([3.3895e38, -3.4e38, math.inf, -math.inf, math.nan, 0.0])
    strange = torch.tensor([0x7F800001, -0x7FFFFF, 0x7F7F0000, 0x7F7EFFFF], dtype=torch.int32).view(torch.float32)
    for x in (anything, usual, torch.cat([edges, strange])[:numel]):
        found, loops, torchs = (torch.full(x.shape, 7.0, dtype=torch.bfloat16) for _ in range(3))
        assert kernels.round_to_bf16(x, key, found) is found
        round_to_bf16(x, key, loops)
        round_to_bf16_torch(x, key, torchs)
        assert torch.equal(found.view(torch.int16), loops.view(torch.int16))
        assert torch.equal(found.view(torch.int16), torchs.view(torch.int16))
