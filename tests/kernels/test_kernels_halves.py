"""A random part of the entries and the others: the same sets as lists of indices, apart and together again."""

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.sample.halves import (
    merge_marked,
    merge_marked_torch,
    split_marked,
    split_marked_torch,
    subset_marks,
    subset_marks_torch,
)
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.layout import Segments
from thinwire.payloads import Dense, SeededSparse, Sum

CUTS = (
    [0],
    [1],
    [7],
    [63],
    [64],
    [65],
    [4096],
    [3, 5, 64, 128, 7],
    [70_000, 131_072, 0, 13, 1],
    [262_144, 64, 32, 8, 1],
)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("sizes", CUTS, ids=str)
def test_marks_are_the_drawn_indices(sizes: list[int], share: float, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    counts = (torch.tensor(sizes) * share).long()
    numel = int(offsets[-1])
    marks = subset_marks(9, offsets, counts)
    assert torch.equal(marks, subset_marks_torch(9, offsets, counts))
    x = torch.randn(numel, generator=torch.Generator().manual_seed(numel))
    indices = segment_subsets(9, offsets, counts)
    drawn = torch.zeros(numel, dtype=torch.bool)
    drawn[indices] = True
    for split in (split_marked, split_marked_torch):
        first, second = split(x, marks)
        assert same_bits(first, x[indices])
        assert same_bits(second, x[~drawn])
    first, second = x[drawn], x[~drawn]
    first[::3], second[::3] = -0.0, -0.0
    expected = torch.zeros(numel)
    expected[drawn] = first
    expected[~drawn] += second
    for merge in (merge_marked, merge_marked_torch):
        assert same_bits(merge(first, second, marks), expected)


@pytest.mark.parametrize("counts", [(9, 40, 0), (20, 25, 1), (0, 0, 0)])
def test_the_sum_of_what_one_key_draws_and_of_the_rest(counts: tuple[int, ...]) -> None:
    """A draw of both at once gives the bits of two; two equal parts (25 of 50) are the same set, and are no rest."""
    sizes = (30, 50, 1)
    segments = Segments.of_sizes(list(sizes))
    rest = tuple(size - count for size, count in zip(sizes, counts, strict=True))
    generator = torch.Generator().manual_seed(1)
    parts = tuple(
        SeededSparse(Dense(torch.randn(sum(own), generator=generator)), Segments.of_sizes(list(own)), 5, segments)
        for own in (rest, counts)
    )
    expected = parts[0].to_dense() + parts[1].to_dense()
    total = Sum(parts)
    assert same_bits(total.to_dense(), expected)
    out = torch.ones(sum(sizes))
    total.add_to(out, 0.5)
    assert same_bits(out, 1.0 + expected * 0.5)


def test_what_does_not_fit_is_refused() -> None:
    marks = torch.tensor([5])
    for x, own in ((torch.zeros(65), marks), (torch.zeros(3).double(), marks), (torch.zeros(3), marks.int())):
        with pytest.raises(ConfigError):
            split_marked(x, own)
    with pytest.raises(ConfigError, match="1 entries were given for 2 marks"):
        merge_marked(torch.zeros(1), torch.zeros(2), marks)
    with pytest.raises(ConfigError):
        merge_marked(torch.zeros(2), torch.zeros(1), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ConfigError, match="0 to its size"):
        subset_marks(0, torch.tensor([0, 2]), torch.tensor([3]))
