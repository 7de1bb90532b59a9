"""Triton's kernels that add packed levels, in its interpreter, against the loops on the CPU and the twins in torch."""

import math

import pytest
import torch
from bits import LONG, on_device, same_bits
from torch import Tensor

from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.quantize import levels_add, levels_add_triton

kernels = on_device(levels_add_triton)

# The interpreter calculates by numpy, which warns of NaN.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# Segments of one size, of one entry, empty ones, more than one block with a ragged end.
CUTS = [
    [0], [0, 0], [0, 1], [0, 63], [0, 64], [0, 65], [0, 4097], [0, 512, 1024, 1537], [0, 512, 1024, 1500],
    [0, 7, 14, 20], [0, 1, 2, 3], [0, 0, 1, 1, 1025, 2050, 2050], [0, 3000, 3000, 3001, 3050],
]  # fmt: skip
WIDTHS = [
    (1, 0),
    (2, 1),
    (3, 3),
    (4, 7),
    (5, 11),
    (8, 127),
    (9, 255),
    (12, 2000),
    (16, 32767),
    (25, 2**24),
    (31, 2**30 - 1),
]


def material(ends: list[int], width: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """Packed codes, a unit for each segment, and a sum."""
    numel, generator = ends[-1], torch.Generator().manual_seed(width + ends[-1])
    codes = torch.randint(0, 2**width, (numel,), generator=generator)
    units = torch.randn(len(ends) - 1, generator=generator)
    out = torch.randn(numel, generator=generator)
    out[::3], out[1::3] = -0.0, 1e-42
    if kind == "strange":
        units[::2] = 1e-42
        units[1::3] = math.inf
        units[2::4] = math.nan
        out[2::5] = -math.inf
        out[3::7] = math.nan
    return pack(codes, width), units, out


@pytest.mark.parametrize(("width", "num_levels"), WIDTHS)
@pytest.mark.parametrize("kind", ["usual", "strange"])
def test_levels_are_added_and_written(width: int, num_levels: int, kind: str) -> None:
    # Every cut with widths of whole bytes and of parts of one; with the others, those that differ most.
    for ends in CUTS if width in (3, 4, 8) else CUTS[4:9]:
        packed, units, out = material(ends, width, kind)
        offsets = torch.tensor(ends)
        for factor in (1.0, -1.0, 1 / 3) if width == 4 else (1 / 3,):
            found, loops, torchs = out.clone(), out.clone(), out.clone()
            kernels.add_levels(packed, width, num_levels, units, offsets, found, factor)
            levels_add.add_levels(packed, width, num_levels, units, offsets, loops, factor)
            levels_add.add_levels_torch(packed, width, num_levels, units, offsets, torchs, factor)
            assert same_bits(found, loops)
            assert same_bits(found, torchs)
        found, loops, torchs = out.clone(), out.clone(), out.clone()
        kernels.write_levels(packed, width, num_levels, units, offsets, found)
        levels_add.write_levels(packed, width, num_levels, units, offsets, loops)
        levels_add.write_levels_torch(packed, width, num_levels, units, offsets, torchs)
        assert same_bits(found, loops)
        assert same_bits(found, torchs)


@pytest.mark.parametrize("length", LONG)
def test_long_ones(length: int) -> None:
    ends = [*range(0, length, 512), length]
    packed, units, out = material(ends, 4, "usual")
    found, loops, offsets = out.clone(), out.clone(), torch.tensor(ends)
    kernels.add_levels(packed, 4, 7, units, offsets, found, 1 / 3)
    levels_add.add_levels(packed, 4, 7, units, offsets, loops, 1 / 3)
    assert same_bits(found, loops)
    kernels.write_levels(packed, 4, 7, units, offsets, found)
    levels_add.write_levels(packed, 4, 7, units, offsets, loops)
    assert same_bits(found, loops)
