"""Orthonormal vectors and products of thin matrices: kernel and twin bit for bit."""

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.transform.low_rank import orthonormal, orthonormal_torch, outer_products, outer_products_torch


@pytest.mark.parametrize("length", [1, 2, 7, 63, 64, 65, 4096, 70_000])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_an_orthonormal_basis_is_the_same_from_both(rank: int, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    vectors = torch.randn(rank, length, generator=generator)
    if rank == 5:
        # Zeros, what depends on others, and what overflows when squared.
        vectors[1], vectors[2], vectors[3] = 0.0, 2.0 * vectors[0], vectors[3] * 1e30
    ours, twin = orthonormal(vectors), orthonormal_torch(vectors)
    assert ours.numpy().tobytes() == twin.numpy().tobytes()
    products = ours.double() @ ours.double().T
    assert torch.allclose(products, torch.diag(products.diag().round()), atol=1e-6)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("columns", [1, 7, 64, 1025, 9000])
@pytest.mark.parametrize("rank", [1, 3])
def test_the_product_of_thin_matrices_is_the_same_from_both(rank: int, columns: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    generator = torch.Generator().manual_seed(columns)
    left, right = torch.randn(40, rank, generator=generator), torch.randn(columns, rank, generator=generator)
    for numel in (0, columns, 40 * columns - 1, 40 * columns):
        ours, twin = outer_products(left, right, numel), outer_products_torch(left, right, numel)
        assert ours.numpy().tobytes() == twin.numpy().tobytes()
        assert torch.allclose(ours, (left @ right.T).view(-1)[:numel], atol=1e-5)


def test_a_product_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 entries of the product"):
        outer_products(torch.zeros(2, 1), torch.zeros(2, 1), 5)
    with pytest.raises(ConfigError):
        outer_products(torch.zeros(2, 1), torch.zeros(2, 2), 4)
