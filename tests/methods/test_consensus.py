"""Decentralised averaging: what is preserved, what it becomes without compression, and how fast it agrees."""

from typing import Any

import pytest
import torch
from method_cases import OPTIMIZERS, Crew, backward, flat, saved, shared, small_model
from torch import Tensor, nn

from thinwire.compressors import QSGD, Compressor, Identity, Sign, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Gather, Gossip
from thinwire.exchanges.graphs import Edges, Graph, Ring, Torus, beta, mixing_matrix, spectral_gap
from thinwire.methods import CATALOG, Consensus, ModelAveraging, parse_method
from thinwire.theory.gossip import choco_consensus_step, choco_gossip_factor
from thinwire.worker import needs_server

COMPOSED = [
    "choco:density=10%",
    "choco:select=random,density=20%,gamma=0.05",
    "choco:values=signs,density=20%,every=2",
    "choco:levels=7,k=5,graph=complete",
    "choco:select=all,levels=4,gamma=0.3",
    "choco:select=all,values=signs",
    "d-psgd",
    "d-psgd:graph=complete,every=3",
]


def gossip(compressor: Compressor, graph: Graph, gamma: float) -> ModelAveraging:
    return ModelAveraging(compressor=compressor, exchange=Gossip(graph=graph), update=Consensus(gamma=gamma))


