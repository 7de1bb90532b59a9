"""Means that a few workers cannot bend."""

import math

import numpy as np
import pytest
import torch
from exchange_cases import Party, vectors_of
from torch import Tensor

from thinwire.compressors import QSGD, Identity, RandK, SharedSeedRandK, Sign, TopK
from thinwire.compressors.base import Compressor
from thinwire.errors import ConfigError
from thinwire.exchanges import RobustGather
from thinwire.exchanges.robust import _BLOCK_NUMEL
from thinwire.methods import GradientAveraging

KINDS = [RobustGather(), RobustGather("trimmed"), RobustGather("trimmed", trim=0.4)]


def exchanged(exchange: RobustGather, vectors: list[Tensor], compressor: Compressor | None = None) -> Tensor:
    method = GradientAveraging(compressor=compressor or Identity(), exchange=exchange)
    means = [aggregate.mean for aggregate in Party(method, len(vectors), vectors[0].numel()).exchange(vectors)]
    assert all(torch.equal(mean, means[0]) for mean in means)
    return means[0]


@pytest.mark.parametrize("size", [3, 4, 5, 8, 9])
@pytest.mark.parametrize("exchange", KINDS, ids=str)
def test_it_is_the_mean_of_the_papers_definition(exchange: RobustGather, size: int) -> None:
    for numel in (1, 257, _BLOCK_NUMEL + 3 if size == 4 else 64):
        vectors = vectors_of(size, numel, 1)
        columns = np.sort(torch.stack(vectors).double().numpy(), axis=0)
        count = max(1, math.floor(exchange.trim * size))
        expected = np.median(columns, axis=0) if exchange.kind == "median" else columns[count : size - count].mean(0)
        np.testing.assert_allclose(exchanged(exchange, vectors).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [1e30, -1e30, 0.0])
@pytest.mark.parametrize("exchange", KINDS, ids=str)
def test_the_few_cannot_leave_the_range_of_the_others(exchange: RobustGather, value: float) -> None:
    size = 9
    few = min(exchange.num_trimmed(size), (size - 1) // 2)
    honest = vectors_of(size - few, 500, 2)
    mean = exchanged(exchange, [*honest[:2], *[torch.full((500,), value)] * few, *honest[2:]])
    stacked = torch.stack(honest)
    assert bool((mean >= stacked.min(0).values).all())
    assert bool((mean <= stacked.max(0).values).all())
    # More of them can, so the law is as tight as it is said to be.
    honest = vectors_of(size - few - 1, 500, 2)
    bent = exchanged(exchange, [*honest, *[torch.full((500,), 1e30)] * (few + 1)])
    assert bool((bent > torch.stack(honest).max(0).values).any())


def test_zeros_of_both_signs_are_ordered_by_rank() -> None:
    mean = exchanged(RobustGather(), [torch.tensor([-0.0]), torch.tensor([0.0]), torch.tensor([-0.0])])
    assert math.copysign(1.0, mean.item()) == 1.0


@pytest.mark.parametrize("compressor", [QSGD(levels=7), Sign(), SharedSeedRandK(density=0.2, shared=True)], ids=str)
def test_messages_of_common_entries_are_compared(compressor: Compressor) -> None:
    same = [torch.linspace(-1.0, 1.0, 200)] * 5
    wild = [*same[:4], torch.full((200,), 1e20)]
    assert float(exchanged(RobustGather(), wild, compressor).abs().max()) < 20.0


@pytest.mark.parametrize("compressor", [TopK(k=3), RandK(k=3)], ids=str)
def test_messages_of_entries_of_ones_own_choice_are_refused(compressor: Compressor) -> None:
    with pytest.raises(ConfigError, match="which entries it sends"):
        exchanged(RobustGather(), vectors_of(3, 40, 0), compressor)


@pytest.mark.parametrize("trim", [0.0, 0.5, -0.1, math.nan])
def test_a_trim_out_of_range_is_refused(trim: float) -> None:
    with pytest.raises(ConfigError, match="trim"):
        RobustGather("trimmed", trim=trim)
