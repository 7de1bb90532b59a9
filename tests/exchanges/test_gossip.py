"""Graphs, their weights, and what travels under gossip."""

import math
from typing import Any

import pytest
import torch
from exchange_cases import Party, vectors_of

from thinwire.compressors import TopK
from thinwire.errors import ConfigError, NumericsError, ProtocolError
from thinwire.exchanges import Gossip
from thinwire.exchanges.graphs import (
    Complete,
    Edges,
    Ring,
    Torus,
    beta,
    check_doubly_stochastic,
    mixing_matrix,
    neighbours,
    spectral_gap,
)
from thinwire.memory import NoMemory
from thinwire.methods import Consensus, GradientAveraging, ModelAveraging
from thinwire.steps import Send, Steps
from thinwire.theory.gossip import topology_gap

STAR = Edges(((0, 1), (0, 2), (0, 3)))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 9, 16])
@pytest.mark.parametrize("graph", [Ring(), Complete(), Torus()], ids=str)
def test_mixing_is_symmetric_doubly_stochastic_and_contracts(graph: Any, size: int) -> None:
    if graph == Torus() and size in (2, 3):
        with pytest.raises(ConfigError, match="at least 2 rows"):
            mixing_matrix(graph, size)
        return
    weights = mixing_matrix(graph, size)
    assert torch.equal(weights, weights.T)
    assert torch.allclose(weights.sum(dim=0), torch.ones(size, dtype=torch.float64))
    assert float(weights.min()) >= 0.0
    assert 0.0 < spectral_gap(weights) <= 1.0 + 1e-12
    assert 0.0 <= beta(weights) <= 2.0
    for rank in range(size):
        assert tuple((weights[rank] > 0).nonzero().reshape(-1).tolist()) == tuple(
            sorted({*neighbours(graph, size, rank), rank})
        )


@pytest.mark.parametrize("size", [3, 8, 25, 64])
def test_the_gaps_are_those_of_the_formulas(size: int) -> None:
    ring = mixing_matrix(Ring(), size)
    assert torch.all((ring == 0) | (ring - 1 / 3).abs().lt(1e-15))
    assert spectral_gap(ring) == pytest.approx(topology_gap("ring", size))
    assert spectral_gap(mixing_matrix(Complete(), size)) == pytest.approx(1.0)
    if math.isqrt(size) ** 2 == size:
        torus = mixing_matrix(Torus(), size)
        assert torch.all((torus == 0) | (torus - 1 / 5).abs().lt(1e-15))
        assert spectral_gap(torus) == pytest.approx(topology_gap("torus", size))


def test_metropolis_weights_of_a_star() -> None:
    expected = torch.tensor([[1, 1, 1, 1], [1, 3, 0, 0], [1, 0, 3, 0], [1, 0, 0, 3]], dtype=torch.float64) / 4
    assert torch.allclose(mixing_matrix(STAR, 4), expected)
    assert mixing_matrix(Torus(rows=2), 8).count_nonzero(dim=1).tolist() == [4] * 8


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: mixing_matrix(Edges(((0, 1), (2, 3))), 4), "does not join worker 2"),
        (lambda: mixing_matrix(Edges(((0, 4),)), 4), r"edge \(0, 4\).* 0 to 3"),
        (lambda: mixing_matrix(Edges(((1, 1),)), 4), "two different"),
        (lambda: mixing_matrix(Torus(rows=3), 8), "in 3 rows"),
        (lambda: mixing_matrix(Torus(), 7), "torus of 7 workers was asked for.*Use a ring"),
        (lambda: check_doubly_stochastic(torch.tensor([[0.5, 0.5], [0.2, 0.8]])), "off by 0.3"),
        (lambda: check_doubly_stochastic(torch.tensor([[1.5, -0.5], [-0.5, 1.5]])), "least is -0.5"),
        (lambda: check_doubly_stochastic(torch.zeros(2, 3)), "square"),
        (lambda: party(Gossip(graph=Torus()), 5), "torus of 5"),
        (lambda: GradientAveraging(exchange=Gossip()), "drift apart"),
        (lambda: ModelAveraging(exchange=Gossip()), "update=Consensus"),
    ],
)
def test_graphs_that_cannot_be_are_refused(make: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()


def party(exchange: Gossip, size: int, numel: int = 30) -> Party:
    method = ModelAveraging(memory=NoMemory(), compressor=TopK(k=4), exchange=exchange, update=Consensus())
    return Party(method, size, numel)


@pytest.mark.parametrize(("graph", "size"), [(Ring(), 5), (Torus(), 9), (STAR, 4), (Ring(), 1)])
def test_a_message_goes_to_the_neighbours_and_nowhere_else(graph: Any, size: int) -> None:
    crew = party(Gossip(graph=graph), size)
    weights = mixing_matrix(graph, size)
    aggregates = crew.exchange(vectors_of(size, 30, 0))
    sent = torch.stack([each.sent.to_dense() for each in aggregates]).double()
    torch.testing.assert_close(torch.stack([each.mean for each in aggregates]).double(), weights @ sent)
    for rank, (link, aggregate) in enumerate(zip(crew.traffic, aggregates, strict=True)):
        near = neighbours(graph, size, rank)
        assert link.bytes_sent == len(near) * (aggregate.message_bytes + 8)
        assert link.bytes_received == sum(aggregates[other].message_bytes + 8 for other in near)
        assert aggregate.num_vectors == len(near) + 1


def test_neighbours_see_nan_or_infinity_and_with_agree_all_do() -> None:
    vectors = vectors_of(6, 30, 0)
    vectors[2][7] = math.nan
    told = [each.finite for each in party(Gossip(), 6).exchange(vectors)]
    assert told == [True, False, False, False, True, True]
    with pytest.raises(NumericsError, match="no neighbour"):
        party(Gossip(agree=True), 6).exchange(vectors)
    quiet, agreed = party(Gossip(), 6), party(Gossip(agree=True), 6)
    for crew in (quiet, agreed):
        crew.exchange(vectors_of(6, 30, 0))
    extra = [one.bytes_sent - other.bytes_sent for one, other in zip(agreed.traffic, quiet.traffic, strict=True)]
    assert sum(extra) == 6 * 2 * 4 * 5 // 6


def test_a_neighbour_that_stopped_is_named() -> None:
    crew = party(Gossip(), 2)

    def stopped() -> Steps[Any]:
        yield Send(0, torch.zeros(0, dtype=torch.uint8))
        yield Send(0, torch.zeros(0, dtype=torch.uint8))

    with pytest.raises(ProtocolError, match=r"worker 1 has stopped.*agree=True"):
        crew.simulation.run([crew._program(crew.channels[0], torch.ones(30)), stopped()])
