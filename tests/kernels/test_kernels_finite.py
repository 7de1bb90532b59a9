"""Quotients are torch's, and every NaN and inf is found wherever it is."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.flat.finite import (
    divide_finite,
    divide_finite_torch,
    is_finite,
    is_finite_torch,
)

pytestmark = pytest.mark.usefixtures("short_is_shared")

SIZES = [0, 1, 7, 63, 64, 65, 4096, 1_000_003]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


@pytest.mark.parametrize("numel", SIZES)
def test_kernels_and_twins_are_the_torch_operations(threads: int, numel: int) -> None:
    x = torch.randn(numel, generator=torch.Generator().manual_seed(numel)) * 1e30
    assert is_finite(x)
    assert is_finite_torch(x)
    for divisor in (1, 3, 7, 1000):
        for divide in (divide_finite, divide_finite_torch):
            quotient = x.clone()
            assert divide(quotient, divisor)
            assert torch.equal(quotient.double(), (x.double() / divisor).float().double())


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("numel", SIZES[1:])
def test_one_bad_entry_is_found_anywhere(threads: int, bad: float, numel: int) -> None:
    checks: list[Callable[[Tensor], bool]] = [
        is_finite,
        is_finite_torch,
        lambda x: divide_finite(x.clone(), 3),
        lambda x: divide_finite(x.clone(), 1),
    ]
    for place in {0, numel // 2, numel - 1}:
        x = torch.full((numel,), 3e38)
        x[place] = bad
        assert not any(check(x) for check in checks)


def test_what_is_no_vector_of_float32_is_refused() -> None:
    with pytest.raises(ConfigError, match="float64"):
        is_finite(torch.zeros(2, dtype=torch.float64))
    with pytest.raises(ConfigError, match="contiguous"):
        divide_finite(torch.zeros(4)[::2], 2)
    for divisor in (0, -1, 2**24):
        with pytest.raises(ConfigError, match="divisor"):
            divide_finite(torch.zeros(2), divisor)
    assert is_finite(torch.zeros(4)[::2])
