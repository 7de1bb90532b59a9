"""Sums that are compressed again on their way: trees, and servers that compress what they broadcast."""

from typing import Any

import pytest
import torch
from exchange_cases import Party, vectors_of
from torch import Tensor

from thinwire.compressors import QSGD, Identity, RandK, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import ParameterServer, SparseReduceScatter, Tree
from thinwire.memory import ErrorFeedback, NoMemory
from thinwire.methods import GradientAveraging
from thinwire.payloads import Dense, Sparse
from thinwire.wire import encoded_num_bytes

REMEMBER = ErrorFeedback()


def party(exchange: Any, compressor: Any, size: int, numel: int, memory: Any = REMEMBER) -> Party:
    return Party(GradientAveraging(memory=memory, compressor=compressor, exchange=exchange), size, numel)


def top(x: Tensor, k: int) -> Tensor:
    """The k entries of largest magnitude."""
    kept = torch.zeros_like(x)
    places = x.abs().argsort(descending=True, stable=True)[:k]
    kept[places] = x[places]
    return kept


def sparse_bytes(x: Tensor) -> int:
    indices = x.nonzero().reshape(-1)
    return encoded_num_bytes(Sparse(x.numel(), indices, Dense(x[indices])))


def children(rank: int, arity: int, size: int) -> list[int]:
    return [each for each in range(size) if each and (each - 1) // arity == rank]


@pytest.mark.parametrize("arity", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_tree_keeps_the_top_of_every_sum_and_remembers_the_rest(size: int, arity: int) -> None:
    k, numel = 4, 60
    crew = party(Tree(arity=arity, merge=TopK(k=k)), TopK(k=k), size, numel)
    residuals = [torch.zeros(numel) for _ in range(size)]
    left = [torch.zeros(numel) for _ in range(size)]
    moved = [0] * size
    for seed in range(4):
        vectors = vectors_of(size, numel, seed)
        own = [top(residual + x, k) for residual, x in zip(residuals, vectors, strict=True)]
        residuals = [residual + x - q for residual, x, q in zip(residuals, vectors, own, strict=True)]
        up = [torch.empty(0)] * size
        for rank in reversed(range(size)):
            below = children(rank, arity, size)
            up[rank] = own[rank]
            if below:
                total = left[rank] + own[rank]
                for child in below:
                    total = total + up[child]
                up[rank] = top(total, k)
                left[rank] = total - up[rank]
        aggregates = crew.exchange(vectors)
        assert all(torch.equal(each.mean, up[0] / size) for each in aggregates)
        assert [each.message_bytes for each in aggregates] == [sparse_bytes(q) for q in own]
        for rank in range(size):
            moved[rank] += (sparse_bytes(up[rank]) + 8) * (rank > 0)
            moved[rank] += (sparse_bytes(up[0]) + 8) * len(children(rank, arity, size))
    assert [link.bytes_sent for link in crew.traffic] == moved
    for rank, channel in enumerate(crew.channels):
        assert torch.allclose(channel.memory["residual"], residuals[rank])
        if children(rank, arity, size):
            assert torch.allclose(channel.exchange["left"], left[rank])
        else:
            assert channel.exchange == {}


def test_a_tree_without_merge_sends_the_union_until_dense_is_shorter() -> None:
    size, numel, k = 7, 400, 20
    crew = party(Tree(), TopK(k=k), size, numel, NoMemory())
    vectors = vectors_of(size, numel, 0)
    kept = [top(x, k) for x in vectors]
    assert torch.allclose(crew.exchange(vectors)[3].mean, torch.stack(kept).mean(dim=0), atol=1e-6)
    up = {rank: kept[rank] for rank in range(size)}
    up[2] = kept[2] + kept[5] + kept[6]
    up[1] = kept[1] + kept[3] + kept[4]
    up[0] = kept[0] + up[1] + up[2]
    expected = [(sparse_bytes(up[rank]) + 8) * (rank > 0) for rank in range(size)]
    for parent, number in ((0, 2), (1, 2), (2, 2)):
        expected[parent] += number * (sparse_bytes(up[0]) + 8)
    assert [link.bytes_sent for link in crew.traffic] == expected
    dense = party(Tree(), Identity(), size, numel, NoMemory())
    dense.exchange(vectors)
    assert dense.traffic[6].bytes_sent == encoded_num_bytes(Dense(torch.zeros(numel))) + 8


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_server_with_a_downlink_compresses_the_mean_and_what_it_left_out(size: int) -> None:
    k, numel = 3, 40
    crew = party(ParameterServer(server=size - 1, downlink=Sign()), TopK(k=k), size, numel)
    residuals, left = torch.zeros(size, numel), torch.zeros(numel)
    for seed in range(5):
        vectors = torch.stack(vectors_of(size, numel, seed))
        own = torch.stack([top(each, k) for each in residuals + vectors])
        residuals = residuals + vectors - own
        mean = own.sum(dim=0) / size + left
        sent = torch.where(mean < 0, -1.0, 1.0) * mean.abs().mean()
        left = mean - sent
        aggregates = crew.exchange(list(vectors))
        for each in aggregates:
            torch.testing.assert_close(each.mean, sent, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(crew.channels[size - 1].exchange["left"], left, rtol=1e-4, atol=1e-4)
    assert all(channel.exchange == {} for channel in crew.channels[: size - 1])


def test_an_unbiased_operator_that_is_not_remembered_stays_unbiased() -> None:
    numel, size = 500, 3
    operator = QSGD(levels=1, norm="max")
    vectors = vectors_of(size, numel, 0, heavy=False)
    mean = torch.stack(vectors).mean(dim=0)
    for exchange in (
        Tree(merge=operator, remember=False),
        ParameterServer(downlink=operator, remember=False),
        SparseReduceScatter(select=operator, remember=False),
    ):
        crew = party(exchange, operator, size, numel, NoMemory())
        found = torch.stack([crew.exchange(vectors)[0].mean for _ in range(25)]).mean(dim=0)
        assert float(found @ mean / (mean @ mean)) == pytest.approx(1.0, abs=0.08)
        assert all(channel.exchange == {} for channel in crew.channels)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Tree(arity=0), "0 children"),
        (lambda: Tree(remember=False), "no effect without merge"),
        (lambda: ParameterServer(remember=False), "no effect without downlink"),
        (lambda: SparseReduceScatter(remember=False), "no effect without select"),
        (lambda: SparseReduceScatter(select=TopK(k=1), balanced=True), "remembers"),
        (lambda: party(Tree(merge=TopK(k=11)), TopK(k=1), 3, 10), "only 10"),
        (lambda: party(SparseReduceScatter(select=TopK(k=4)), TopK(k=1), 3, 10), "only 3"),
        (lambda: party(Tree(merge=QSGD(levels=1)), TopK(k=1), 3, 100), "not a contraction.*scaled=True"),
        (lambda: party(ParameterServer(downlink=RandK(k=1, unbiased=True)), TopK(k=1), 3, 10), "not a contraction"),
        (lambda: party(ParameterServer(server=3), TopK(k=1), 3, 10), "workers 0 to 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()
