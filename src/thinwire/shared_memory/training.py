"""Train one vector with several threads, and see how fast, how well, and how much was lost."""

import functools
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.kernels.flat.checks import segment_of_each
from thinwire.kernels.shared_memory.rows import Loss, Rows
from thinwire.kernels.shared_memory.shared import Shared
from thinwire.kernels.shared_memory.steps import Part, Span, take_steps
from thinwire.random import Key
from thinwire.shared_memory.settings import Settings
from thinwire.shared_memory.tasks import Examples
from thinwire.shared_memory.threads import run_together


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPoint:
    """The loss when so many updates were made.

    Args:
        updates: of all threads.
        seconds: in which threads ran; evaluations are not counted.
        loss: the objective over all examples, in f64.
    """

    updates: int
    seconds: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run.

    Args:
        settings: of the run.
        task: name of the task.
        numel: coordinates of the vector.
        examples: how many there are.
        density: of the examples.
        losses: at the start and after each round.
        writes: coordinates that were written, by all threads.
        counted: coordinates that were written while additions were counted, in a further round that is not timed.
        lost: how many of these are missing from their counters.
        core_seconds: processor time of all threads, in the rounds that are timed.
    """

    settings: Settings
    task: str
    numel: int
    examples: int
    density: float
    losses: tuple[LossPoint, ...]
    writes: int
    counted: int
    lost: int
    core_seconds: float

    @property
    def cores(self) -> float:
        """How many cores the threads had at the same time, on average: fewer than threads do not contend."""
        return self.core_seconds / max(self.seconds, 1e-9)

    @property
    def seconds(self) -> float:
        """In which threads ran."""
        return self.losses[-1].seconds

    @property
    def updates_per_s(self) -> float:
        """Stochastic steps of all threads, a second."""
        return self.losses[-1].updates / max(self.seconds, 1e-9)

    @property
    def writes_per_s(self) -> float:
        """Coordinates that all threads wrote, a second."""
        return self.writes / max(self.seconds, 1e-9)

    @property
    def loss(self) -> float:
        """At the end."""
        return self.losses[-1].loss

    def to_json(self) -> dict[str, Any]:
        """A row for a file; a loss that is not finite is null."""
        points = [{**asdict(point), "loss": point.loss if math.isfinite(point.loss) else None} for point in self.losses]
        return {
            "row": "training", "task": self.task, "numel": self.numel, "examples": self.examples,
            "density": self.density, **asdict(self.settings), "seconds": self.seconds, "cores": self.cores,
            "updates_per_s": self.updates_per_s, "writes": self.writes, "counted": self.counted, "lost": self.lost,
            "losses": points,
        }  # fmt: skip


def train(examples: Examples, settings: Settings) -> Result:
    """Train a linear model from zero, then count what one more round would lose.

    The loss is evaluated between rounds, while the threads stand still: it belongs to one moment, and the clock counts
    training alone. After the last round there is another one, not timed, in which every coordinate that is written
    also adds 1 to an int64 counter of its own, in the same way. What is missing from the counters is exact. It tells
    how often weights lose an addition, though these are not the same ones.

    With one thread the weights are the same bits for every variant.

    Raises:
        ConfigError: settings that do not fit the examples.

    Example:
        >>> from thinwire.shared_memory.tasks import load_examples
        >>> examples = load_examples("sparse", numel=50, examples=40)
        >>> result = train(examples, Settings(updates=400, threads=2))
        >>> result.loss < result.losses[0].loss, result.lost
        (True, 0)
    """
    regularisation = 1 / examples.rows.num if settings.regularisation is None else settings.regularisation
    rows = examples.rows.regularised(regularisation)
    shared = Shared.around(torch.zeros(rows.numel, dtype=torch.float32, device=CPU))
    key = Key(settings.seed).fold("shared memory")
    parts = [Part.of(key.fold("thread", thread), rows.numel) for thread in range(settings.threads)]
    run = _Run(rows, settings, shared, parts)
    run.compile()
    losses = [LossPoint(updates=0, seconds=0.0, loss=objective(shared.vector, rows, settings.loss, regularisation))]
    for number in range(settings.rounds):
        seconds = run.round(number, None)
        loss = objective(shared.vector, rows, settings.loss, regularisation)
        losses.append(LossPoint(updates=run.updates, seconds=losses[-1].seconds + seconds, loss=loss))
    writes, core_seconds = run.writes, run.core_seconds
    counts = torch.zeros(rows.numel, dtype=torch.int64, device=CPU)
    run.round(settings.rounds - 1, counts)
    counted = run.writes - writes
    return Result(
        settings=replace(settings, regularisation=regularisation), task=examples.task, numel=rows.numel,
        examples=rows.num, density=examples.density, losses=tuple(losses), writes=writes, counted=counted,
        lost=counted - int(counts.sum()), core_seconds=core_seconds,
    )  # fmt: skip


def objective(weights: Tensor, rows: Rows, loss: Loss, regularisation: float) -> float:
    """``mean_i loss(y_i <w, x_i>) + regularisation / 2 * |w|^2`` in f64.

    Example:
        >>> rows = Rows.dense(torch.eye(2), torch.tensor([1.0, -1.0]))
        >>> objective(torch.tensor([1.0, 0.0]), rows, "hinge", 1.0)
        1.0
    """
    w = weights.double()
    products = w[rows.indices] * rows.values
    places = segment_of_each(rows.offsets.diff(), rows.indices.numel())
    margins = torch.zeros(rows.num, dtype=torch.float64, device=CPU).index_add_(0, places, products) * rows.labels
    each = F.softplus(-margins) if loss == "logistic" else (1 - margins).clamp(min=0)
    return float(each.mean() + regularisation / 2 * w.square().sum())


class _Run:
    """Threads of one run from round to round."""

    def __init__(self, rows: Rows, settings: Settings, shared: Shared, parts: list[Part]) -> None:
        self.updates = 0
        self.writes = 0
        self.core_seconds = 0.0
        self._rows = rows
        self._settings = settings
        self._shared = shared
        self._parts = parts
        self._first = [0] * len(parts)

    def compile(self) -> None:
        """Compile the kernel, before threads wait for each other in it."""
        rule = self._settings.rule(self._rows.numel, 0)
        counts = torch.zeros(self._rows.numel, dtype=torch.int64, device=CPU)
        take_steps(self._shared, self._rows, rule, self._settings.variant, self._parts[0], Span(), counts)

    def round(self, number: int, counts: Tensor | None) -> float:
        """A round of every thread; its seconds."""
        settings = self._settings
        rule, nums = settings.rule(self._rows.numel, number), settings.steps(number)
        spans = [
            Span(first=first, num=num, num_threads=settings.threads)
            for first, num in zip(self._first, nums, strict=True)
        ]
        work = [
            functools.partial(take_steps, self._shared, self._rows, rule, settings.variant, part, span, counts)
            for part, span in zip(self._parts, spans, strict=True)
        ]
        outcome = run_together(self._shared, work, pinned=settings.pinned)
        self._first = [span.first + span.num for span in spans]
        self.updates += sum(steps for steps, _ in outcome.results)
        self.writes += sum(written for _, written in outcome.results)
        self.core_seconds += outcome.core_seconds
        return outcome.seconds
