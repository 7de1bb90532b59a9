"""Gossip on graphs that change, outer steps of pairs, and events that decide who speaks: what is written, in numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from method_cases import Crew
from numpy.typing import NDArray
from torch import nn

from thinwire.compressors import Identity, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Gather, Gossip, ParameterServer
from thinwire.exchanges.changing_graphs import OnePeerExponential, RandomPairs, matrix_of, weights_of
from thinwire.exchanges.graphs import Ring, mixing_matrix, spectral_gap
from thinwire.memory import ErrorFeedback, Trigger
from thinwire.methods import Consensus, Every, Mix, ModelAveraging, OuterGossip, parse_method
from thinwire.random import Key

NUMEL, LR = 16, 0.05
Matrix = NDArray[np.float64]
GRAPHS: list[Any] = [RandomPairs(), OnePeerExponential()]


def common(seed: int, number: int) -> Key:
    return Key(seed).fold("exchange", number)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_every_round_conserves_the_mean_and_has_one_message_each(graph: Any, size: int) -> None:
    for number in range(20):
        rows = weights_of(graph, size, number, common(3, number))
        matrix_of(graph, size, number, common(3, number))  # doubly stochastic, or it raises
        talk = [len(row) - 1 for row in rows]
        assert max(talk) <= 1
        assert sum(talk) == (size // 2 * 2 if graph == RandomPairs() else size * (size > 1))
        assert all(weight in (0.5, 1.0) for row in rows for weight in row.values())


def test_log_p_rounds_of_the_exponential_graph_are_the_mean() -> None:
    for power in (1, 2, 3, 4):
        size = 1 << power
        product = torch.eye(size, dtype=torch.float64)
        for number in range(5, 5 + power):
            product = matrix_of(OnePeerExponential(), size, number, Key(0)) @ product
        assert torch.equal(product, torch.full((size, size), 1.0 / size, dtype=torch.float64))


@pytest.mark.parametrize("size", [4, 8])
def test_random_pairs_meet_alike_and_contract_as_is_proven(size: int) -> None:
    """E W'W = E W over all matchings: 1/2 on the diagonal, 1 / (2 (P - 1)) elsewhere."""
    rounds = 4000
    drawn = [matrix_of(RandomPairs(), size, number, common(1, number)) for number in range(rounds)]
    mean = torch.stack([each.T @ each for each in drawn]).mean(dim=0)
    expected = torch.full((size, size), 0.5 / (size - 1), dtype=torch.float64).fill_diagonal_(0.5)
    # Five standard deviations of a frequency, in units of 1/2.
    p = 1.0 / (size - 1)
    assert float((mean - expected).abs().max()) <= 5.0 * 0.5 * (p * (1 - p) / rounds) ** 0.5 + 1e-12
    assert spectral_gap(expected) == pytest.approx(0.5 + 0.5 / (size - 1))
    again = matrix_of(RandomPairs(), size, 7, common(1, 7))
    assert torch.equal(again, drawn[7])
    assert not torch.equal(matrix_of(RandomPairs(), size, 7, common(2, 7)), again) or size == 4


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.linspace(-1.0, 1.0, NUMEL))


def gradient(x: Matrix, rank: int, step: int) -> Matrix:
    rng = np.random.default_rng(rank)
    curvature, lowest = rng.uniform(0.2, 1.0, NUMEL), rng.normal(size=NUMEL)
    return curvature * (x - lowest) + 0.3 * np.random.default_rng((rank, step)).normal(size=NUMEL)


class Bowls:
    """Workers on bowls of their own."""

    def __init__(self, method: ModelAveraging, size: int) -> None:
        self.crew = Crew(method, size, lambda params: torch.optim.SGD(params, lr=LR), Point)
        self.size = size
        self.num_steps = 0

    def step(self) -> None:
        for rank, x in enumerate(self.vectors()):
            x.grad = torch.from_numpy(gradient(x.detach().double().numpy(), rank, self.num_steps)).float()
        self.crew.simulation.run([worker.step() for worker in self.crew.workers])
        self.num_steps += 1

    def vectors(self) -> list[nn.Parameter]:
        return [next(model.parameters()) for model in self.crew.models]

    def models(self) -> Matrix:
        return torch.stack([x.detach().double() for x in self.vectors()]).numpy()


