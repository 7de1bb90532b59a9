"""Triton's Hadamard transform, in its interpreter, against the loops on the CPU and the twin in torch."""

import math

import pytest
import torch
from bits import LONG, on_device, same_bits
from torch import Tensor

from thinwire.kernels.transform import hadamard, hadamard_triton

kernels = on_device(hadamard_triton)


def entries(numel: int) -> Tensor:
    x = torch.randn(numel, generator=torch.Generator().manual_seed(numel))
    x[::7], x[1::7], x[2::11], x[3::11] = 0.0, -0.0, 1e-42, -2.5
    return x


def equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("block", [None, 1, 64, 4096])
@pytest.mark.parametrize("numel", [0, 1, 63, 64, 65, 4096, 4097, 12_365, *LONG])
def test_rotated(numel: int, block: int | None, inverse: bool) -> None:
    x = entries(numel)
    key, rounds = (2**64 - 5, 2) if block is None else (7, 1)
    found = kernels.hadamard_rotate(x, key, rounds, inverse=inverse, block=block)
    assert equal(found, hadamard.hadamard_rotate(x, key, rounds, inverse=inverse, block=block))
    assert equal(found, hadamard.hadamard_rotate_torch(x, key, rounds, inverse=inverse, block=block))
    assert equal(x, entries(numel))


# The interpreter calculates by numpy, which warns of inf - inf.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("block", [None, 64, 4096])
@pytest.mark.parametrize("numel", [1, 65, 4097, 12_365])
def test_what_is_not_finite(numel: int, block: int | None, inverse: bool) -> None:
    for places in ([0], [numel // 2], [numel - 1, numel // 3]):
        for strange in (math.nan, -math.inf):
            x = entries(numel)
            x[places] = strange
            found = kernels.hadamard_rotate(x, 7, inverse=inverse, block=block)
            assert same_bits(found, hadamard.hadamard_rotate(x, 7, inverse=inverse, block=block))
            assert same_bits(found, hadamard.hadamard_rotate_torch(x, 7, inverse=inverse, block=block))
            assert not bool(found.isfinite().all())


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("numel", "block"), [(511, None), (4096 + 2048 + 65, None), (5000, 2048)])
def test_passes_over_rows(numel: int, block: int | None, inverse: bool) -> None:
    """By tiles of 256 entries, so that a short vector takes two or three passes."""
    x = entries(numel)
    found = kernels.rotate_by_tiles(x, 11, 1, inverse, block, 8)
    assert equal(found, hadamard.hadamard_rotate(x, 11, inverse=inverse, block=block))
    assert equal(found, hadamard.hadamard_rotate_torch(x, 11, inverse=inverse, block=block))
