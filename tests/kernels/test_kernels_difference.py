"""What is selected of a difference that is never made is what is selected of it as a vector."""

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.flat.flatten import flatten_finite
from thinwire.kernels.select.accumulate import accumulate_top_k
from thinwire.kernels.select.difference import (
    add_difference,
    add_difference_torch,
    top_k_of_difference,
    top_k_of_difference_torch,
)

SHAPES = [
    [(5,)],
    [(5,), (0,), (3, 3), ()],
    [(64, 64), (1,), (4096,)],
    [(100, 100), (7,), (4095,), (5000, 3)],
    [(1024, 1024), (), (333,), (0, 4), (600, 900)],
]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


def vectors(shapes: list[tuple[int, ...]], *, ties: bool) -> tuple[Tensor, list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(len(shapes))
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    numel = sum(tensor.numel() for tensor in tensors)
    reference, residual = torch.randn(numel, generator=generator), torch.randn(numel, generator=generator)
    if ties:
        return reference.round(), [tensor.round() for tensor in tensors], residual.round()
    return reference, tensors, residual


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_the_bits_are_those_of_the_vector(threads: int, shapes: list[tuple[int, ...]], ties: bool) -> None:
    reference, tensors, residual = vectors(shapes, ties=ties)
    numel = len(reference)
    difference, total = torch.empty(numel), torch.empty(numel)
    flatten_finite(tensors, difference, reference)
    for decay in (1.0, 0.9):
        for count in sorted({0, 1, numel // 100, numel // 3, numel}):
            limits = torch.tensor([0, numel]), torch.tensor([count])
            expected = accumulate_top_k(difference, residual, decay, total, *limits)
            for select in (top_k_of_difference, top_k_of_difference_torch):
                indices, values = select(reference, tensors, residual, decay, count)
                assert torch.equal(indices, expected[0])
                assert values.view(torch.int32).tolist() == expected[1].view(torch.int32).tolist()
        for add in (add_difference, add_difference_torch):
            found = residual.clone()
            add(reference, tensors, found, decay)
            assert torch.equal(found.view(torch.int32), total.view(torch.int32))


def test_a_sample_that_misleads_costs_time_alone(threads: int) -> None:
    """All is zero but few entries, which a sample does not meet, and then nearly all but few."""
    numel = 1 << 20
    for value, others in ((1.0, 0.0), (0.0, 1.0)):
        residual = torch.full((numel,), others, dtype=torch.float32)
        residual[:: numel // 50] = value
        reference, tensors = torch.zeros(numel, dtype=torch.float32), [torch.zeros(numel, dtype=torch.float32)]
        for count in (10, 60, numel // 20):
            indices, _ = top_k_of_difference(reference, tensors, residual, 1.0, count)
            expected, _ = top_k_of_difference_torch(reference, tensors, residual, 1.0, count)
            assert torch.equal(indices, expected)


def test_rising_magnitudes_are_thinned_out(threads: int) -> None:
    """Of these the last are the largest: a range has room for the largest so far, and no more."""
    numel = 600_000
    residual = torch.arange(numel, dtype=torch.float32)
    zeros = torch.zeros(numel, dtype=torch.float32)
    indices, values = top_k_of_difference(zeros, [zeros.clone()], residual, 1.0, 1000)
    assert indices.tolist() == list(range(numel - 1000, numel))
    assert values.tolist() == indices.float().tolist()


def test_other_vectors_are_refused() -> None:
    one, two = torch.zeros(4, dtype=torch.float32), torch.zeros(5, dtype=torch.float32)
    for reference, tensors, residual in ((one, [two], one), (one, [one], two), (one, [one.double()], one)):
        with pytest.raises(ConfigError):
            top_k_of_difference(reference, tensors, residual, 1.0, 1)
        with pytest.raises(ConfigError):
            add_difference(reference, tensors, residual, 1.0)
    with pytest.raises(ConfigError, match="contiguous"):
        add_difference(one, [torch.zeros(8, dtype=torch.float32)[::2]], one, 1.0)
    for count in (-1, 5):
        with pytest.raises(ConfigError, match="from 0 to all"):
            top_k_of_difference(one, [one.clone()], one, 1.0, count)