def start(size: int) -> Matrix:
    return np.tile(np.linspace(-1.0, 1.0, NUMEL, dtype=np.float32).astype(np.float64), (size, 1))


def local_steps(x: Matrix, step: int) -> Matrix:
    return np.stack([own - LR * gradient(own, rank, step) for rank, own in enumerate(x)])


def parsed(text: str) -> ModelAveraging:
    method = parse_method(text)
    assert isinstance(method, ModelAveraging)
    return method


@pytest.mark.parametrize(("name", "graph"), [("pairs", RandomPairs()), ("exponential", OnePeerExponential())])
@pytest.mark.parametrize("size", [4, 5])
def test_d_psgd_mixes_by_the_matrix_of_each_round(name: str, graph: Any, size: int) -> None:
    bowls, x = Bowls(parsed(f"d-psgd:graph={name}"), size), start(size)
    for step in range(60):
        bowls.step()
        x = matrix_of(graph, size, step, common(5, step)).numpy() @ local_steps(x, step)
        np.testing.assert_allclose(bowls.models(), x, rtol=0, atol=1e-6)
    assert np.abs(x - x.mean(axis=0)).max() > 1e-3
    sent = [link.bytes_sent for link in bowls.crew.simulation.traffic]
    assert sum(sent) < 60 * size * (4 * NUMEL + 40)


@pytest.mark.parametrize(("momentum", "gamma"), [(0.5, 0.7), (0.0, 1.0), (0.3, 1.2)])
@pytest.mark.parametrize("size", [2, 5, 6])
def test_noloco_is_what_is_written(momentum: float, gamma: float, size: int) -> None:
    every, lr = 3, 0.7
    bowls = Bowls(parsed(f"noloco:every={every},momentum={momentum},gamma={gamma}"), size)
    x, slow, velocity = start(size), start(size), np.zeros((size, NUMEL))
    for step in range(150):
        bowls.step()
        x = local_steps(x, step)
        if step % every == every - 1:
            number = step // every
            weights = matrix_of(RandomPairs(), size, number, common(5, number)).numpy()
            moved = weights @ (x - slow)
            velocity = momentum * velocity + lr * moved - gamma * (slow - weights @ slow)
            slow = slow + velocity
            x = slow.copy()
        np.testing.assert_allclose(bowls.models(), x, rtol=0, atol=2e-6)
    # Two always have each other.
    assert (np.abs(slow - slow.mean(axis=0)).max() > 1e-3) == (size > 2)


@pytest.mark.parametrize("graph", ["pairs", "exponential", "ring"])
def test_slow_weights_move_by_the_mean_alone_and_come_together(graph: str) -> None:
    """The terms that draw workers together add up to nothing; without gradients all end at one point and stay there."""
    size = 6
    bowls = Bowls(parsed(f"noloco:every=1,graph={graph}"), size)
    mean, velocity = start(size)[0], np.zeros(NUMEL)
    for step in range(50):
        before = bowls.models()
        bowls.step()
        velocity = 0.5 * velocity + 0.7 * (local_steps(before, step) - before).mean(axis=0)
        mean = mean + velocity
        np.testing.assert_allclose(bowls.models().mean(axis=0), mean, rtol=0, atol=2e-6)
    apart = np.abs(bowls.models() - bowls.models().mean(axis=0)).max()
    assert apart > 1e-2
    for x in bowls.vectors():
        x.grad = None
    for _ in range(150):
        bowls.crew.simulation.run([worker.step() for worker in bowls.crew.workers])
    stood = bowls.models()
    assert np.abs(stood - stood.mean(axis=0)).max() < 1e-6
    bowls.crew.simulation.run([worker.step() for worker in bowls.crew.workers])
    assert np.abs(bowls.models() - stood).max() < 3e-7


