"""The cosine transform: kernel and twin bit for bit, and the definition in f64."""

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.transform.dct import cosine_basis, cosine_transform, cosine_transform_torch


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 31, 32, 33, 64, 100])
def test_kernel_and_twin_agree(side: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    for numel in (0, 1, 7, 63, 64, 65, 4096, 300_000):
        x = torch.randn(numel, generator=torch.Generator().manual_seed(numel)) ** 3
        x[::5] = -0.0
        for inverse in (False, True):
            ours, twin = (
                transform(x, side, inverse=inverse).numpy() for transform in (cosine_transform, cosine_transform_torch)
            )
            assert ours.tobytes() == twin.tobytes()


@pytest.mark.parametrize("side", [3, 64])
def test_it_is_the_product_with_the_basis_on_both_sides(side: int) -> None:
    x = torch.randn(2 * side**2 + 1, generator=torch.Generator().manual_seed(side))
    basis = cosine_basis(side).double()
    chunks = x[:-1].double().view(2, side, side)
    for inverse, left in ((False, basis), (True, basis.T)):
        found = cosine_transform(x, side, inverse=inverse)
        assert torch.allclose(found[:-1].double().view(2, side, side), left @ chunks @ left.T, atol=1e-5)
        assert found[-1] == x[-1]
    assert torch.allclose(cosine_transform(cosine_transform(x, side), side, inverse=True), x, atol=1e-5)


def test_what_is_no_vector_or_no_square_is_refused() -> None:
    with pytest.raises(ConfigError, match="side 0"):
        cosine_transform(torch.zeros(4), 0)
    with pytest.raises(ConfigError, match="float32"):
        cosine_transform(torch.zeros(4).double(), 2)
