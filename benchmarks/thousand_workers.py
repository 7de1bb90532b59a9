"""1,024 virtual workers in one process: a round of all of them against their forward, backward and optimizer alone.

Half of the pure computation is timed before the rounds and half after them, in the same process; the peak of the
process's memory is printed with the ratio.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch

from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.session import Session
from thinwire.experiments.sharding import Batches
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import load_task
from thinwire.network import Network
from thinwire.random import Key

METHODS = ("sgd", "signtopk:density=1%,every=8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="fashion-mnist")
    parser.add_argument("--workers", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=1, help="of 8 steps each")
    parser.add_argument("--batch-size", type=int, default=8, help="the smaller, the less computation to compare with")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for method in args.methods:
        print(measure(method, args.task, args.workers, args.rounds, args.batch_size), flush=True)


def measure(method: str, task_name: str, workers: int, rounds: int, batch_size: int) -> str:
    """One line: milliseconds a worker and step with and without everything else, their ratio, and peak memory."""
    task = load_task(task_name)
    comparison = Comparison(
        methods=(method,), task=task_name, workers=workers, lrs=(0.01,), steps=10**9, tune_steps=1,
        evaluate_every=1, batch_size=batch_size,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        engine = SimulatedEngine(workers, Network())
        session = Session(
            comparison, Run(method, comparison.settings(method)[0], 0, "final", 10**9), task, engine, Path(folder)
        )
        numel = session.workers[0].layout.numel
        plain = Plain(comparison)
        plain.run(64)
        session.train(0, 1)  # what is made once is made here
        ratios, simulated, alone = [], [], []
        for number in range(rounds):
            before = plain.run(4 * workers)
            begin = time.perf_counter()
            session.train(1 + 8 * number, 9 + 8 * number)
            seconds = (time.perf_counter() - begin) / (8 * workers)
            own = (before + plain.run(4 * workers)) / (8 * workers)
            simulated.append(seconds)
            alone.append(own)
            ratios.append(seconds / own)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{method}: {workers} workers, d = {numel:,}: {1e3 * statistics.median(simulated):.3f} ms a worker and step, "
        f"{1e3 * statistics.median(alone):.3f} ms of it pure computation, ratio {statistics.median(ratios):.3f}; "
        f"peak memory {peak:.2f} GiB"
    )


class Plain:
    """Forward, backward and optimizer steps on one worker's examples."""

    def __init__(self, comparison: Comparison) -> None:
        self.task = load_task(comparison.task)
        self.model = self.task.model(0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        shard = torch.arange(self.task.num_train)[: self.task.num_train // comparison.workers]
        self.batches = Batches(shard, comparison.batch_size, Key(0))

    def run(self, steps: int) -> float:
        """Seconds of ``steps`` steps."""
        begin = time.perf_counter()
        for step in range(steps):
            self.optimizer.zero_grad()
            self.task.loss(self.model, self.batches.indices(step)).backward()
            self.optimizer.step()
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