@pytest.mark.parametrize(("level", "growth"), [(0.0, 0.0), (40.0, 0.0), (4.0, 0.5)])
def test_sparq_is_what_is_written(level: float, growth: float) -> None:
    size, every, k, gamma = 5, 2, 4, 0.3
    text = f"sparq:k={k},every={every},level={level},growth={growth},gamma={gamma},values=exact"
    bowls, weights = Bowls(parsed(text), size), mixing_matrix(Ring(), size).numpy()
    x, public = start(size), start(size)
    num_spoken = num_rounds = 0
    for step in range(120):
        bowls.step()
        x = local_steps(x, step)
        if step % every == every - 1:
            difference = x - public
            for rank, row in enumerate(difference):
                num_rounds += 1
                if row @ row > level * (step + 1) ** growth * LR**2:
                    num_spoken += 1
                    kept = np.argsort(-np.abs(row), kind="stable")[:k]
                    public[rank, kept] += row[kept]
            x = x + gamma * (weights @ public - public)
        np.testing.assert_allclose(bowls.models(), x, rtol=0, atol=1e-6)
    assert num_spoken == num_rounds if level == 0.0 else 0.1 < num_spoken / num_rounds < 0.9
    # Who says nothing sends a few bytes: no index and no value.
    told, silent = num_spoken, num_rounds - num_spoken
    num_bytes = sum(worker.message_bytes for worker in bowls.crew.workers)
    longest = 4 * k + 24
    assert num_bytes <= told * longest + silent * 13
    assert num_bytes >= told * 4 * k


def test_who_is_below_the_threshold_keeps_all_in_its_memory() -> None:
    """With error feedback in a gather: what the messages and the memories hold is all that was done."""
    method = ModelAveraging(
        schedule=Every(2), memory=ErrorFeedback(), compressor=TopK(k=3), exchange=Gather(), trigger=Trigger(level=30.0)
    )
    size = 4
    bowls = Bowls(method, size)
    moved = start(size)[0]
    lengths = set()
    for step in range(40):
        before, counted = bowls.models(), [worker.message_bytes for worker in bowls.crew.workers]
        bowls.step()
        moved = moved + (local_steps(before, step) - before).mean(axis=0)
        if step % 2:
            lengths |= {w.message_bytes - c for w, c in zip(bowls.crew.workers, counted, strict=True)}
            owed = [worker.channels[0].memory["residual"].double().numpy() for worker in bowls.crew.workers]
            np.testing.assert_allclose(bowls.models()[0] - np.mean(owed, axis=0), moved, rtol=0, atol=2e-6)
    assert min(lengths) == 13 < max(lengths)


@pytest.mark.parametrize("text", ["noloco:every=2", "d-psgd:graph=pairs", "sparq:every=2,density=30%,level=20"])
def test_a_crew_goes_on_where_it_was_saved(text: str) -> None:
    whole, first = Bowls(parsed(text), 5), Bowls(parsed(text), 5)
    for _ in range(20):
        whole.step()
    for _ in range(9):
        first.step()
    second = Bowls(parsed(text), 5)
    second.num_steps = 9
    for number, worker in enumerate(first.crew.workers):
        saved = worker.state_dict()
        second.crew.models[number].load_state_dict(first.crew.models[number].state_dict())
        second.crew.workers[number].load_state_dict(
            {**saved, "tensors": {name: each.clone() for name, each in saved["tensors"].items()}}
        )
    for _ in range(11):
        second.step()
    assert np.array_equal(second.models(), whole.models())


def test_what_cannot_be_is_refused() -> None:
    changing = Gossip(graph=RandomPairs())
    for make, named in (
        (lambda: ModelAveraging(exchange=changing, update=Consensus()), "has others in each exchange.*Mix"),
        (lambda: ModelAveraging(exchange=changing, update=Mix(), compressor=TopK(k=1)), "as they are"),
        (lambda: ModelAveraging(exchange=changing, update=OuterGossip(), delay=1), "leave out the delay"),
        (lambda: ModelAveraging(exchange=changing), "drift apart"),
        (lambda: ModelAveraging(update=Mix()), "rounds each of them"),
        (lambda: ModelAveraging(exchange=ParameterServer(), trigger=Trigger()), "Gather and Gossip"),
        (lambda: ModelAveraging(exchange=changing, update=Mix(), trigger=Trigger()), "as they are"),
        (lambda: OuterGossip(gamma=0.0), "gamma 0.0"),
        (lambda: Trigger(level=-1.0), "level -1.0"),
        (lambda: Trigger(growth=1.0), "growth 1.0"),
    ):
        with pytest.raises(ConfigError, match=named):
            make()
    assert ModelAveraging(exchange=Gather(), trigger=Trigger(), compressor=Identity()).trigger == Trigger()
