"""DOWNPOUR and its kin: the papers' pseudo-code in f64, and a server whose state goes on with it."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from thinwire.errors import ConfigError, NumericsError
from thinwire.methods import AveragedCentre, Downpour, ElasticFollow, ModelAveraging, parse_method
from thinwire.methods.catalog import find_row
from thinwire.payloads import Dense
from thinwire.simulator import Simulation
from thinwire.steps import Steps, compute
from thinwire.worker import Server, Worker

NUMEL, SIZE, LR = 12, 3, 0.02
SECONDS = (1.0, 1.7, 0.6)
"""What a step takes each worker: messages come in no simple order."""

Vector = NDArray[np.float64]


def bowl(rank: int) -> tuple[Vector, Vector]:
    """Curvatures and the lowest point of a worker's own data."""
    rng = np.random.default_rng(rank)
    return rng.uniform(0.2, 1.0, NUMEL), rng.normal(size=NUMEL)


def gradient(x: Vector, rank: int, step: int) -> Vector:
    curvature, lowest = bowl(rank)
    return curvature * (x - lowest) + 0.1 * np.random.default_rng((rank, step)).normal(size=NUMEL)


class Point(nn.Module):
    """A vector."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.linspace(-1.0, 1.0, NUMEL))


class Farm:
    """Workers on bowls of their own, and a server."""

    def __init__(self, text: str, size: int = SIZE) -> None:
        self.method = parse_method(text)
        assert isinstance(self.method, ModelAveraging)
        self.models = [Point() for _ in range(size)]
        self.workers = [
            Worker(self.method, model, torch.optim.SGD(model.parameters(), lr=LR), rank=rank, size=size, seed=5)
            for rank, model in enumerate(self.models)
        ]
        self.server = Server(self.method, Point(), size=size)
        self.simulation = Simulation(size + 1)
        self.order: list[int] = []

    def run(self, num_messages: int) -> "Farm":
        programs = [self.train(worker, model) for worker, model in zip(self.workers, self.models, strict=True)]
        self.simulation.run([*programs, self.server.serve(self.server.num_merged + num_messages)])
        return self

    def train(self, worker: Worker, model: Point) -> Steps[None]:
        while True:
            yield from compute(SECONDS[worker.rank])
            grad = gradient(model.x.detach().double().numpy(), worker.rank, worker.num_steps)
            model.x.grad = torch.from_numpy(grad).float()
            before = worker.num_exchanges
            yield from worker.step()
            if worker.num_exchanges > before:
                self.order.append(worker.rank)
                if worker.is_paused:
                    return

    def states(self) -> list[dict[str, Any]]:
        copies = [worker.state_dict() for worker in self.workers] + [self.server.state_dict()]
        return [
            {part: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in each[part].items()} for part in each}
            for each in copies
        ]


def written_out(order: list[int], every: int, momentum: float, rate: float | None) -> tuple[Vector, Vector]:
    """The centre and its average after messages came in that order.

    Each worker takes ``every`` steps from the centre that it got last, and hands in their sum v. With momentum the
    centre is written as x + delta v of the two sequences of Nesterov: v' = delta v - eta g; x' = x + v'.
    """
    start = np.linspace(-1.0, 1.0, NUMEL).astype(np.float32).astype(np.float64)
    x, velocity, average = start.copy(), np.zeros(NUMEL), start.copy()
    fetched, steps = [start.copy() for _ in range(SIZE)], [0] * SIZE
    for t, rank in enumerate(order):
        own, moved = fetched[rank].copy(), np.zeros(NUMEL)
        for _ in range(every):
            step = -LR * gradient(own, rank, steps[rank])
            steps[rank] += 1
            own, moved = own + step, moved + step
        centre = x + momentum * velocity
        alpha = 1.0 / (t + 1) if rate is None else rate
        average = (1.0 - alpha) * average + alpha * centre
        velocity = momentum * velocity + moved
        x = x + velocity
        fetched[rank] = x + momentum * velocity
    return x + momentum * velocity, average


@pytest.mark.parametrize(
    ("text", "every", "momentum", "rate"),
    [
        ("downpour:every=4", 4, 0.0, None),
        ("mdownpour:momentum=0.9", 1, 0.9, None),
        ("adownpour:every=2", 2, 0.0, None),
        ("mvadownpour:rate=0.05", 1, 0.0, 0.05),
    ],
)
def test_the_server_does_what_is_written(text: str, every: int, momentum: float, rate: float | None) -> None:
    farm = Farm(text).run(120)
    centre, average = written_out(farm.order, every, momentum, rate)
    assert len(farm.order) >= 120
    assert farm.server.max_staleness > 1
    found = farm.server.parameters()["x"].double().numpy()
    np.testing.assert_allclose(found, centre, rtol=0, atol=1e-6)
    shared = farm.server.shared_parameters()["x"].double().numpy()
    is_averaged = isinstance(farm.server.method.update, AveragedCentre)
    np.testing.assert_allclose(shared, average if is_averaged else centre, rtol=0, atol=1e-6)
    assert float(np.abs(average - centre).max()) > 1e-3


def test_one_worker_of_mdownpour_is_nesterov_sgd_and_of_downpour_sgd() -> None:
    for text, momentum in (("mdownpour:momentum=0.9", 0.9), ("downpour:every=5", 0.0)):
        farm = Farm(text, size=1).run(50)
        model = Point()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=momentum, nesterov=momentum > 0.0)
        for step in range(farm.workers[0].num_steps):
            model.x.grad = torch.from_numpy(gradient(model.x.detach().double().numpy(), 0, step)).float()
            optimizer.step()
        # Both are in f32, and momentum adds up ten steps of roundings.
        torch.testing.assert_close(farm.server.parameters()["x"], model.x.detach(), rtol=0, atol=5e-6)


@pytest.mark.parametrize("text", ["mdownpour:momentum=0.9", "adownpour:every=2", "mvadownpour:rate=0.1"])
def test_a_server_goes_on_where_it_was_saved(text: str) -> None:
    whole, first, second = Farm(text).run(30).run(30), Farm(text).run(30), Farm(text)
    for worker, model, saved, held in zip(second.workers, second.models, first.states(), first.models, strict=False):
        worker.load_state_dict(saved)
        model.load_state_dict(held.state_dict())
    second.server.load_state_dict(first.states()[-1])
    second.simulation.load_state_dict(first.simulation.state_dict())
    second.run(30)
    for found, expected in zip(second.states(), whole.states(), strict=True):
        for part in expected:
            for name, value in expected[part].items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(found[part][name], value), name
    other = Server(parse_method("downpour"), Point(), size=SIZE).state_dict()
    with pytest.raises(ConfigError, match="of method"):
        second.server.load_state_dict(other)
    without = {**first.states()[-1], "update": {}}
    with pytest.raises(ConfigError, match="of another model"):
        second.server.load_state_dict(without)


def test_a_state_of_before_servers_had_one_is_loaded() -> None:
    server = Server(parse_method("easgd-async"), Point(), size=2)
    saved = server.state_dict()
    assert saved.pop("update") == {}
    server.load_state_dict(saved)


def test_what_is_not_finite_leaves_the_servers_state_as_it_was() -> None:
    server = Server(parse_method("mdownpour"), Point(), size=1)
    turn = server.begin()
    before = {name: each.clone() for name, each in server.state_dict()["update"].items()}
    assert set(before) == {"velocity.x"}
    worker = Worker(
        server.method, model := Point(), torch.optim.SGD(model.parameters(), lr=1.0), rank=0, size=1, seed=0
    )
    model.x.grad = torch.full((NUMEL,), torch.inf)
    with pytest.raises(NumericsError):
        Simulation(2).run([worker.step(), server.serve(1)])
    assert turn.offender is None
    assert all(torch.equal(each, before[name]) for name, each in server.state_dict()["update"].items())


def test_the_average_is_of_any_update() -> None:
    update = AveragedCentre(ElasticFollow(alpha=0.5))
    assert (update.answers_before, update.needs_exact) == (True, True)
    model = torch.zeros(2)
    state = update.begin(model)
    for _ in range(3):
        update.merge(model, Dense(torch.ones(2)), 2, state)
    assert model.tolist() == [0.875, 0.875]
    assert update.shared(model, state).tolist() == pytest.approx([(0.0 + 0.5 + 0.75) / 3] * 2)


def test_what_cannot_be_is_refused() -> None:
    for make, named in (
        (lambda: Downpour(momentum=1.0), "momentum of 1.0"),
        (lambda: AveragedCentre(Downpour(), rate=0.0), "rate of 0.0"),
        (lambda: AveragedCentre(AveragedCentre(Downpour())), "average of an average"),
        (lambda: ModelAveraging(update=Downpour()), "have a server's side only"),
    ):
        with pytest.raises(ConfigError, match=named):
            make()
    assert find_row("mdownpour").options.keys() == {"momentum", "staleness"}
