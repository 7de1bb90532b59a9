import math

import numpy as np
import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.sample.subset import random_subset, segment_subsets, segment_subsets_torch

SIZES = (0, 1, 7, 63, 64, 65, 4096, 1_000_000)


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


def offsets_of(sizes: list[int]) -> torch.Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)


def check_law(offsets: torch.Tensor, counts: torch.Tensor, indices: torch.Tensor) -> None:
    """Strictly ascending, and in each segment as many as asked for."""
    assert bool((indices.diff() > 0).all())
    inside = torch.bucketize(offsets, indices)
    assert torch.equal(inside.diff(), counts)


@pytest.mark.parametrize("size", SIZES)
def test_kernel_and_twin_draw_the_same(size: int, num_threads: int) -> None:
    borders = torch.randint(0, size + 1, (9,), generator=torch.Generator().manual_seed(size)).sort().values
    for offsets in (torch.tensor([0, size]), torch.cat([torch.tensor([0, 0]), borders, torch.tensor([size])])):
        sizes = offsets.diff()
        for counts in (sizes * 0, sizes.clamp(max=1), (sizes + 99) // 100, sizes // 2, sizes - sizes // 9, sizes):
            drawn = segment_subsets(5, offsets, counts)
            check_law(offsets, counts, drawn)
            assert torch.equal(drawn, segment_subsets_torch(5, offsets, counts))


def test_many_short_segments(num_threads: int) -> None:
    sizes = torch.arange(3000) % 130
    offsets = offsets_of(sizes.tolist())
    counts = sizes * (torch.arange(3000) % 5) // 4
    drawn = segment_subsets(2**64 - 1, offsets, counts)
    check_law(offsets, counts, drawn)
    some = slice(0, 3000, 41)
    for number in range(3000)[some]:
        start, stop = int(counts[:number].sum()), int(counts[: number + 1].sum())
        alone = random_subset(2**64 - 1, int(sizes[number]), int(counts[number]), stream_offset=number * 2**34)
        assert torch.equal(drawn[start:stop], alone + offsets[number])


def test_a_draw_does_not_depend_on_the_other_segments() -> None:
    one = segment_subsets(3, offsets_of([50, 200, 70]), torch.tensor([5, 100, 35]))
    other = segment_subsets(3, offsets_of([1, 200, 9000]), torch.tensor([1, 100, 0]))
    assert torch.equal(one[5:105] - 50, other[1:101] - 1)


@pytest.mark.parametrize(("size", "count"), [(16, 3), (16, 12)])
def test_entries_and_pairs_are_equally_likely(size: int, count: int) -> None:
    """Each entry and each pair of entries is as likely as any other: within 6 standard deviations, 256 numbers."""
    num_draws = 40_000
    offsets = torch.arange(0, size * (num_draws + 1), size)
    indices = segment_subsets(11, offsets, torch.full((num_draws,), count))
    drawn = np.zeros((num_draws, size))
    drawn[indices.numpy() // size, indices.numpy() % size] = 1.0
    together = drawn.T @ drawn
    single, pair = count / size, count * (count - 1) / (size * (size - 1))
    for row in range(size):
        for column in range(size):
            chance = single if row == column else pair
            deviation = math.sqrt(num_draws * chance * (1.0 - chance))
            assert abs(together[row, column] - num_draws * chance) < 6.0 * deviation
    # Draws of neighbouring segments have nothing to do with each other.
    shared = (drawn[:-1] * drawn[1:]).sum(1)
    deviation = math.sqrt(count * single * (1.0 - single) * (size - count) / (size - 1) / (num_draws - 1))
    assert abs(shared.mean() - count * single) < 6.0 * deviation


def test_chi_square_of_a_long_segment() -> None:
    size, count, num_bins = 1 << 20, 1 << 18, 256
    drawn = random_subset(29, size, count)
    observed = torch.bincount(drawn * num_bins // size, minlength=num_bins).double()
    expected = count / num_bins
    statistic = float(((observed - expected) ** 2).sum() / (expected * (1.0 - count / size)))
    # 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6


def test_table_and_bits_agree() -> None:
    # Sizes to both sides of where the table takes over have the same law; the twin has one way only.
    for size in (4096 * 7 - 1, 4096 * 7, 4096 * 7 + 1):
        expected = segment_subsets_torch(1, torch.tensor([0, size]), torch.tensor([7]))
        assert torch.equal(random_subset(1, size, 7), expected)


def test_refuses_what_cannot_be() -> None:
    offsets = torch.tensor([0, 4])
    for counts in (torch.tensor([5]), torch.tensor([-1]), torch.tensor([1, 1]), torch.tensor([1.0])):
        with pytest.raises(ConfigError, match="count"):
            segment_subsets(0, offsets, counts)
    with pytest.raises(ConfigError, match="offsets"):
        segment_subsets(0, torch.tensor([1, 4]), torch.tensor([1]))
    with pytest.raises(ConfigError, match="key"):
        segment_subsets(2**64, offsets, torch.tensor([1]))
