"""Owners of regions, islands, and values that all workers draw alike."""

from typing import Any

import pytest
import torch
from exchange_cases import Party, region, vectors_of
from torch import Tensor

from thinwire.compressors import BlockRandK, Identity, RandK, SharedSeedRandK, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import AllReduce, Gather, Hierarchical, SparseReduceScatter
from thinwire.exchanges.sparse_reduce_scatter import balanced_bounds
from thinwire.memory import ErrorFeedback, NoMemory
from thinwire.methods import GradientAveraging
from thinwire.network import all_reduce_traffic
from thinwire.payloads import Dense, Sparse
from thinwire.steps import Receive, Send
from thinwire.wire import encoded_num_bytes

REMEMBER = ErrorFeedback()


def party(exchange: Any, compressor: Any, size: int, numel: int, memory: Any = REMEMBER) -> Party:
    return Party(GradientAveraging(memory=memory, compressor=compressor, exchange=exchange), size, numel)


def exact_bytes(x: Tensor) -> int:
    indices = x.nonzero().reshape(-1)
    sparse = encoded_num_bytes(Sparse(x.numel(), indices, Dense(x[indices])))
    return min(sparse, encoded_num_bytes(Dense(x)))


@pytest.mark.parametrize("compressor", [TopK(density=0.05), TopK(density=0.7), RandK(k=30), TopK(k=20, values=Sign())])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_owners_add_up_their_regions_and_all_pieces_are_counted(size: int, compressor: Any) -> None:
    numel = 300
    crew, gathered = (
        party(exchange, compressor, size, numel) for exchange in (SparseReduceScatter(), Gather())
    )  # fmt: skip
    expected = [0] * size
    for seed in range(3):
        vectors = vectors_of(size, numel, seed)
        aggregates, others = crew.exchange(vectors), gathered.exchange(vectors)
        # The same sums in the same order, by another route.
        assert all(torch.equal(each.mean, other.mean) for each, other in zip(aggregates, others, strict=True))
        own = [each.sent.to_dense() for each in aggregates]
        for rank in range(size):
            for owner in range(size):
                start, stop = region(numel, size, owner)
                if owner != rank:
                    expected[rank] += exact_bytes(own[rank][start:stop]) + 8
            start, stop = region(numel, size, rank)
            total = torch.zeros(stop - start)
            for vector in own:
                total += vector[start:stop]
            expected[rank] += (size - 1) * (exact_bytes(total) + 8)
    assert [link.bytes_sent for link in crew.traffic] == expected


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_worker_sends_to_the_next_one_first(size: int) -> None:
    """So no owner's link is everybody's first; what comes is added up in rank order all the same."""
    crew = party(SparseReduceScatter(), TopK(k=9), size, 30)
    crew.exchange(vectors_of(size, 30, 0))
    for rank, requests in enumerate(crew.requests):
        sent = [op.destination for op in requests if isinstance(op, Send)]
        assert sent == [(rank + step) % size for step in range(1, size)]
        heard = [op.source for op in requests if isinstance(op, Receive)]
        assert heard == [other for other in range(size) if other != rank]


@pytest.mark.parametrize("size", [2, 5, 8])
def test_owners_that_select_remember_the_rest_of_their_region(size: int) -> None:
    numel, k = 240, 6
    select = TopK(density=0.1)
    crew = party(SparseReduceScatter(select=select), TopK(k=k), size, numel)
    left = [torch.zeros(region(numel, size, rank)[1] - region(numel, size, rank)[0]) for rank in range(size)]
    for seed in range(4):
        aggregates = crew.exchange(vectors_of(size, numel, seed))
        own = [each.sent.to_dense() for each in aggregates]
        mean = torch.zeros(numel)
        for rank in range(size):
            start, stop = region(numel, size, rank)
            total = left[rank].clone()
            for vector in own:
                total += vector[start:stop]
            count = max(1, int(0.1 * (stop - start) + 0.5))
            places = total.abs().argsort(descending=True, stable=True)[:count]
            mean[start + places] = total[places]
            total[places] = 0.0
            left[rank] = total
        assert torch.equal(aggregates[0].mean, mean / size)
        assert int((mean != 0).sum()) <= size * (int(0.1 * numel / size + 0.5) + 1)
    assert all(torch.equal(channel.exchange["left"], each) for channel, each in zip(crew.channels, left, strict=True))