class Point(nn.Module):
    """A model whose gradient is whatever it is given."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(numel))


def scattered(method: ModelAveraging, size: int, numel: int) -> tuple[Crew, Tensor]:
    """Workers that gradients of the first step have put apart; none comes later."""
    crew = Crew(method, size, lambda params: torch.optim.SGD(params, lr=1.0), lambda: Point(numel))
    start = torch.randn(size, numel, generator=torch.Generator().manual_seed(1))
    for model, place in zip(crew.models, start, strict=True):
        model.x.grad = -place
    step(crew)
    for model in crew.models:
        model.zero_grad()
    return crew, start


def step(crew: Crew) -> None:
    crew.simulation.run([worker.step() for worker in crew.workers])


def models_of(crew: Crew) -> Tensor:
    return torch.stack([flat(model) for model in crew.models]).double()


def error_of(models: Tensor) -> float:
    return float((models - models.mean(dim=0)).square().sum())


@pytest.mark.parametrize("text", COMPOSED)
@pytest.mark.parametrize("size", [3, 4])
def test_the_mean_of_the_models_moves_by_the_mean_gradient_alone(text: str, size: int) -> None:
    crew = Crew(parse_method(text), size, OPTIMIZERS["plain"])
    mean = models_of(crew).mean(dim=0)
    for number in range(10):
        gradients = []
        for rank, model in enumerate(crew.models):
            backward(model, rank, number)
            gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
        mean -= 0.1 * torch.stack(gradients).double().mean(dim=0)
        crew.step()
        assert float((models_of(crew).mean(dim=0) - mean).norm()) <= 1e-6 * float(mean.norm())
    # The average of all, at each step: three on a ring are all neighbours. Whether rounding differs, processors decide.
    agree = text == "d-psgd" and size == 3
    assert (error_of(models_of(crew)) < 1e-12) == agree
    # What is evaluated is the worker's own model.
    assert torch.equal(shared(crew.workers[1]), flat(crew.models[1]))


@pytest.mark.parametrize(("graph", "size"), [(Ring(), 5), (Torus(), 9), (Edges(((0, 1), (1, 2))), 3), (Ring(), 1)])
def test_without_compression_it_is_mixing(graph: Any, size: int) -> None:
    crew, start = scattered(gossip(Identity(), graph, 1.0), size, 20)
    weights = mixing_matrix(graph, size)
    expected = weights @ start.double()
    for _ in range(5):
        torch.testing.assert_close(models_of(crew), expected, rtol=1e-5, atol=1e-5)
        step(crew)
        expected = weights @ expected


def test_d_psgd_on_a_complete_graph_is_data_parallel_sgd() -> None:
    crew, reference = (Crew(parse_method(text), 4) for text in ("d-psgd:graph=complete", "sgd"))
    for each in (crew, reference):
        each.run(8)
    assert torch.allclose(flat(crew.models[2]), flat(reference.models[2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("compressor", "omega"), [(TopK(density=0.1), 0.1), (QSGD(levels=4, scaled=True), None), (Sign(), 1 / 40)]
)
@pytest.mark.parametrize(("graph", "size"), [(Ring(), 8), (Torus(), 9)])
def test_workers_agree_at_least_as_fast_as_is_proven(graph: Any, size: int, compressor: Any, omega: Any) -> None:
    """Consensus error and compression error together fall by ``1 - delta^2 omega / 82`` a round."""
    numel, rounds = 40, 30
    omega = omega or compressor.traits(numel).gamma
    weights = mixing_matrix(graph, size)
    delta = spectral_gap(weights)
    gamma = choco_consensus_step(delta, beta(weights), omega)
    crew, start = scattered(gossip(compressor, graph, gamma), size, numel)
    total = 2.0 * error_of(start.double())  # at first nothing of the scattered models is public
    for _ in range(rounds):
        step(crew)
    public = torch.stack([saved(worker, "update.public.") for worker in crew.workers]).double()
    left = error_of(models_of(crew)) + float((models_of(crew) - public).square().sum())
    assert left <= choco_gossip_factor(delta, omega) ** rounds * total


@pytest.mark.parametrize(
    "compressor", [TopK(density=0.2), TopK(density=0.2, values=Sign()), QSGD(levels=4, scaled=True)]
)
def test_a_tuned_step_brings_workers_together_exactly(compressor: Any) -> None:
    crew, start = scattered(gossip(compressor, Ring(), 0.25), 6, 40)
    for _ in range(100):
        step(crew)
    assert error_of(models_of(crew)) < 1e-3 * error_of(start.double())
    torch.testing.assert_close(models_of(crew)[0], start.double().mean(dim=0), rtol=0.05, atol=0.02)


def test_neighbours_keep_the_weighted_sum_of_what_is_public() -> None:
    crew = Crew(parse_method("choco:density=20%,values=signs"), 5).run(6)
    public = torch.stack([saved(worker, "update.public.") for worker in crew.workers]).double()
    known = torch.stack([saved(worker, "update.neighbours.") for worker in crew.workers]).double()
    torch.testing.assert_close(known, mixing_matrix(Ring(), 5) @ public, rtol=1e-5, atol=1e-6)


ROUGH = {
    "choco": ",density=30%,gamma=0.5",
    "sparq": ",density=30%,gamma=0.5,values=exact,every=1,level=0",
    "beer": ",density=30%,gamma=0.3",
    "motef": ",density=30%,gamma=0.3,momentum=0",
    "noloco": ",every=1,lr=1,momentum=0,gamma=0.6",
}
"""Options with which workers come together in a few rounds, and their mean stays."""


def gossiping() -> list[str]:
    """Every row of the catalog in which workers have means of their own, on every graph that it may have."""
    rows = [row.name for row in CATALOG if not parse_method(row.name).exchange.workers_agree]
    names = [name for name in rows if not needs_server(parse_method(name))]
    return [f"{name}:graph={graph}{ROUGH.get(name, '')}" for name in names for graph in ("ring", "torus", "complete")]


@pytest.mark.parametrize("text", [*gossiping(), "choco:select=all,levels=7,gamma=0.5"])
def test_without_gradients_models_stand_still_for_ever(text: str) -> None:
    """Whatever the sums of messages lose would move the models again in every round."""
    method = parse_method(text)
    assert isinstance(method, ModelAveraging)
    crew, start = scattered(method, 4, 64)
    mean, stood = start.double().mean(dim=0), torch.zeros(())
    for number in range(160):
        for model in crew.models:
            model.zero_grad()  # where a gradient is tracked, what was stepped by is in its place
        step(crew)
        stood = models_of(crew) if number == 120 else stood
    models = models_of(crew)
    assert float((models.mean(dim=0) - mean).abs().max()) < 1e-6
    assert error_of(models) < 1e-11
    # A last bit may go to and fro, but nobody goes anywhere.
    assert float((models - stood).abs().max()) < 3e-7


@pytest.mark.parametrize("text", gossiping()[:4:3])
def test_a_state_of_before_rounding_was_kept_is_loaded(text: str) -> None:
    crew = Crew(parse_method(text), 4).run(5)
    states = [worker.state_dict() for worker in crew.workers]
    older = [
        {
            **state,
            "tensors": {name: tensor.clone() for name, tensor in state["tensors"].items() if "rounding" not in name},
        }
        for state in states
    ]
    assert {name.split(".")[1] for name in older[0]["tensors"]} == {"public", "neighbours"}
    again = Crew(parse_method(text), 4).run(3)
    for worker, state in zip(again.workers, older, strict=True):
        worker.load_state_dict(state)
        for name, tensor in worker.state_dict()["tensors"].items():
            expected = state["tensors"].get(name, torch.zeros_like(tensor))
            assert torch.equal(tensor, expected), name
    again.step()
    without = {**older[0], "tensors": {n: t for n, t in older[0]["tensors"].items() if "public" not in n}}
    with pytest.raises(ConfigError, match=r"differs in update\.public"):
        again.workers[0].load_state_dict(without)


def test_sums_that_lose_to_rounding_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Gather.*Gossip\(graph=Complete\(\)\)"):
        ModelAveraging(compressor=TopK(density=0.3), exchange=Gather(), update=Consensus(gamma=0.3))


@pytest.mark.parametrize(
    ("text", "named"),
    [("choco:gamma=0", "above 0"), ("choco:select=all,k=3", "no effect"), ("choco:levels=3,values=signs", "no effect")],
)
def test_what_cannot_be_is_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_method(text)


@pytest.mark.parametrize(("size", "lr"), [(3, 0.1), (4, 0.05)])
def test_double_squeeze_has_a_virtual_iterate(size: int, lr: float) -> None:
    """x - lr (D + mean d_i) takes the mean gradient at every step (Tang et al. 2019)."""
    crew = Crew(parse_method("double-squeeze:density=20%,values=signs"), size, lambda p: torch.optim.SGD(p, lr=lr))
    virtual = flat(small_model()).double()
    for number in range(12):
        gradients = []
        for rank, model in enumerate(crew.models):
            backward(model, rank, number)
            gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
        virtual -= lr * torch.stack(gradients).double().mean(dim=0)
        crew.step()
        residuals = torch.stack([saved(worker, "memory.residual") for worker in crew.workers]).double().mean(dim=0)
        left = saved(crew.workers[0], "exchange.left").double()
        found = models_of(crew)[size - 1] - lr * (left + residuals)
        assert float((found - virtual).norm()) <= 1e-6 * float(virtual.norm())
    assert float(left.norm()) > 0.0
