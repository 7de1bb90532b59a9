"""Runs with clients that the suites of this folder share: small tasks, and who computed with what."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from thinwire.experiments.clients.engine import simulating_engine
from thinwire.experiments.clients.setting import Clients
from thinwire.experiments.session import Session
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Evaluation, Metric, Split
from thinwire.experiments.tasks.models import seeded
from thinwire.methods import parse_method
from thinwire.network import Network

NUMEL = 10


class At(nn.Module):
    """A point, in two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(2, 3))
        self.second = nn.Parameter(torch.randn(NUMEL - 6))

    def forward(self) -> Tensor:
        return torch.cat([self.first.view(-1), self.second])


class Normed(nn.Module):
    """With buffers that every batch moves."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(NUMEL)
        self.head = nn.Linear(NUMEL, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(x))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Springs:
    """Each example pulls the point to a place of its own; each gradient is noted by the example that it is of."""

    name: str = "springs"
    metric: Metric = Metric("height", higher_is_better=False)
    num_train: int = 48
    batch_size: int = 1
    learning_rates: tuple[float, ...] = (0.1,)
    spread: float = 1.0
    sums: dict[int, Tensor] = field(default_factory=dict)

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.num_train)

    @property
    def places(self) -> Tensor:
        return self.spread * torch.randn(self.num_train, NUMEL, generator=torch.Generator().manual_seed(1))

    def model(self, seed: int) -> nn.Module:
        return seeded(seed, At)

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        point = model()
        gradient = (point.detach() - self.places[indices].mean(0)).double()
        first = int(indices[0])
        self.sums[first] = self.sums.get(first, torch.zeros(NUMEL, dtype=torch.float64)) + gradient
        loss: Tensor = 0.5 * (point - self.places[indices].mean(0)).square().sum()
        return loss

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        with torch.no_grad():
            value = float((model() - self.places.mean(0)).square().sum())
        return Evaluation(value, value)


@dataclass(frozen=True, slots=True, eq=False)
class WithBuffers(Springs):
    """Least squares behind a normalisation by batch."""

    def model(self, seed: int) -> nn.Module:
        return seeded(seed, Normed)

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        loss: Tensor = model(self.places[indices]).square().mean()
        return loss

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        model.eval()
        with torch.no_grad():
            value = float(model(self.places).square().mean())
        model.train()
        return Evaluation(value, math.nan if not math.isfinite(value) else value)


def session(
    method: str, clients: Clients | None, folder: Path, task: Springs | None = None, *, steps: int = 12,
    optimizer: str = "sgd", evaluate_every: int = 4, lr_schedule: str = "constant",
) -> Session:  # fmt: skip
    """A run of ``method`` at a rate of .1, with as many workers as take part in a round, or four."""
    task = Springs() if task is None else task
    comparison = Comparison(
        methods=(method,), task=task.name, workers=4 if clients is None else clients.per_round, clients=clients,
        lrs=(0.1,), network=Network.parse("1Mbit,5ms; 1: 500kbit,9ms"), steps=steps, tune_steps=steps,
        evaluate_every=evaluate_every, batch_size=task.batch_size, optimizers=(optimizer,),
        lr_schedule=lr_schedule,
    )  # fmt: skip
    run = Run(method, Setting(optimizer, "", 0.1), 0, "final", steps)
    return Session(comparison, run, task, simulating_engine(comparison, parse_method(method)), folder)


def shared(trained: Session) -> Tensor:
    """The common point."""
    return torch.cat([each.detach().view(-1) for each in trained.workers[0].shared_parameters().values()])


def owed(trained: Session) -> Tensor:
    """The sum of the residuals of all clients, those who sit and those who do not; f64."""
    crew = trained.crew
    assert crew is not None
    sitting: Sequence[Tensor] = [seat.worker.channels[0].memory["residual"] for seat in crew.seats]
    return torch.stack([*sitting, *crew.absent.residuals()]).double().sum(0)
