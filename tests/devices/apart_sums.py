"""Triton's kernels that measure segments, in its interpreter, against the loops on the CPU and the twins in torch."""

import itertools
import math

import pytest
import torch
from bits import LONG, PLACE, on_device, same_bits
from torch import Tensor

from thinwire.kernels.reduce import (
    extents,
    extents_triton,
    moments,
    moments_triton,
    segment_sums,
    segment_sums_triton,
    truncated_sums,
    truncated_sums_triton,
)
from thinwire.kernels.reduce.block_trees_triton import fold_levels, levels_of, sum_segments

kernels = on_device(segment_sums_triton, extents_triton, moments_triton, truncated_sums_triton)

# Segments of one size, of one entry, empty ones, more than one block with a ragged end.
CUTS = [
    [0],
    [0, 0],
    [0, 1],
    [0, 63],
    [0, 64],
    [0, 65],
    [0, 4097],
    [0, 512, 1024, 1537],
    [0, 512, 1024, 1500],
    [0, 7, 14, 20],
    [0, 1, 2, 3],
    [0, 0, 1, 1, 1025, 4097, 4097],
    [0, 3000, 3000, 3001, 5050],
    *([0, length] for length in LONG),
]


def entries(numel: int, kind: str) -> Tensor:
    """Of many magnitudes; with zeros of both signs, ties, denormals, and what is not finite if asked for."""
    generator = torch.Generator().manual_seed(numel)
    x = torch.randn(numel, generator=generator) * 10.0 ** torch.randint(-20, 18, (numel,), generator=generator)
    x[::7], x[1::7], x[2::11], x[3::11] = 0.0, -0.0, 1e-42, -2.5
    if kind == "zeros":
        x = torch.full((numel,), -0.0)
    if kind == "infinite":
        x[-1:] = math.inf
        x[numel // 2 : numel // 2 + 1] = -math.inf
    if kind == "nan":
        x[numel // 2 : numel // 2 + 1] = math.nan
    return x


@pytest.mark.parametrize("kind", ["finite", "zeros", "infinite", "nan"])
@pytest.mark.parametrize("ends", CUTS, ids=str)
def test_sums_and_maxima(ends: list[int], kind: str) -> None:
    x, offsets = entries(ends[-1], kind), torch.tensor(ends)
    for power in (1, 2):
        found = kernels.segment_sums(x, offsets, power)
        assert same_bits(found, segment_sums.segment_sums(x, offsets, power))
        assert same_bits(found, segment_sums.segment_sums_torch(x, offsets, power))
    largest = kernels.segment_max(x, offsets)
    assert same_bits(largest, segment_sums.segment_max(x, offsets))
    assert same_bits(largest, segment_sums.segment_max_torch(x, offsets))


@pytest.mark.parametrize("kind", ["finite", "zeros", "infinite", "nan"])
@pytest.mark.parametrize("ends", CUTS, ids=str)
def test_extents(ends: list[int], kind: str) -> None:
    x, offsets = entries(ends[-1], kind), torch.tensor(ends)
    for found, loops, torchs in zip(
        kernels.segment_extents(x, offsets),
        extents.segment_extents(x, offsets),
        extents.segment_extents_torch(x, offsets),
        strict=True,
    ):
        assert same_bits(found, loops)
        assert same_bits(found, torchs)


@pytest.mark.parametrize("kind", ["finite", "zeros", "infinite"])
@pytest.mark.parametrize("ends", CUTS, ids=str)
def test_sides_and_moments(ends: list[int], kind: str) -> None:
    x, offsets = entries(ends[-1], kind), torch.tensor(ends)
    found = kernels.segment_sides(x, offsets)
    assert all(map(same_bits, found, extents.segment_sides(x, offsets)))
    assert all(map(same_bits, found, extents.segment_sides_torch(x, offsets)))
    if kind == "infinite":
        return  # the loops on the CPU subtract inf from inf, of which numpy warns
    all_found = kernels.segment_moments(x, offsets)
    for other in (moments.segment_moments(x, offsets), moments.segment_moments_torch(x, offsets)):
        for name in ("sums", "squares", "largest"):
            assert same_bits(getattr(all_found, name), getattr(other, name)), name


def test_many_blocks_take_a_third_level() -> None:
    """What a level says of its blocks, folded by torch: more than 2**20 entries would take the interpreter minutes."""
    for ends in ([0, 1 << 21], [0, (1 << 20) + 1, (1 << 20) + 1, (1 << 20) + 5]):
        levels = levels_of(torch.tensor(ends), PLACE)
        assert [level.log for level in levels] == [10, 10, 1]
        assert [level.is_last for level in levels] == [False, False, True]
        assert [level.cut.numel for level in levels[1:]] == [level.num_blocks for level in levels[:-1]]
        assert levels[-1].num_blocks == sum(end > start for start, end in itertools.pairwise(ends))
    numbers = torch.rand(1 << 11, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    levels = levels_of(torch.tensor([0, 1 << 21]), PLACE)
    sums = torch.empty(1, dtype=torch.float64, device=PLACE)
    fold_levels(numbers.to(PLACE), levels[1:], sums)
    halves = numbers.view(2, 1024)
    while halves.shape[1] > 1:
        halves = halves[:, : halves.shape[1] // 2] + halves[:, halves.shape[1] // 2 :]
    assert sums.item() == (halves[0] + halves[1]).item()


@pytest.mark.parametrize("size", [1, 2, 63, 512, 1024, 1025, 5000, (1 << 20) + 1])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_levels_by_arithmetic_are_those_of_any_segments(count: int, size: int) -> None:
    for last in {1, size // 2, size - 1, size} - {0}:
        offsets = torch.tensor([*range(0, count * size, size), (count - 1) * size + last])
        # With a segment of no entries, no size is common.
        uneven = torch.cat([offsets, offsets[-1:]])
        found, listed = (levels_of(each, torch.device("cpu")) for each in (offsets, uneven))
        assert [level.cut.is_uniform for level in found] == [True] * len(found)
        assert [level.cut.is_uniform for level in listed] == [False] * len(listed)
        for one, other in zip(found, listed, strict=True):
            assert (one.log, one.num_blocks, one.is_last) == (other.log, other.num_blocks, other.is_last)
            assert one.cut.numel == other.cut.numel
            assert one.cut.size == int(other.cut.table[0].diff().max())


@pytest.mark.parametrize("power", [1, 2])
def test_of_entries_and_a_residual(power: int) -> None:
    x, residual, offsets = entries(1500, "finite"), entries(1500, "finite").flip(0), torch.tensor([0, 400, 1500])
    sums = torch.empty(2, dtype=torch.float64, device=PLACE)
    sum_segments(x.to(PLACE), residual.to(PLACE), 0.7, levels_of(offsets, PLACE), power, sums)
    u = residual * 0.7 + x
    assert same_bits(sums.cpu(), segment_sums.segment_sums(u, offsets, power))  # type: ignore[arg-type]
    largest = kernels.max_segments(x, residual, 0.7, offsets)
    assert same_bits(largest, segment_sums.segment_max(u, offsets))


@pytest.mark.parametrize("what", ["powers", "weights", "entries"])
@pytest.mark.parametrize("ends", CUTS, ids=str)
def test_sums_near_the_centre(ends: list[int], what: truncated_sums.What) -> None:
    x, offsets, generator = entries(ends[-1], "finite"), torch.tensor(ends), torch.Generator().manual_seed(1)
    # Some entries at no distance of the centre, some at a part of it that is rounded, some beyond the bound.
    centres = torch.randn(len(ends) - 1, generator=generator) * 0.01
    centres[::2] = -2.5
    bounds = torch.rand(len(ends) - 1, generator=generator) * 1e9
    bounds[1::3] = math.inf
    found = kernels.tail_sums(x, offsets, centres, bounds, what)
    assert same_bits(found, truncated_sums.tail_sums(x, offsets, centres, bounds, what))
    assert same_bits(found, truncated_sums.tail_sums_torch(x, offsets, centres, bounds, what))