def test_with_selection_bytes_stay_near_the_lower_bound_where_a_gather_grows() -> None:
    numel, k = 20_000, 400
    found = {}
    for size in (2, 8, 16):
        vectors = vectors_of(size, numel, 0)
        for name, exchange in (("sharded", SparseReduceScatter(select=TopK(k=k // size))), ("gather", Gather())):
            crew = party(exchange, TopK(k=k), size, numel)
            (message, *_) = (each.message_bytes for each in crew.exchange(vectors))
            bound = 2 * (size - 1) / size * message
            found[name, size] = sum(link.bytes_sent for link in crew.traffic) / size / bound
    assert all(ratio < 1.3 for (name, _), ratio in found.items() if name == "sharded"), found
    assert found["gather", 16] == pytest.approx(8.0, rel=0.02)


def test_balanced_regions_follow_the_support_of_the_mean() -> None:
    numel, size = 400, 4
    crew = party(SparseReduceScatter(balanced=True), TopK(k=40), size, numel, NoMemory())
    vectors = vectors_of(size, numel, 0)
    for vector in vectors:
        vector[60:] *= 1e-6  # all that is kept lies in the first region
    first = crew.exchange(vectors)
    bounds = crew.channels[0].exchange["bounds"]
    support = first[0].mean.nonzero().reshape(-1)
    shares = torch.histogram(support.double(), bounds.double())[0]
    assert float(shares.max() - shares.min()) <= 1.0
    assert all(torch.equal(channel.exchange["bounds"], bounds) for channel in crew.channels)
    before = [link.bytes_received for link in crew.traffic]
    again = crew.exchange(vectors)
    after = [link.bytes_received - was for link, was in zip(crew.traffic, before, strict=True)]
    assert torch.equal(again[0].mean, first[0].mean)
    assert max(after) < 1.5 * min(after)
    assert max(before) > max(after)
    assert balanced_bounds(torch.zeros(10), 4).tolist() == [0, 2, 5, 7, 10]


@pytest.mark.parametrize(("size", "island"), [(1, 2), (5, 2), (8, 4), (4, 1), (3, 5)])
def test_only_leaders_compress_and_use_the_links_between_islands(size: int, island: int) -> None:
    numel, k = 64, 5
    crew = party(Hierarchical(island), TopK(k=k), size, numel)
    residuals: dict[int, Tensor] = {leader: torch.zeros(numel) for leader in range(0, size, island)}
    expected = [0] * size
    dense = encoded_num_bytes(Dense(torch.zeros(numel)))
    for seed in range(3):
        vectors = vectors_of(size, numel, seed)
        total = torch.zeros(numel)
        sent = {}
        for leader in residuals:
            island_sum = vectors[leader].clone()
            for member in range(leader + 1, min(leader + island, size)):
                island_sum += vectors[member]
                expected[member] += dense + 8
            residuals[leader] = residuals[leader] + island_sum
            places = residuals[leader].abs().argsort(descending=True, stable=True)[:k]
            sent[leader] = torch.zeros(numel)
            sent[leader][places] = residuals[leader][places]
            residuals[leader][places] = 0.0
            total += sent[leader]
        aggregates = crew.exchange(vectors)
        assert all(torch.allclose(each.mean, total / size) for each in aggregates)
        for leader, message in sent.items():
            members = min(leader + island, size) - leader - 1
            expected[leader] += (len(sent) - 1) * (exact_bytes(message) + 8) + members * (exact_bytes(total) + 8)
            assert aggregates[leader].message_bytes == exact_bytes(message)
        assert all(each.message_bytes == dense for rank, each in enumerate(aggregates) if rank not in sent)
    assert [link.bytes_sent for link in crew.traffic] == expected
    for rank, channel in enumerate(crew.channels):
        assert torch.allclose(channel.memory["residual"], residuals.get(rank, torch.zeros(numel)), atol=1e-5)
    with pytest.raises(ConfigError, match="0 workers"):
        Hierarchical(0)


def test_of_a_leader_the_sum_of_its_island_is_watched() -> None:
    crew = party(Hierarchical(2), TopK(k=5), 2, 64)
    vectors = vectors_of(2, 64, 0)
    programs = [
        channel.run(channel.gather([vector])[0], crew.method.compressor, True, 0, is_watched=True)
        for channel, vector in zip(crew.channels, vectors, strict=True)
    ]
    leader, member = crew.simulation.run(programs)
    assert leader.intended is not None
    assert member.intended is not None
    assert torch.equal(leader.intended, vectors[0] + vectors[1])
    assert torch.equal(member.intended, vectors[1])


@pytest.mark.parametrize(
    "compressor",
    [
        SharedSeedRandK(k=7, shared=True),
        SharedSeedRandK(density=0.1, shared=True, unbiased=True),
        SharedSeedRandK(k=0.5, shared=True),
        BlockRandK(density=0.3, block=9, shared=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_only_the_values_of_a_shared_support_are_all_reduced(size: int, compressor: Any) -> None:
    numel = 100
    memory: Any = ErrorFeedback() if compressor.traits(numel).error < 1 else NoMemory()
    crew, gathered = (party(exchange, compressor, size, numel, memory) for exchange in (AllReduce(), Gather()))
    handed_over = 0
    for seed in range(6):
        vectors = vectors_of(size, numel, seed)
        aggregates, others = crew.exchange(vectors), gathered.exchange(vectors)
        assert all(torch.equal(each.mean, other.mean) for each, other in zip(aggregates, others, strict=True))
        assert len({each.message_bytes for each in aggregates}) == 1
        handed_over = aggregates[0].message_bytes // 4
        assert handed_over <= 37
    traffic = all_reduce_traffic(handed_over, size)
    assert [link.bytes_sent for link in crew.traffic] == [6 * each.bytes_sent for each in traffic]
    assert compressor.traits(numel).linear


def test_supports_that_differ_are_not_all_reduced() -> None:
    for compressor in (
        SharedSeedRandK(k=7), BlockRandK(density=0.5), SharedSeedRandK(k=7, shared=True, values=Sign()),
        BlockRandK(density=0.5, shared=True, values=TopK(k=1)),
    ):  # fmt: skip
        assert not compressor.traits(100).linear
        with pytest.raises(ConfigError, match="AllReduce"):
            GradientAveraging(compressor=compressor)
    assert Identity().traits(3).linear
