"""Sparse payloads that anyone may build: any values inside, and indices that would write elsewhere."""

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import pack
from thinwire.layout import Segments
from thinwire.payloads import Dense, Levels, Payload, Signs, Sparse

NUMEL, COUNT = 5000, 300


def values() -> list[Payload]:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(COUNT, generator=generator)
    cut = Segments.uniform(COUNT, 64)
    scales = torch.rand(cut.count, generator=generator)
    return [
        Dense(numbers),
        Dense(numbers.bfloat16()),
        Signs(pack(numbers < 0, 1), scales, cut),
        Levels(pack(torch.randint(0, 15, (COUNT,), generator=generator), 4), scales, 7, cut),
        Sparse(COUNT, torch.arange(0, COUNT, 7), Dense(numbers[::7])),
    ]


def places() -> Tensor:
    return torch.randperm(NUMEL, generator=torch.Generator().manual_seed(1))[:COUNT].sort().values


@pytest.mark.parametrize("number", range(5))
def test_values_of_any_kind_lie_at_their_places(number: int) -> None:
    inside = values()[number]
    sparse = Sparse(NUMEL, places(), inside)
    dense = sparse.to_dense()
    assert torch.equal(dense[places()], inside.to_dense())
    assert int(dense.count_nonzero()) == int(inside.to_dense().count_nonzero())
    start = torch.randn(NUMEL, generator=torch.Generator().manual_seed(2))
    for scale in (1.0, -1.0, 1 / 3):
        out = start.clone()
        sparse.add_to(out, scale)
        assert torch.equal(out, start + dense * scale)


def test_a_payload_is_not_changed_by_what_is_made_of_it() -> None:
    numbers = torch.ones(2)
    sparse = Sparse(4, torch.tensor([0, 3]), Dense(numbers))
    sparse.to_dense().fill_(7)
    sparse.add_to(torch.zeros(4), 5.0)
    assert numbers.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("indices", [[-1, 2], [2, 2], [3, 1], [0, 4], [0, 2**40]])
def test_indices_that_cannot_be_are_refused_before_anything_is_written(indices: list[int]) -> None:
    sparse = Sparse(4, torch.tensor(indices), Dense(torch.ones(2)))
    out = torch.zeros(4)
    with pytest.raises(ConfigError, match="ascend"):
        sparse.add_to(out)
    assert not out.any()
    with pytest.raises(ConfigError, match="ascend"):
        sparse.to_dense()


def test_more_values_than_indices_are_refused() -> None:
    with pytest.raises(ConfigError, match="as many"):
        Sparse(4, torch.tensor([1]), Dense(torch.ones(2))).add_to(torch.zeros(4))
