"""What is compared: a frozen description that says everything a run needs."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from thinwire.config import from_json, to_json
from thinwire.errors import ConfigError
from thinwire.experiments.clients.setting import Clients
from thinwire.experiments.learning_rates import make_average, make_rates
from thinwire.experiments.settings import Setting, TunedOption, option_choices, rates_for, read_codec, with_options
from thinwire.experiments.sharding import read_sharding
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
        workers: number of workers; where there are clients, how many of them take part in a round on average.
        clients: who take turns as workers, if the workers are not always the same; simulated only.
        seeds: one final run of every method for each.
        lrs: the learning rates that are searched for every method; ascending.
        adaptive_lrs: those for Adam and its kin, if that is another grid; ascending.
        engine: ``simulate`` (virtual clock) or ``processes`` (torch.distributed).
        network: the simulated network; without effect on processes.
        compute: what a step of forward, backward and optimizer takes on each worker; without effect on processes.
        overlap: ``ddp`` if exchanges of gradients go on during backward, as with DDP and its hooks, where the method
            may (:func:`thinwire.distributed.comm_hook.can_overlap`); ``none`` if they follow it; without effect on
            processes, where they follow it.
        codec: what an exchange is charged for compression, memory and decoding, beyond dense f32: ``free``,
            ``measured`` on this machine, or a multiple of that such as ``2x``; without effect on processes.
        steps: steps of a final run.
        tune_steps: steps of a run of the learning-rate search.
        evaluate_every: steps between two evaluations.
        batch_size: examples per worker and step.
        optimizers: of which every method's best is searched, see
            :func:`thinwire.experiments.optimizers.make_optimizer`.
        tune: options of methods whose best value is searched, see :class:`thinwire.experiments.settings.TunedOption`.
        sharding: how the examples are dealt out to the workers or clients, see
            :func:`thinwire.experiments.sharding.make_shards`.
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
    clients: Clients | None = None
    seeds: tuple[int, ...] = (0,)
    lrs: tuple[float, ...]
    adaptive_lrs: tuple[float, ...] = ()
    engine: EngineName = "simulate"
    network: Network = Network()
    compute: Machines = Machines()
    overlap: Literal["none", "ddp"] = "none"
    codec: str = "free"
    steps: int
    tune_steps: int
    evaluate_every: int
    batch_size: int
    optimizers: tuple[str, ...] = ("sgd",)
    tune: tuple[str, ...] = ()
    sharding: str = "random"
    target: float | None = None
    lr_schedule: str = "constant"
    average: str = "none"

    def __post_init__(self) -> None:
        # A frozen dataclass sets its own fields in this way only.
        object.__setattr__(self, "methods", tuple(_normalised(method) for method in self.methods))
        counts = ("workers", "steps", "tune_steps", "evaluate_every", "batch_size")
        check_counts({name: getattr(self, name) for name in counts})
        self._check_clients()
        if not all(abs(seed) < 2**64 for seed in self.seeds):
            raise ConfigError("a seed of more than 64 bits was given; give smaller ones")
        if self.data is not None:
            object.__setattr__(self, "data", os.fspath(self.data))
        for name in ("methods", "seeds", "lrs", "adaptive_lrs", "optimizers", "tune"):
            values = getattr(self, name)
            if not values and name not in ("adaptive_lrs", "tune"):
                raise ConfigError(f"no {name} were given; at least one is needed")
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} must differ from each other, got {', '.join(map(str, values))}")
        tuned = self.tuned()
        if len({(each.row, each.option) for each in tuned}) < len(tuned):
            raise ConfigError(f"an option is to be tuned twice: {'; '.join(self.tune)}")
        read_codec(self.codec)
        read_sharding(self.sharding)
        make_rates(self.lr_schedule, min(self.steps, self.tune_steps))
        make_average(self.average)
        for lr in (*self.lrs, *self.adaptive_lrs):
            if not 0 < lr < math.inf:
                raise ConfigError(f"learning rates must be above 0 and finite, got {lr}")
        if self.target is not None and not math.isfinite(self.target):
            raise ConfigError(f"a target of {self.target} was given; it must be finite")

    def _check_clients(self) -> None:
        if self.clients is None:
            return
        if self.engine != "simulate":
            raise ConfigError(
                "--clients was given with --engine processes: a process is one worker and keeps its place, so clients "
                "that take turns are simulated; leave out --engine processes, or --clients"
            )
        if self.workers != self.clients.per_round:
            raise ConfigError(
                f"{self.workers} workers were given, and {self.clients.per_round} clients take part in a round: these "
                "are the workers"
            )

    @property
    def num_shares(self) -> int:
        """Into how many shares the examples are dealt out: one a worker, or one a client."""
        return self.workers if self.clients is None else self.clients.count

    def rates(self, optimizer: str) -> tuple[float, ...]:
        """The learning rates that are searched with an optimizer."""
        return rates_for(optimizer, self.lrs, self.adaptive_lrs)

    def tuned(self) -> list[TunedOption]:
        """The options that are searched."""
        return [TunedOption.parse(each) for each in self.tune]

    def settings(self, method: str) -> list[Setting]:
        """All that is tried for a method at first; the search goes on past the ends of the learning rates."""
        choices = option_choices(method, self.tuned())
        return [
            Setting(optimizer, options, lr)
            for optimizer in self.optimizers
            for options in choices
            for lr in self.rates(optimizer)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``comparison.json``."""
        return {**dataclasses.asdict(self), "clients": None if self.clients is None else to_json(self.clients)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Comparison":
        """The comparison that :meth:`to_json` wrote; other keys are left out."""
        names = [field.name for field in dataclasses.fields(Comparison)]
        given = {name: data[name] for name in names if name != "clients"}
        listed = ("methods", "seeds", "lrs", "adaptive_lrs", "optimizers", "tune")
        given.update({name: tuple(data[name]) for name in listed})
        parts = {"network": Network.from_json(data["network"]), "compute": Machines.from_json(data["compute"])}
        clients = data.get("clients")  # there were none at first
        return Comparison(**{**given, **parts, "clients": None if clients is None else from_json(clients)})


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
    """One training run of a comparison.

    Args:
        method: as it was asked for: the row that the run's records belong to.
        setting: what is tried, or was chosen, for it.
        seed: of the model, the order of examples, and the method's draws.
        purpose: ``tune`` (judged on validation data) or ``final`` (on test data).
        steps: to train.
        codec_s: what an exchange is charged, of worker 0 and of each other one.
    """

    method: str
    setting: Setting
    seed: int
    purpose: Purpose
    steps: int
    codec_s: tuple[float, float] = (0.0, 0.0)

    @property
    def variant(self) -> str:
        """The method with the options of the setting."""
        return with_options(self.method, self.setting.options)

    @property
    def name(self) -> str:
        """A file name that no other run of the comparison has."""
        parts = [self.method.replace("%", "pct"), self.setting.options.replace("%", "pct"), self.setting.optimizer]
        slugs = [re.sub(r"[^A-Za-z0-9.=+-]+", "_", part) for part in parts if part]
        return f"{self.purpose}-{'-'.join(slugs)}-lr{self.setting.lr!r}-seed{self.seed}"
