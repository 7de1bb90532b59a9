"""What a method gives up: the error of its messages on recorded gradients, or what a short training loses by it."""

import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from thinwire.errors import ConfigError
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.executors import LocalExecutor, default_jobs
from thinwire.experiments.recording import Recording
from thinwire.experiments.records import read_records
from thinwire.experiments.spec import Comparison
from thinwire.experiments.tasks import Task
from thinwire.methods import Method, ModelAveraging, Outer, parse_method
from thinwire.planner.family import RANK, Candidate, Kind
from thinwire.random import Key

_MOST_VECTORS = 8
_TASK_METHODS = {
    Kind.DENSE: "sgd",
    Kind.DENSE_BF16: "bf16-sgd",
    Kind.POWER_SGD: f"powersgd:rank={RANK}",
}
"""What does in thinwire what DDP does by itself."""


def in_catalog(candidate: Candidate) -> str:
    """The method string by which thinwire trains as the candidate does."""
    return _TASK_METHODS.get(candidate.kind, candidate.method)


def message_error(candidate: Candidate, recording: Recording) -> float | None:
    """``||C(x) - x||^2 / ||x||^2``, mean over the last eight gradients recorded; None where these do not tell.

    That is so after local steps, whose displacements are not what was recorded, and of exchanges that make their
    messages in a way of their own.

    Raises:
        ConfigError: a recording without a gradient that is not zero.
    """
    if candidate.kind is Kind.DENSE:
        return 0.0
    vectors = [row.clone() for row in recording.gradient.vectors[-_MOST_VECTORS:]]
    vectors = [vector for vector in vectors if float(vector.square().sum()) > 0]
    if not vectors:
        raise ConfigError("the recording holds no gradient other than zeros; record again, with more steps")
    if candidate.kind is Kind.DENSE_BF16:
        return statistics.mean(_error(vector, vector.to(torch.bfloat16).float()) for vector in vectors)
    method = parse_method(candidate.method) if candidate.kind is not Kind.POWER_SGD else None
    if method is None or not _tells(method):
        return None
    segments = method.granularity.segments(recording.layout)
    key = Key(0).fold("plan")
    return statistics.mean(
        _error(vector, method.compressor.compress(vector, key.fold("vector", number), segments).to_dense())
        for number, vector in enumerate(vectors)
    )


def _tells(method: Method) -> bool:
    if isinstance(method, ModelAveraging):
        every_step = all(method.schedule.due(step, 0) for step in range(1, 9))
        if not every_step or method.update != Outer() or method.fragments > 1:
            return False
    return method.exchange.workers_agree and not method.exchange.needs_linear


def _error(vector: torch.Tensor, decoded: torch.Tensor) -> float:
    error = (decoded - vector).double().square().sum() / vector.double().square().sum()
    return float(error)


@dataclass(frozen=True, slots=True)
class Trial:
    """A short training of simulated workers, each method at its best learning rate, once.

    Args:
        task: what is trained.
        name: of the task.
        data: folder of the task's data set.
        workers: simulated.
        steps: of each run.
        seeds: of the final runs.
    """

    task: Task
    name: str
    data: str | None
    workers: int
    steps: int
    seeds: tuple[int, ...] = (0, 1, 2)
    _known: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def values(self, methods: Sequence[str]) -> dict[str, float]:
        """The metric at the end, mean over the seeds, of each method; infinitely bad if a run broke off."""
        if missing := [method for method in dict.fromkeys(methods) if method not in self._known]:
            self._known.update(self._trained(missing))
        return {method: self._known[method] for method in methods}

    def _trained(self, methods: Sequence[str]) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            comparison = Comparison(
                methods=tuple(methods), task=self.name, data=self.data, workers=self.workers,
                seeds=self.seeds, lrs=tuple(sorted(self.task.learning_rates)), steps=self.steps,
                tune_steps=self.steps, evaluate_every=self.steps, batch_size=self.task.batch_size,
            )  # fmt: skip
            runner = ComparisonRunner(
                comparison,
                self.task,
                folder,
                LocalExecutor(default_jobs()),
                command="thinwire plan",
                watch=lambda *_: None,
            )
            runner.run()
            records = read_records(f"{folder}/results.jsonl")
        worst = -math.inf if self.task.metric.higher_is_better else math.inf
        found = {}
        for method in comparison.methods:
            ends = [
                worst if record["value"] is None else float(record["value"])
                for record in records
                if record["method"] == method and record["step"] == self.steps
            ]
            found[method] = statistics.mean(ends) if len(ends) == len(self.seeds) else worst
        return found

    def losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """By how much each one's metric ends worse than dense f32's, below 0 if it ends better."""
        found = self.values([_TASK_METHODS[Kind.DENSE], *map(in_catalog, candidates)])
        sign = 1 if self.task.metric.higher_is_better else -1
        dense = found[_TASK_METHODS[Kind.DENSE]]
        return [sign * (dense - found[in_catalog(each)]) for each in candidates]
