"""The nearest number of a table, however its place is found: by comparing, by halving, or by cells."""

import pytest
import torch
from torch import Tensor

from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.quantize.codebook import nearest_codes, nearest_codes_torch
from thinwire.kernels.quantize.lloyd_max import gaussian_table

# Cells are used from four blocks of 1024 entries on.
CUTS = ([1], [7], [64], [1000, 0, 65], [4096], [5000, 3, 300_000])


def agree(x: Tensor, offsets: Tensor, units: Tensor, table: Tensor) -> bool:
    ours, twin = nearest_codes(x, offsets, units, table), nearest_codes_torch(x, offsets, units, table)
    return all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(ours, twin, strict=True))


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("sizes", CUTS, ids=str)
def test_kernel_and_twin_agree(sizes: list[int], bits: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(int(offsets[-1]), generator=generator)
    units = torch.rand(len(sizes), generator=generator) + 0.1
    assert agree(x, offsets, units, gaussian_table(bits))


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("unit", [0.0, 2.0**-149, 1e-38, 0.37, 1e30, 3e38])
def test_any_unit_and_magnitudes_on_the_borders(bits: int, unit: float) -> None:
    table = gaussian_table(bits)
    positive = table[table.numel() // 2 :]
    units = torch.tensor([unit])
    borders = units * ((positive[:-1] + positive[1:]) * 0.5)
    more = torch.tensor([0.0, -0.0, 1.0, -1e38, 2.0**-149])
    around = [
        borders,
        *(torch.nextafter(borders, torch.full_like(borders, to)) for to in (-torch.inf, torch.inf)),
        more,
    ]
    x = torch.cat([*around, *(-part for part in around)])
    x = x[x.isfinite()]
    for times in (1, 1 + 5000 // x.numel()):
        repeated = x.repeat(times)
        assert agree(repeated, torch.tensor([0, repeated.numel()]), units, table)


def test_what_is_no_number_is_coded_as_the_least_positive() -> None:
    x = torch.ones(5000)
    x[7], x[9] = torch.nan, torch.inf
    codes, _, _ = nearest_codes(x, torch.tensor([0, 5000]), torch.ones(1), gaussian_table(8))
    found = unpack(codes, 5000, 8)
    assert found[[7, 9]].tolist() == [128, 255]
    twin, _, _ = nearest_codes_torch(x, torch.tensor([0, 5000]), torch.ones(1), gaussian_table(8))
    assert torch.equal(codes, twin)


def test_a_table_of_uneven_steps_has_several_borders_in_a_cell() -> None:
    positive = torch.cat([torch.linspace(1e-4, 2e-4, 15), torch.tensor([100.0])])
    table = torch.cat([-positive.flip(0), positive])
    x = torch.rand(6000, generator=torch.Generator().manual_seed(0)) * 3e-4
    codes, _, _ = nearest_codes(x, torch.tensor([0, 6000]), torch.ones(1), table)
    nearest = (x.double().unsqueeze(1) - table.double()).abs().argmin(1)
    assert (unpack(codes, 6000, 5) != nearest).float().mean() < 1e-3  # but for ties
    assert agree(x, torch.tensor([0, 6000]), torch.ones(1), table)
