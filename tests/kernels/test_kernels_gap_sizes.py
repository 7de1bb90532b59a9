import math

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.entropy.exp_golomb import exp_golomb_encode, orders_of_gaps_torch
from thinwire.kernels.entropy.gap_sizes import measure_gaps
from thinwire.kernels.entropy.rice import rice_encode


def rice_size(gaps: Tensor, parameter: int) -> int:
    """Bytes: the remainders' bits, then a one after each quotient's zeros."""
    return math.ceil(gaps.numel() * parameter / 8) + math.ceil((int((gaps >> parameter).sum()) + gaps.numel()) / 8)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 7, 127, 128, 129, 8192, 8193, 20_000, 70_000])
@pytest.mark.parametrize("spread", [1, 3, 1000])
def test_the_measures_are_those_of_the_codes(count: int, spread: int, num_threads: int) -> None:
    generator = torch.Generator().manual_seed(count)
    gaps = torch.randint(0, spread, (count,), generator=generator) ** 2
    indices = (gaps + 1).cumsum(0) - 1
    torch.set_num_threads(num_threads)
    measures = measure_gaps(indices)
    assert torch.equal(measures.gaps, gaps)
    sizes = [rice_size(gaps, parameter) for parameter in range(41)]
    for parameter, size in enumerate(sizes):
        if size < 10 * min(sizes):  # others take gigabytes
            assert rice_encode(indices, parameter).numel() == size
    if measures.rice is None:
        assert min(sizes) >= measures.exp_golomb_num_bytes
    else:
        assert measures.rice == (sizes.index(min(sizes)), min(sizes))
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


def test_the_rice_code_is_left_out_only_where_it_takes_no_fewer_bytes() -> None:
    generator = torch.Generator().manual_seed(1)
    count = 10_000
    clustered = torch.where(
        torch.arange(count) % 500 < 10,
        torch.randint(0, 30_000, (count,), generator=generator),
        torch.randint(0, 4, (count,), generator=generator),
    )
    even = torch.randint(0, 200, (count,), generator=generator)
    assert measure_gaps((clustered + 1).cumsum(0) - 1).rice is None
    assert measure_gaps((even + 1).cumsum(0) - 1).rice is not None


@pytest.mark.parametrize("place", [1, 4095, 4096, 8192, 40_000, 69_999])
def test_an_index_out_of_order_is_found_wherever_it_is(place: int) -> None:
    torch.set_num_threads(2)
    indices = torch.arange(70_000) * 3
    indices[place] = indices[place - 1]
    with pytest.raises(ConfigError, match="ascending"):
        measure_gaps(indices)
