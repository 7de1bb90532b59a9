"""Triton's kernels that round at random, in its interpreter, against the loops on the CPU and the twins in torch."""

import math

import pytest
import torch
from bits import LONG, on_device, same_bits
from torch import Tensor

from thinwire.kernels.quantize import dither, dither_triton

kernels = on_device(dither_triton)

# The interpreter calculates by numpy, which warns of NaN.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# One segment; buckets of one size, with and without a ragged end; of other sizes, of one entry, empty ones; long ones.
CUTS = [
    [0], [0, 0], [0, 1], [0, 63], [0, 64], [0, 65], [0, 1024], [0, 4097], [0, 512, 1024, 1537], [0, 512, 1024, 1500],
    [*range(0, 1100, 64), 1100], [0, 1024, 2048, 2049], [0, 2048, 2100], [0, 7, 14, 20], [0, 1, 2, 3],
    [0, 0, 1, 1, 1025, 1050, 1050],
]  # fmt: skip
LEVELS = [1, 3, 7, 20, 127, 128, 5000, 32767]


def entries(numel: int, kind: str, seed: int) -> Tensor:
    """Entries of one kind, with zeros of both signs and ties."""
    generator = torch.Generator().manual_seed(97 * numel + seed)
    x = torch.randn(numel, generator=generator)
    if kind == "all magnitudes":
        x *= 10.0 ** torch.randint(-40, 38, (numel,), generator=generator)
    if kind == "denormals":
        x *= 1e-41
    if kind == "huge":
        x = (x * 3e38).clamp(-3.4028234e38, 3.4028234e38)
    x[::7], x[1::7], x[2::11] = 0.0, -0.0, -1.0 if kind == "usual" else 0.0
    if kind == "zeros":
        x = torch.full((numel,), -0.0)
    if kind in ("inf", "nan"):
        x[numel // 2 : numel // 2 + 1] = -math.inf if kind == "inf" else math.nan
    return x


def factors(ends: list[int], which: str) -> Tensor | None:
    """Of scales."""
    count = {"none": 0, "one": 1, "each": len(ends) - 1}[which]
    return torch.rand(count, generator=torch.Generator().manual_seed(2)) if count else None


@pytest.mark.parametrize("kind", ["usual", "all magnitudes", "denormals", "huge", "zeros", "inf", "nan"])
@pytest.mark.parametrize("norm", ["l2", "max"])
def test_levels_and_scales(norm: dither.Norm, kind: str) -> None:
    for turn, ends in enumerate(CUTS):
        x, offsets, num_levels = entries(ends[-1], kind, 0), torch.tensor(ends), LEVELS[turn % len(LEVELS)]
        shrink, key = factors(ends, ("none", "one", "each")[turn % 3]), 2**63 + turn
        codes, scales = kernels.quantize(x, offsets, num_levels, norm, key, shrink)
        for body in (dither.quantize, dither.quantize_torch):
            expected = body(x, offsets, num_levels, norm, key, shrink)
            assert torch.equal(codes, expected[0])
            assert same_bits(scales, expected[1])


@pytest.mark.parametrize("place", ["apart", "x", "residual"])
@pytest.mark.parametrize("decay", [1.0, 0.9, 1e38])
@pytest.mark.parametrize("norm", ["l2", "max"])
def test_what_is_left_is_remembered(norm: dither.Norm, decay: float, place: str) -> None:
    for turn, ends in enumerate(CUTS):
        kind = ("usual", "all magnitudes", "denormals")[turn % 3]
        offsets, num_levels = torch.tensor(ends), LEVELS[(turn + 3) % len(LEVELS)]
        shrink, key = factors(ends, ("none", "one", "each")[turn % 3]), turn
        found = []
        for body in (kernels.accumulate_quantize, dither.accumulate_quantize, dither.accumulate_quantize_torch):
            x, residual = entries(ends[-1], kind, 1), entries(ends[-1], kind, 2)
            residual[3::13] = -x[3::13]
            out = {"apart": torch.full_like(x, 7.0), "x": x, "residual": residual}[place]
            found.append((*body(x, residual, decay, out, offsets, num_levels, norm, key, shrink), out))
        for other in found[1:]:
            assert torch.equal(found[0][0], other[0])
            assert same_bits(found[0][1], other[1])
            assert same_bits(found[0][2], other[2])


@pytest.mark.parametrize("num_levels", LEVELS)
def test_all_bits_of_the_random_numbers_count(num_levels: int) -> None:
    # Ratios whose distance to the level below is so close to the random numbers' high bits that the low ones decide.
    high, _ = dither.dither_torch(9, 2048)
    whole = torch.arange(2048) % num_levels
    x = ((whole + high * 2.0**-16 + 2.0**-17) / num_levels).clamp(max=1.0)
    x[::512] = 1.0
    offsets = torch.tensor([0, 512, 1024, 1536, 2048])
    for cut in (offsets, torch.tensor([0, 2048])):
        codes, _ = kernels.quantize(x, cut, num_levels, "max", 9)
        assert torch.equal(codes, dither.quantize(x, cut, num_levels, "max", 9)[0])


def test_vectors_that_are_not_contiguous() -> None:
    x, offsets = entries(1000, "usual", 4)[::2], torch.tensor([0, 256, 500])
    for one, other in zip(
        kernels.quantize(x, offsets, 5, "l2", 1), dither.quantize(x, offsets, 5, "l2", 1), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("norm", ["l2", "max"])
@pytest.mark.parametrize("length", LONG)
def test_long_ones(length: int, norm: dither.Norm) -> None:
    x = entries(length, "usual", 5)
    for ends in ([0, length], [*range(0, length, 512), length]):
        offsets = torch.tensor(ends)
        codes, scales = kernels.quantize(x, offsets, 7, norm, 3)
        expected = dither.quantize(x, offsets, 7, norm, 3)
        assert torch.equal(codes, expected[0])
        assert same_bits(scales, expected[1])
