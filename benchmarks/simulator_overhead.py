"""What the simulator costs beyond the compute of its workers: one ratio a method, measured in one run.

The reference is one worker's forward, backward and optimizer step, times the workers; both are timed in turn,
several times, and the median of the ratios is printed.
"""

import argparse
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

METHODS = (
    "sgd",
    "local-sgd:every=8",
    "qsgd:bits=4",
    "mem-sgd:select=random,density=1%",
    "ef-signsgd",
    "topk:density=1%",
    "signtopk:density=1%,every=8",
    "qsparse:density=1%,levels=15,every=8",
)


def reference_s(comparison: Comparison, steps: int) -> float:
    """Seconds of ``steps`` plain training steps of one worker."""
    task = load_task(comparison.task)
    model = task.model(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    shard = torch.arange(task.num_train)[: task.num_train // comparison.workers]
    batches = Batches(shard, comparison.batch_size, Key(0))
    start = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        task.loss(model, batches.indices(step)).backward()
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(args.task)
    print(f"{args.workers} workers of {args.task}, {args.steps} steps, {args.rounds} rounds; seconds are medians")
    print(f"{'method':40s} {'simulated s':>12s} {'compute s':>10s} {'ratio':>6s}")
    for method in args.methods:
        comparison = Comparison(
            methods=(method,), task=args.task, workers=args.workers, lrs=(0.01,), steps=10**6, tune_steps=1,
            evaluate_every=1, batch_size=task.batch_size,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            engine = SimulatedEngine(args.workers, Network())
            session = Session(comparison, Run(method, 0.01, 0, "final", 10**6), task, engine, Path(folder))
            session._train(0, 8)
            reference_s(comparison, 50)
            simulated, computed = [], []
            for number in range(args.rounds):
                start = time.perf_counter()
                session._train(8 + number * args.steps, 8 + (number + 1) * args.steps)
                simulated.append(time.perf_counter() - start)
                one = reference_s(comparison, 4 * args.steps) / 4
                computed.append(one * args.workers)
        ratio = statistics.median(a / b for a, b in zip(simulated, computed, strict=True))
        print(f"{method:40s} {statistics.median(simulated):12.3f} {statistics.median(computed):10.3f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
