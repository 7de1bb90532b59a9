import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.exp_golomb import exp_golomb_encode, orders_of_gaps_torch
from thinwire.kernels.gap_measures import measure_gaps
from thinwire.kernels.rice import rice_encode


@pytest.mark.parametrize("count", [0, 1, 7, 127, 128, 129, 8192, 8193, 20_000])
@pytest.mark.parametrize("spread", [1, 3, 1000])
def test_the_measures_are_those_of_the_codes(count: int, spread: int) -> None:
    generator = torch.Generator().manual_seed(count)
    gaps = torch.randint(0, spread, (count,), generator=generator) ** 2
    indices = (gaps + 1).cumsum(0) - 1
    measures = measure_gaps(indices)
    assert torch.equal(measures.gaps, gaps)
    sizes = [rice_encode(indices, parameter).numel() for parameter in range(41)]
    assert measures.rice_num_bytes == min(sizes)
    assert measures.parameter == sizes.index(min(sizes))
    assert measures.exp_golomb_num_bytes == exp_golomb_encode(indices).numel()
    assert torch.equal(measures.orders, orders_of_gaps_torch(gaps)[0])


@pytest.mark.parametrize("count", [2, 9000])
def test_refuses_what_has_no_code(count: int) -> None:
    with pytest.raises(ConfigError, match="ascending"):
        measure_gaps(torch.zeros(count, dtype=torch.int64))
    with pytest.raises(ConfigError, match="must be 0 to"):
        measure_gaps(torch.arange(count) + 2**48)
    with pytest.raises(ConfigError, match="vector of int64"):
        measure_gaps(torch.arange(count, dtype=torch.int32))
