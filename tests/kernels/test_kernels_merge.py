"""The mean of sparse vectors without the vectors, and a sparse vector onto tensors."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.flat.unflatten import can_unflatten_sparse, unflatten_sparse, unflatten_sparse_torch
from thinwire.kernels.sparse.merge import unite_means, unite_means_torch

SIZES = (0, 1, 7, 63, 64, 65, 4095, 4096, 4097, 300_000)


def drawn(numel: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    indices = (torch.rand(numel, generator=generator) < share).nonzero().reshape(-1)
    values = torch.randn(indices.numel(), generator=generator) ** 3
    values[::5] = -0.0
    return indices, values


def same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("shares", [(0.01,), (0.001, 0.0), (0.01, 0.03, 0.02), (1.0, 0.5), (0.1,) * 9])
@pytest.mark.parametrize("numel", SIZES)
def test_the_mean_has_the_bits_of_a_dense_sum_in_order(numel: int, shares: tuple[float, ...], num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    vectors = [drawn(numel, share, seed) for seed, share in enumerate(shares)]
    total, has = np.zeros(numel, np.float32), np.zeros(numel, bool)
    for places, each in vectors:
        total[places.numpy()] += each.numpy()
        has[places.numpy()] = True
    indices, values = [each for each, _ in vectors], [each for _, each in vectors]
    for divisor in (1, len(vectors), 7):
        united, means, finite = unite_means(indices, values, numel, divisor)
        assert united.tolist() == np.flatnonzero(has).tolist()
        assert means.numpy().tobytes() == (total[has] / np.float32(divisor)).tobytes()
        assert finite
        twin = unite_means_torch(indices, values, numel, divisor)
        assert same_bits(united, twin[0])
        assert same_bits(means, twin[1])
        assert twin[2]


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan, 3e38])
@pytest.mark.parametrize("place", [0, 4095, 4096, 299_999])
def test_what_is_not_finite_is_found(place: int, bad: float) -> None:
    torch.set_num_threads(2)
    indices, values = drawn(300_000, 0.01, 1)
    spoilt = torch.tensor([place]), torch.tensor([bad])
    for unite in (unite_means, unite_means_torch):
        # Two of the largest finite numbers overflow only in their sum.
        united, means, finite = unite([spoilt[0], indices, spoilt[0]], [spoilt[1], values, spoilt[1]], 300_000, 2)
        assert not finite
        assert united[~torch.isfinite(means)].tolist() == [place]


def test_no_vectors_have_no_mean_entries() -> None:
    for unite in (unite_means, unite_means_torch):
        united, means, finite = unite([], [], 10, 3)
        assert (united.tolist(), means.tolist(), finite) == ([], [], True)


@pytest.mark.parametrize(
    ("indices", "values", "divisor", "message"),
    [
        ([3, 3], [1.0, 1.0], 1, "ascend strictly"),
        ([0, 10], [1.0, 1.0], 1, "ascend strictly"),
        ([-1], [1.0], 1, "ascend strictly"),
        ([1], [1.0, 2.0], 1, "need as many float32"),
        ([1], [1.0], 0, "divisor of 0"),
        ([1], [1.0], 2**24, "divisor of 16777216"),
    ],
)
def test_what_is_no_sparse_vector_is_refused(
    indices: list[int], values: list[float], divisor: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        unite_means([torch.tensor(indices)], [torch.tensor(values)], 10, divisor)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("shapes", [[(5,)], [(3, 4), (), (0, 2), (100,)], [(400, 500), (1000,), (333, 333), (7,)]])
def test_tensors_become_the_sparse_vector(shapes: list[tuple[int, ...]], num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    numel = sum(int(np.prod(shape)) for shape in shapes)
    for share in (0.0, 0.01, 1.0):
        indices, values = drawn(numel, share, 3)
        dense = np.zeros(numel, np.float32)
        dense[indices.numpy()] = values.numpy()
        for unflatten in (unflatten_sparse, unflatten_sparse_torch):
            tensors = [torch.full(shape, 7.0) for shape in shapes]
            unflatten(indices, values, tensors)
            assert torch.cat([each.view(-1) for each in tensors]).numpy().tobytes() == dense.tobytes()


def test_tensors_that_cannot_be_written_to_in_place_are_refused_and_left_alone() -> None:
    indices, values = torch.tensor([1]), torch.ones(1)
    for tensors in ([torch.ones(2, 3).T], [torch.ones(6, dtype=torch.bfloat16)]):
        assert not can_unflatten_sparse(tensors)
        with pytest.raises(ConfigError, match="contiguous float32"):
            unflatten_sparse(indices, values, tensors)
    target = torch.ones(2)
    for wrong in ([2], [1, 1], [-1]):
        with pytest.raises(ConfigError, match="ascend strictly"):
            unflatten_sparse(torch.tensor(wrong), torch.ones(len(wrong)), [target])
    for indices, values in itertools.product([torch.tensor([1], dtype=torch.int32)], [torch.ones(1), torch.ones(2)]):
        with pytest.raises(ConfigError, match="int64 indices"):
            unflatten_sparse(indices, values, [target])
    assert target.tolist() == [1.0, 1.0]
