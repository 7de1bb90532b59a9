"""Triton's kernels for signs, in its interpreter, against the loops on the CPU and the twins in torch."""

import math

import pytest
import torch
from bits import LONG, on_device, same_bits
from torch import Tensor

from thinwire.kernels.quantize import signs, signs_add, signs_add_triton, signs_triton

kernels = on_device(signs_triton, signs_add_triton)

# Of one size (one pass, two passes, more than one block), of sizes that end inside a byte, empty, of one entry.
CUTS = [
    [0],
    [0, 0],
    [0, 1],
    [0, 63],
    [0, 64],
    [0, 65],
    [0, 4097],
    [0, 512, 1024, 1537],
    [0, 512, 1024, 1530],
    [0, 7, 14, 20],
    [0, 8, 16, 21],
    [0, 2000, 4000, 4001],
    [0, 0, 1, 2, 3, 1030, 1030, 2500],
    list(range(131)),
    *([0, length] for length in LONG),
    *([*range(0, length, 512), length] for length in LONG),
]


def entries(numel: int, seed: int, kind: str = "finite") -> Tensor:
    generator = torch.Generator().manual_seed(seed + numel)
    x = torch.randn(numel, generator=generator)
    x[::7], x[1::7], x[2::11], x[3::11] = 0.0, -0.0, 1e-42, -2.5
    if kind != "finite":
        x[numel // 2 : numel // 2 + 1] = math.nan if kind == "nan" else -math.inf
    return x


@pytest.mark.parametrize("kind", ["finite", "infinite", "nan"])
@pytest.mark.parametrize("ends", CUTS, ids=lambda ends: f"{len(ends) - 1}of{ends[-1]}")
def test_bits_and_means(ends: list[int], kind: str) -> None:
    x, offsets = entries(ends[-1], 0, kind), torch.tensor(ends)
    assert same_bits(kernels.sign_bits(x), signs.sign_bits(x))
    found = kernels.mean_signs(x, offsets)
    assert all(map(same_bits, found, signs.mean_signs(x, offsets)))
    assert all(map(same_bits, found, signs.mean_signs_torch(x, offsets)))


@pytest.mark.parametrize("into", ["new", "x", "residual"])
@pytest.mark.parametrize("ends", CUTS, ids=lambda ends: f"{len(ends) - 1}of{ends[-1]}")
def test_with_a_residual(ends: list[int], into: str) -> None:
    offsets, results = torch.tensor(ends), []
    for operation in (kernels.accumulate_signs, signs.accumulate_signs, signs.accumulate_signs_torch):
        x, residual = entries(ends[-1], 0), entries(ends[-1], 1)
        out = {"new": torch.full_like(x, math.nan), "x": x, "residual": residual}[into]
        results.append([*operation(x, residual, 0.9, out, offsets), out])
        assert into == "x" or same_bits(x, entries(ends[-1], 0))
        assert into == "residual" or same_bits(residual, entries(ends[-1], 1))
    for other in results[1:]:
        assert all(map(same_bits, results[0], other))


@pytest.mark.parametrize("factor", [1.0, -0.3])
@pytest.mark.parametrize("ends", CUTS, ids=lambda ends: f"{len(ends) - 1}of{ends[-1]}")
def test_back_onto_a_sum(ends: list[int], factor: float) -> None:
    offsets, numel = torch.tensor(ends), ends[-1]
    # Longer than it must be, and what lies behind is not zero.
    bits = torch.randint(0, 256, (numel // 8 + 3,), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    scales = entries(len(ends) - 1, 3)
    sums = [entries(numel, 4) for _ in range(3)]
    for operation, out in zip((kernels.add_signs, signs_add.add_signs, signs_add.add_signs_torch), sums, strict=True):
        operation(bits, scales, offsets, out, factor)
    assert same_bits(sums[0], sums[1])
    assert same_bits(sums[0], sums[2])
    for write, out in zip((kernels.write_signs, signs_add.write_signs, signs_add.write_signs_torch), sums, strict=True):
        write(bits, scales, offsets, out)
    assert same_bits(sums[0], sums[1])
    assert same_bits(sums[0], sums[2])
