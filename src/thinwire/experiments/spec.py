"""What is compared: a frozen description that says everything a run needs."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from thinwire.errors import ConfigError
from thinwire.experiments.learning_rates import make_average, make_rates
from thinwire.files import StrPath
from thinwire.machines import Machines
from thinwire.network import Network

EngineName = Literal["simulate", "processes"]
Purpose = Literal["tune", "final"]
MAX_COUNT = 10**12
"""More steps, workers or examples than this are a slip of the hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Methods, and what they are compared on. Two equal comparisons give equal results in the simulator.

    Args:
        methods: method strings, see :func:`thinwire.methods.parse_method`; kept without the spaces around
            their punctuation, so that a method has one name however it is typed.
        task: a task's name or the dotted path to a function that makes one.
        data: folder of the task's data set, if it is not where the task looks by itself.
        workers: number of workers.
        seeds: one final run of every method for each.
        lrs: the learning rates that are searched for every method; ascending.
        engine: ``simulate`` (virtual clock) or ``processes`` (torch.distributed).
        network: the simulated network; without effect on processes.
        compute: what a step of forward, backward and optimizer takes on each worker; without effect on processes.
        steps: steps of a final run.
        tune_steps: steps of a run of the learning-rate search.
        evaluate_every: steps between two evaluations.
        batch_size: examples per worker and step.
        optimizer: see :func:`thinwire.experiments.optimizers.make_optimizer`.
        sharding: ``random`` or ``sorted`` (by label) distribution of the examples over workers.
        target: value of the metric whose cost is reported.
        lr_schedule: how the learning rate changes, see :func:`thinwire.experiments.learning_rates.make_rates`.
        average: which average of the iterates is evaluated instead of the last one, see
            :func:`thinwire.experiments.learning_rates.make_average`.

    Raises:
        ConfigError: a value out of range.
    """

    methods: tuple[str, ...]
    task: str
    data: StrPath | None = None
    workers: int = 8
    seeds: tuple[int, ...] = (0,)
    lrs: tuple[float, ...]
    engine: EngineName = "simulate"
    network: Network = Network()
    compute: Machines = Machines()
    steps: int
    tune_steps: int
    evaluate_every: int
    batch_size: int
    optimizer: str = "sgd"
    sharding: Literal["random", "sorted"] = "random"
    target: float | None = None
    lr_schedule: str = "constant"
    average: str = "none"

    def __post_init__(self) -> None:
        # A frozen dataclass sets its own fields in this way only.
        object.__setattr__(self, "methods", tuple(_normalised(method) for method in self.methods))
        counts = ("workers", "steps", "tune_steps", "evaluate_every", "batch_size")
        check_counts({name: getattr(self, name) for name in counts})
        if not all(abs(seed) < 2**64 for seed in self.seeds):
            raise ConfigError("a seed of more than 64 bits was given; give smaller ones")
        if self.data is not None:
            object.__setattr__(self, "data", os.fspath(self.data))
        for name in ("methods", "seeds", "lrs"):
            values = getattr(self, name)
            if not values:
                raise ConfigError(f"no {name} were given; at least one is needed")
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} must differ from each other, got {', '.join(map(str, values))}")
        make_rates(self.lr_schedule)
        make_average(self.average)
        for lr in self.lrs:
            if not 0 < lr < math.inf:
                raise ConfigError(f"learning rates must be above 0 and finite, got {lr}")
        if self.target is not None and not math.isfinite(self.target):
            raise ConfigError(f"a target of {self.target} was given; it must be finite")

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``comparison.json``."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Comparison":
        """The comparison that :meth:`to_json` wrote; other keys are left out."""
        names = [field.name for field in dataclasses.fields(Comparison)]
        given = {name: data[name] for name in names}
        given.update({name: tuple(data[name]) for name in ("methods", "seeds", "lrs")})
        parts = {"network": Network.from_json(data["network"]), "compute": Machines.from_json(data["compute"])}
        return Comparison(**{**given, **parts})


def check_counts(counts: Mapping[str, int]) -> None:
    """Refuse a number of workers, steps, or the like that nobody could mean.

    Raises:
        ConfigError: one is below 1 or above :data:`MAX_COUNT`.
    """
    for name, count in counts.items():
        if not 1 <= count <= MAX_COUNT:
            given = str(count) if abs(count) < 10**20 else "a number of more than 20 digits"
            raise ConfigError(
                f"{name.replace('_', ' ')} = {given} was given; it must be at least 1, and at most {MAX_COUNT:,}"
            )


def _normalised(method: str) -> str:
    return re.sub(r"\s*([:,=])\s*", r"\1", method.strip())


@dataclass(frozen=True, slots=True)
class Run:
    """One training run of a comparison."""

    method: str
    lr: float
    seed: int
    purpose: Purpose
    steps: int

    @property
    def name(self) -> str:
        """A file name that no other run of the comparison has."""
        slug = re.sub(r"[^A-Za-z0-9.=+-]+", "_", self.method.replace("%", "pct"))
        return f"{self.purpose}-{slug}-lr{self.lr!r}-seed{self.seed}"
