"""How long a comparison will take, before it is begun."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from thinwire.experiments.clients.engine import simulating_engine
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task
from thinwire.experiments.training import one_torch_thread
from thinwire.methods import parse_method

LONG_ENOUGH_S = 0.3
"""A rate is measured over so many seconds at least."""
_FIRST_STEPS, _MOST_STEPS = 2, 256
_ENDLESS = 10**9


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one method takes.

    Args:
        method: as it was asked for.
        num_tuning_runs: of the search; more if a best learning rate lies at the end of its grid.
        num_final_runs: one a seed.
        num_steps: of all of them.
        seconds: of one processor, evaluations included.
    """

    method: str
    num_tuning_runs: int
    num_final_runs: int
    num_steps: int
    seconds: float


def estimate(comparison: Comparison, task: Task, watch: Callable[[str], None]) -> list[Estimate]:
    """Time a few simulated steps of every method, and an evaluation, on this machine.

    Args:
        comparison: whose engine is ``simulate``.
        task: what it trains.
        watch: is told which method is timed.

    Raises:
        ConfigError: a method that does not fit the task.
    """
    found = []
    evaluation_s = _evaluation_s(task)
    for method in comparison.methods:
        watch(method)
        settings = comparison.settings(method)
        num_tuning = len(settings) if len(settings) > 1 else 0
        num_finals = len(comparison.seeds)
        num_steps = num_tuning * comparison.tune_steps + num_finals * comparison.steps
        num_evaluations = num_steps / comparison.evaluate_every + num_tuning + num_finals
        seconds = num_steps * _step_s(comparison, task, method) + num_evaluations * evaluation_s
        found.append(Estimate(method, num_tuning, num_finals, num_steps, seconds))
    return found


def _evaluation_s(task: Task) -> float:
    model = task.model(0)
    with one_torch_thread():
        begin = time.perf_counter()
        task.evaluate(model, "test")
        return time.perf_counter() - begin


def _step_s(comparison: Comparison, task: Task, method: str) -> float:
    """Seconds of a step of all workers, after the first ones."""
    run = Run(method, comparison.settings(method)[0], 0, "tune", _ENDLESS)
    engine = simulating_engine(comparison, parse_method(run.variant))
    with tempfile.TemporaryDirectory() as folder:
        session = Session(replace(comparison, methods=(method,), average="none"), run, task, engine, Path(folder))
        session.train(0, _FIRST_STEPS)
        done, count = _FIRST_STEPS, 2
        while True:
            begin = time.perf_counter()
            session.train(done, done + count)
            took_s = time.perf_counter() - begin
            if took_s >= LONG_ENOUGH_S or count >= _MOST_STEPS:
                return took_s / count
            done, count = done + count, 2 * count
