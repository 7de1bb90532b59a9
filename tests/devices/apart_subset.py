"""Triton's kernels that draw subsets, in its interpreter, against the loop on the CPU and the twin in torch."""

import numpy as np
import pytest
import torch
from bits import LONG, on_device
from torch import Tensor

from thinwire.kernels.sample import subset, subset_triton

kernels = on_device(subset_triton)


def offsets_of(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)


def check(key: int, offsets: Tensor, counts: Tensor) -> None:
    got = kernels.segment_subsets(key, offsets, counts, "cpu")
    assert got.dtype == torch.int64
    assert torch.equal(got, subset.segment_subsets(key, offsets, counts))
    assert torch.equal(got, subset.segment_subsets_torch(key, offsets, counts))


@pytest.mark.parametrize("key", [0, 7, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 4097])
def test_one_segment(size: int, key: int) -> None:
    for count in sorted({0, min(1, size), size // 50, size // 2, (size + 1) // 2, size - size // 9, size}):
        check(key, torch.tensor([0, size]), torch.tensor([count]))


@pytest.mark.parametrize("most", [2, 3, 10])
def test_segments_of_which_few_or_most_are_drawn(most: int) -> None:
    sizes = [0, 1, 5, 700, 0, 2000, 64, 1, 33]
    counts = torch.tensor([size * (number % most) // (most - 1) for number, size in enumerate(sizes)])
    check(11, offsets_of(sizes), counts)


@pytest.mark.parametrize("size", LONG)
def test_one_long_segment(size: int) -> None:
    for count in (size // 100, size // 2, size - size // 9):
        offsets, counts = torch.tensor([0, size]), torch.tensor([count])
        assert torch.equal(
            kernels.segment_subsets(5, offsets, counts, "cpu"), subset.segment_subsets(5, offsets, counts)
        )


def test_a_few_of_very_many() -> None:
    # The loop on the CPU takes a bit for each that there is, of which these are too many.
    offsets, counts = offsets_of([2**40, 3, 2**45 + 1]), torch.tensor([600, 1, 20])
    got = kernels.segment_subsets(3, offsets, counts, "cpu")
    assert torch.equal(got, subset.segment_subsets_torch(3, offsets, counts))


def test_candidates_suffice() -> None:
    """The number that is drawn exceeds what is expected to be needed, and not by much where many are."""
    sizes = np.array([2, 10, 1000, 1000, 10**6, 10**6, 10**9, 2**48])
    drawn = np.array([1, 5, 1, 500, 500_000, 1000, 10**7, 2**32])
    # The next is new with the probability 1 - i / n after i different ones: a sum of n / (n - i).
    needed = -sizes * np.log1p(-drawn / sizes)
    numbers = subset_triton._num_candidates(sizes, drawn)
    assert (numbers >= drawn).all()
    assert (numbers >= needed).all()
    assert (numbers <= 1.02 * needed + 12 * np.sqrt(needed) + 90).all()


@pytest.mark.parametrize("size", [4, 9, 64])
def test_candidates_seldom_fall_short(size: int) -> None:
    """By the exact distribution of how many of some draws differ."""
    drawn = size // 2
    number = int(subset_triton._num_candidates(np.array([size]), np.array([drawn]))[0])
    chances = np.zeros(drawn + 1)
    chances[0] = 1.0
    for _ in range(number):
        found = np.arange(drawn)
        chances[1:-1] = chances[1:-1] * (found[1:] / size) + chances[:-2] * (1 - found[:-1] / size)
        chances[0] = 0.0
    assert chances[:-1].sum() <= 2.0**-80
