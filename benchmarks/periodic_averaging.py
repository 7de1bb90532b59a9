"""Periodic averaging against elastic averaging as the number of local steps grows.

Every method, with and without Nesterov momentum inside the local steps, with shards that are alike and shards sorted by
label, at every learning rate of a grid; the final value of the common model (the average, the centre). Two tables for
each task and sharding: at the best rate of each cell, and at the one rate that was best for H = 1, where averaging that
is too rare shows.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task, load_task

GAPS = (1, 4, 16, 64)
PLAIN, MOMENTUM = "sgd", "sgd:momentum=0.9,nesterov=yes"
METHODS = {
    "local SGD": ("local-sgd", PLAIN),
    "EASGD": ("easgd", PLAIN),
    "local SGD, momentum": ("local-sgd", MOMENTUM),
    "EAMSGD": ("eamsgd", MOMENTUM),
}
Sharding = Literal["random", "sorted"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A task, how long it is trained, and the learning rates without momentum; with it they are a tenth."""

    task: str
    steps: int
    lrs: tuple[float, ...]


PROBLEMS = (Problem("digits", 192, (0.1, 0.3, 1.0)), Problem("logreg", 192, (3.0, 10.0, 30.0)))


def final_value(task: Task, problem: Problem, method: str, optimizer: str, lr: float, sharding: Sharding,
                workers: int, folder: Path) -> float | None:  # fmt: skip
    """The metric of the common model after the last step, which is one of the exchange; None if it diverged."""
    comparison = Comparison(
        methods=(method,), task=problem.task, workers=workers, lrs=(lr,), steps=problem.steps, tune_steps=problem.steps,
        evaluate_every=problem.steps, batch_size=task.batch_size, optimizers=(optimizer,), sharding=sharding,
    )  # fmt: skip
    engine = SimulatedEngine(workers, comparison.network)
    run = Run(method, comparison.settings(method)[0], 0, "final", problem.steps)
    value: float | None = None
    for record in Session(comparison, run, task, engine, folder).records():
        value = record["value"]
    return value


def measure(problem: Problem, sharding: Sharding, workers: int, out: TextIO | None) -> None:
    """All runs of one task and sharding, and their tables."""
    task = load_task(problem.task)
    found: dict[tuple[str, int], list[float | None]] = {}
    for name, (method, optimizer) in METHODS.items():
        rates = problem.lrs if optimizer == PLAIN else tuple(lr / 10 for lr in problem.lrs)
        for gap in GAPS:
            values = []
            for lr in rates:
                with tempfile.TemporaryDirectory() as folder:
                    text = f"{method}:every={gap}"
                    values.append(final_value(task, problem, text, optimizer, lr, sharding, workers, Path(folder)))
            found[name, gap] = values
            if out is not None:
                line = {
                    "task": problem.task, "sharding": sharding, "workers": workers, "steps": problem.steps,
                    "name": name, "every": gap, "lrs": rates, "values": values,
                }  # fmt: skip
                print(json.dumps(line), file=out, flush=True)
    sign = -1.0 if task.metric.higher_is_better else 1.0

    def loss(value: float | None) -> float:
        return float("inf") if value is None else sign * value

    print(f"\n{problem.task}, {sharding} shards, {workers} workers, {problem.steps} steps, {task.metric.name}")
    for title in ("best rate", "rate that is best at H = 1"):
        print(f"{title:28s}" + "".join(f"{f'H={gap}':>12s}" for gap in GAPS))
        for name in METHODS:
            losses = [loss(found[name, 1][j]) for j in range(len(problem.lrs))]
            at_one = losses.index(min(losses))
            cells = []
            for gap in GAPS:
                values = found[name, gap]
                value = min(values, key=loss) if title == "best rate" else values[at_one]
                cells.append("diverged" if value is None else f"{value:.4g}")
            print(f"{name:28s}" + "".join(f"{cell:>12s}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--tasks", nargs="*", default=[problem.task for problem in PROBLEMS])
    parser.add_argument("--shardings", nargs="*", default=["random", "sorted"])
    parser.add_argument("--out", type=Path, help="file for a JSON line a method and H")
    args = parser.parse_args()
    out = args.out.open("a") if args.out else None
    for problem in PROBLEMS:
        if problem.task in args.tasks:
            for sharding in args.shardings:
                measure(problem, sharding, args.workers, out)


if __name__ == "__main__":
    main()
