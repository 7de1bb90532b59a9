"""Triton's kernels that put values onto their places, in its interpreter, against the CPU's loops and the twins."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bits import LONG, on_device
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.sparse import scatter, scatter_signs, scatter_signs_triton, scatter_triton

kernels = on_device(scatter_triton, scatter_signs_triton)

SIZES = [(0, 0), (0, 5), (1, 1), (1, 4097), (63, 64), (64, 64), (65, 4097), (1500, 4097), (4097, 4097)]
SIZES += [(length // 100, length) for length in LONG]

INFINITE = 1
"""The seed of numbers that have inf among them: of both addends, numpy would warn of their difference. All have NaN."""


def places(count: int, numel: int) -> Tensor:
    generator = torch.Generator().manual_seed(count + numel)
    return torch.randperm(numel, generator=generator)[:count].sort().values


def entries(numel: int, seed: int) -> Tensor:
    x = torch.randn(numel, generator=torch.Generator().manual_seed(seed + numel))
    x[::7], x[1::7], x[2::11], x[3::11] = 0.0, -0.0, 1e-42, -2.5
    x[5::89] = math.nan
    if seed == INFINITE:
        x[4::97] = math.inf
    return x


def same_bits(bodies: tuple[Any, ...], numel: int, call: Callable[[Any, Tensor], None]) -> bool:
    results = [entries(numel, 9) for _ in bodies]
    for body, out in zip(bodies, results, strict=True):
        call(body, out)
    results = [torch.nan_to_num(out, nan=7.0, posinf=math.inf, neginf=-math.inf) for out in results]
    return all(torch.equal(results[0].view(torch.int32), out.view(torch.int32)) for out in results[1:])


@pytest.mark.parametrize("factor", [1.0, -0.3])
@pytest.mark.parametrize(("count", "numel"), SIZES)
def test_values(count: int, numel: int, factor: float) -> None:
    indices, values = places(count, numel), entries(count, INFINITE)
    adds = (kernels.scatter_add, scatter.scatter_add, scatter.scatter_add_torch)
    assert same_bits(adds, numel, lambda add, out: add(indices, values, out, factor))
    writes = (kernels.scatter_write, scatter.scatter_write, scatter.scatter_write_torch)
    assert same_bits(writes, numel, lambda write, out: write(indices, values, out))


@pytest.mark.parametrize("cut", ["one", "even", "uneven", "single"])
@pytest.mark.parametrize(("count", "numel"), SIZES)
def test_signs(count: int, numel: int, cut: str) -> None:
    offsets = {
        "one": torch.tensor([0, count]),
        "even": torch.arange(0, count + 7, 7).clamp_(max=count),
        "uneven": torch.tensor([0, 0, count // 3, count // 3, count // 2, count]),
        "single": torch.arange(count + 1),
    }[cut]
    indices, scales = places(count, numel), entries(offsets.numel() - 1, INFINITE)
    bits = torch.randint(0, 256, (count // 8 + 2,), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    adds = (
        kernels.scatter_add_signs,
        scatter_signs.scatter_add_signs,
        scatter_signs.scatter_add_signs_torch,
    )
    assert same_bits(adds, numel, lambda add, out: add(indices, bits, scales, offsets, out, -0.7))


@pytest.mark.parametrize("wrong", [[1, 1], [2, 1], [-1, 2], [3, 10], [*range(9), 8], [1 << 40]])
def test_what_is_out_of_order_writes_nothing(wrong: list[int]) -> None:
    indices, values, before = torch.tensor(wrong), torch.ones(len(wrong)), entries(10, 3)
    with pytest.raises(ConfigError):
        scatter.scatter_add(indices, values, before.clone())
    out = before.clone()
    kernels.scatter_add(indices, values, out)
    kernels.scatter_write(indices, values, out)
    bits, offsets = torch.zeros(2, dtype=torch.uint8), torch.tensor([0, len(wrong)])
    kernels.scatter_add_signs(indices, bits, torch.ones(1), offsets, out)
    assert torch.equal(out.view(torch.int32), before.view(torch.int32))
