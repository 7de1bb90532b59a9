"""Gradient tracking under gossip: the papers' recursion, what is preserved, and where it ends."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import OPTIMIZERS, Crew, flat, saved, small_model
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.exchanges import Gossip
from thinwire.exchanges.graphs import Complete, Ring, mixing_matrix
from thinwire.memory import Trigger
from thinwire.methods import Consensus, Every, Mix, ModelAveraging, Tracking, parse_method
from thinwire.network import Network
from thinwire.simulator import Simulation
from thinwire.worker import Worker

NUMEL, SIZE = 20, 4
SPARSE = ["beer:density=20%,gamma=0.3", "beer:select=all,values=signs,gamma=0.2", "motef:density=20%,momentum=0.8",
          "beer:levels=3,select=all,graph=complete", "motef:select=random,density=30%,momentum=0.5"]  # fmt: skip


class Bowls:
    """Workers on ``f_i(x) = (x - b_i)^T diag(a_i) (x - b_i) / 2``, each with an optimum of its own, far apart."""

    def __init__(self, text: str, size: int = SIZE, lr: float = 0.1) -> None:
        generator = np.random.default_rng(7)
        self.a = generator.uniform(0.5, 1.5, (size, NUMEL))
        self.b = generator.normal(0.0, 3.0, (size, NUMEL))
        self.crew = Crew(parse_method(text), size, lambda params: torch.optim.SGD(params, lr=lr), Point)
        self.noise = np.zeros((size, NUMEL))

    @property
    def optimum(self) -> Any:
        return (self.a * self.b).sum(axis=0) / self.a.sum(axis=0)

    def step(self, noise: Any = 0.0) -> None:
        for model, gradient in zip(self.crew.models, self.gradients(self.models(), noise), strict=True):
            next(model.parameters()).grad = torch.from_numpy(gradient).float()
        self.crew.simulation.run([worker.step() for worker in self.crew.workers])

    def gradients(self, x: Any, noise: Any = 0.0) -> Any:
        return self.a * (x - self.b) + noise

    def models(self) -> Any:
        return torch.stack([flat(model) for model in self.crew.models]).double().numpy()

    def distance(self) -> float:
        """Of the worker that is furthest from the common optimum."""
        return float(np.linalg.norm(self.models() - self.optimum, axis=1).max())


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.linspace(-1.0, 1.0, NUMEL))


def of_all(workers: Sequence[Worker], prefix: str) -> Tensor:
    return torch.stack([saved(worker, prefix) for worker in workers]).double()


def directions(crew: Crew) -> Tensor:
    return torch.stack([torch.cat([p.grad.reshape(-1) for p in m.parameters() if p.grad is not None])
                        for m in crew.models]).double()  # fmt: skip


def top(x: Any, k: int) -> Any:
    """Of each row the k entries of largest magnitude."""
    kept = np.zeros_like(x)
    for row, out in zip(x, kept, strict=True):
        places = np.argsort(-np.abs(row), kind="stable")[:k]
        out[places] = row[places]
    return kept


@pytest.mark.parametrize(("name", "share"), [("beer", 1.0), ("motef", 0.3), ("motef", 0.05)])
@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize(("graph", "shape"), [("ring", Ring()), ("complete", Complete())])
def test_it_is_what_the_papers_write(name: str, share: float, noise: float, graph: str, shape: Any) -> None:
    k, gamma, lr = 6, 0.3, 0.05
    momentum = "" if name == "beer" else f",momentum={1.0 - share:g}"
    bowls = Bowls(f"{name}:k={k},gamma={gamma},graph={graph}{momentum}", lr=lr)
    noises = np.random.default_rng(3).normal(0.0, noise, (51, SIZE, NUMEL))
    mixing = mixing_matrix(shape, SIZE).numpy() - np.eye(SIZE)
    x = bowls.models()
    h = x.copy()
    m = bowls.gradients(x, noises[0])
    v = m.copy()
    g = top(v, k)  # what is sent of the first V, where the papers have 0
    for number in range(50):
        bowls.step(noises[number])
        np.testing.assert_allclose(directions(bowls.crew).numpy(), v, rtol=0.0, atol=1e-6 * np.abs(m).max())
        x = x + gamma * mixing @ h - lr * v
        h = h + top(x - h, k)
        following = (1.0 - share) * m + share * bowls.gradients(x, noises[number + 1])
        v = v + gamma * mixing @ g + following - m
        g = g + top(v - g, k)
        m = following
        np.testing.assert_allclose(bowls.models(), x, rtol=0.0, atol=1e-6 * np.abs(x).max())


@pytest.mark.parametrize("lr", [0.05, 0.2])
def test_with_exact_messages_to_all_the_mean_model_is_gradient_descent(lr: float) -> None:
    bowls = Bowls("beer:select=all,graph=complete,gamma=1", lr=lr)
    mean = bowls.models().mean(axis=0)
    for _ in range(30):
        # Models are apart by the last step alone: the gradient is of each worker's own point.
        mean = mean - lr * bowls.gradients(bowls.models()).mean(axis=0)
        bowls.step()
        np.testing.assert_allclose(bowls.models().mean(axis=0), mean, rtol=0.0, atol=1e-6 * np.abs(mean).max())


def test_workers_with_the_same_data_do_gradient_descent() -> None:
    bowls = Bowls("beer:density=10%,gamma=0.5", lr=0.2)
    bowls.a[:], bowls.b[:] = bowls.a[0], bowls.b[0]
    x = bowls.models()
    for _ in range(30):
        x = x - 0.2 * bowls.gradients(x)
        bowls.step()
        np.testing.assert_allclose(bowls.models(), x, rtol=0.0, atol=2e-6 * np.abs(x).max())


@pytest.mark.parametrize("text", SPARSE)
@pytest.mark.parametrize("size", [1, 3, 4])
def test_what_is_stepped_by_has_the_mean_of_the_running_means_and_models_move_by_it(text: str, size: int) -> None:
    crew = Crew(parse_method(text), size, OPTIMIZERS["plain"])
    mean = of_models(crew).mean(dim=0)
    for _ in range(25):
        crew.step()
        stepped, own = directions(crew).mean(dim=0), of_all(crew.workers, "tracker_update.mean_gradient").mean(dim=0)
        assert float((stepped - own).norm()) <= 1e-6 * float(directions(crew).norm())
        mean -= 0.1 * stepped
        assert float((of_models(crew).mean(dim=0) - mean).norm()) <= 1e-6 * float(mean.norm())
    assert size == 1 or float(of_all(crew.workers, "tracker_update.moved.").norm()) > 0.0


def of_models(crew: Crew) -> Tensor:
    return torch.stack([flat(model) for model in crew.models]).double()


@pytest.mark.parametrize("text", ["beer:density=20%,gamma=0.3", "motef:density=20%,gamma=0.3,momentum=0.5"])
def test_neighbours_keep_the_weighted_sum_of_what_is_known_of_tracked_gradients(text: str) -> None:
    crew = Crew(parse_method(text), 5).run(6)
    public = of_all(crew.workers, "tracker_update.public.")
    known = of_all(crew.workers, "tracker_update.neighbours.")
    assert float(public.norm()) > 0.0
    torch.testing.assert_close(known, mixing_matrix(Ring(), 5) @ public, rtol=1e-5, atol=1e-6)


def test_workers_with_different_data_come_to_the_common_optimum_where_choco_stays_apart() -> None:
    distances: dict[str, list[float]] = {"beer": [], "choco": []}
    for name, found in distances.items():
        bowls = Bowls(f"{name}:density=20%,gamma=0.3", lr=0.1)
        for number in range(400):
            found += [bowls.distance()] if number % 50 == 0 else []
            bowls.step()
        found.append(bowls.distance())
    tracked, plain = distances["beer"], distances["choco"]
    for before, after in itertools.pairwise(tracked[:4]):
        assert after < 0.05 * before  # linear, until f32 has no more digits
    assert tracked[-1] < 1e-5 * plain[-1]
    assert plain[-1] > 0.9 * plain[1]


def test_under_noise_a_running_mean_ends_nearer_than_the_last_gradient() -> None:
    ends = {}
    for text in ("beer:density=20%,gamma=0.3", "motef:density=20%,gamma=0.3,momentum=0.9"):
        bowls, generator, found = Bowls(text, lr=0.02), np.random.default_rng(11), []
        for number in range(900):
            bowls.step(generator.normal(0.0, 2.0, (SIZE, NUMEL)))
            if number >= 600:
                found.append(bowls.distance() ** 2)
        ends[text.partition(":")[0]] = float(np.mean(found))
    assert ends["motef"] < 0.6 * ends["beer"]


def test_both_messages_leave_together() -> None:
    """One latency a step, though each neighbour gets two messages."""
    seconds = {}
    for text in ("beer:density=20%", "choco:density=20%"):
        crew = Crew(parse_method(text), SIZE)
        crew.simulation = Simulation(SIZE, Network(latency_s=1.0))
        crew.run(4)
        seconds[text.partition(":")[0]] = max(crew.simulation.clocks)
    assert seconds["choco"] == pytest.approx(4.0, rel=1e-3)
    assert seconds["beer"] == pytest.approx(4.0, rel=1e-3)


def test_bytes_of_both_messages_are_counted() -> None:
    counts = [Crew(parse_method(f"{name}:k=5"), 3).run(4).workers[1].message_bytes for name in ("beer", "choco")]
    assert counts[0] == pytest.approx(2 * counts[1], rel=0.1)


@pytest.mark.parametrize("text", ["beer:density=30%,gamma=0.3", "motef:density=30%,momentum=0.5"])
def test_a_parameter_without_gradient_counts_as_one_with_zeros(text: str) -> None:
    crews = [Crew(parse_method(text), 3) for _ in range(2)]
    for number in range(6):
        for crew, absent in zip(crews, (True, False), strict=True):
            for rank, model in enumerate(crew.models):
                for name, param in model.named_parameters():
                    has_none = rank == number % 3 and name == "0.bias"
                    param.grad = None if has_none and absent else torch.full_like(param, float(rank + number))
                    if has_none and param.grad is not None:
                        param.grad.zero_()
            crew.simulation.run([worker.step() for worker in crew.workers])
    assert torch.equal(of_models(crews[0]), of_models(crews[1]))
    assert torch.equal(directions(crews[0]), directions(crews[1]))


def test_a_gradient_that_a_loss_scale_skips_leaves_what_is_tracked() -> None:
    (worker,) = Crew(parse_method("motef:k=5,momentum=0.5"), 1).run(3).workers
    before = saved(worker, "tracker_update.mean_gradient").clone()
    for param in worker.model.parameters():
        param.grad = torch.full_like(param, float("inf"))
    (steps,) = Simulation(1).run([worker.before_step(skips=True)])
    assert steps
    assert torch.equal(saved(worker, "tracker_update.mean_gradient"), before)


def test_half_precision_gradients_are_tracked_in_f32() -> None:
    crew = Crew(parse_method("beer:density=30%,gamma=0.3"), 3, OPTIMIZERS["plain"], lambda: small_model().bfloat16())
    for number in range(8):
        for rank, model in enumerate(crew.models):
            for param in model.parameters():
                param.grad = torch.full_like(param, 0.1 * rank + 0.01 * number)
        crew.simulation.run([worker.step() for worker in crew.workers])
    moved = of_all(crew.workers, "tracker_update.moved.")
    assert float(moved.norm()) > 0.0
    assert float(moved.mean(dim=0).norm()) <= 1e-6 * float(moved.norm())


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"update": Mix(), "exchange": Gossip(graph=Ring())}, r"update=Mix\(\).*Consensus"),
        ({}, r"update=Outer.*Consensus"),
        ({"update": Consensus(), "exchange": Gossip(graph=Ring()), "schedule": Every(2)}, r"Every\(steps=2\)"),
        ({"update": Consensus(), "exchange": Gossip(graph=Ring()), "fragments": 2}, "fragments"),
        ({"update": Consensus(), "exchange": Gossip(graph=Ring()), "trigger": Trigger(level=1.0)}, "trigger"),
    ],
)
def test_what_cannot_be_tracked_is_refused(parts: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ModelAveraging(tracking=Tracking(), **parts)


@pytest.mark.parametrize(
    ("text", "named"),
    [("beer:gamma=0", "above 0"), ("motef:momentum=1", "below 1|to 1"), ("beer:select=all,k=3", "no effect"),
     ("beer:graph=pairs", "pairs"), ("beer:every=2", "every")],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_method(text)


def test_what_makes_no_dense_gradient_once_a_step_is_refused() -> None:
    model = small_model()
    with pytest.raises(ConfigError, match=r"SparseAdam.*tracked"):
        Worker(parse_method("beer"), model, torch.optim.SparseAdam(list(model.parameters())), rank=0, size=1, seed=0)
