"""Tasks that a user might bring, small enough to train in no time; run by dotted path."""

import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from thinwire.experiments.tasks import Evaluation, Metric, Split
from thinwire.experiments.tasks.logreg import LogisticRegression, logreg
from thinwire.experiments.tasks.models import seeded, watched

CURVATURE = torch.tensor([1.0, 0.25])


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.dropout = nn.Dropout(0.1)

    def forward(self) -> Tensor:
        loss: Tensor = 0.5 * (CURVATURE * self.dropout(self.at).square()).sum()
        return loss


@dataclass(frozen=True, slots=True)
class Bowl:
    """Two parameters, a quadratic, noise by dropout; lower is better."""

    name: str = "bowl"
    metric: Metric = Metric("height", higher_is_better=False)
    num_train: int = 64
    batch_size: int = 1
    learning_rates: tuple[float, ...] = (0.05, 0.2)
    fails_at: int = 0
    blind_below: float = 0.0
    pull: float = 0.0

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.num_train)

    def model(self, seed: int) -> nn.Module:
        return seeded(seed, Point)

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        loss: Tensor = model()
        # Without dropout, which brings the loss down now and then also where the model stays.
        height = 0.5 * (CURVATURE * model.get_parameter("at").square()).sum()
        if self.fails_at and height < 0.5:
            raise ZeroDivisionError("the bowl broke")
        return loss + self.pull * indices.float().mean() * model.get_parameter("at").sum()

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        value = watched(model, lambda: model().item())
        return Evaluation(value, math.nan if value < self.blind_below else value)


def bowl() -> Bowl:
    return Bowl()


def broken() -> Bowl:
    return Bowl(name="broken", fails_at=1)


def blind() -> Bowl:
    """Its metric is no number near the minimum, though the model's parameters are."""
    return Bowl(name="blind", blind_below=0.5)


def pulled() -> Bowl:
    """Its examples matter: each pulls by its number."""
    return Bowl(name="pulled", pull=0.01)


def warned() -> Bowl:
    warnings.warn("the bowl is hot", stacklevel=2)
    return Bowl(name="warned")


def needy(size: int) -> Bowl:
    """No task: it cannot be called without arguments."""
    return Bowl(num_train=size)


def gated() -> Bowl:
    """Says in a file that it has begun, and goes on once it has read ``gate``: never, from a pipe without a writer."""
    Path(f"begun-{os.getpid()}").touch()
    Path("gate").read_text()
    return Bowl(name="gated")


def regression() -> LogisticRegression:
    return logreg(400, 20)
