"""What the simulator costs beyond the work of its workers: two ratios a method, measured in one run.

A round trains many simulated workers, and before and after it, half each: one worker alone with the same method (its
forward, backward, optimizer, compression, encoding and decoding), and one worker's forward, backward and optimizer
only. The first ratio is the simulator's own cost; the second adds what compression costs. Medians over the rounds.

``--health STEPS`` measures instead what it costs that health is sampled, by as many steps between evaluations: rounds
with it and without it in turn, and the ratio of their times.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.health import HealthSampler
from thinwire.experiments.session import Session
from thinwire.experiments.sharding import Batches
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import load_task
from thinwire.network import Network
from thinwire.random import Key

STEPS = 4
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


def plain_s(comparison: Comparison, steps: int) -> float:
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
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--health", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.health:
        print(
            f"{args.workers} workers of {args.task}, {args.health} steps; medians over {args.rounds} rounds; ms a step"
        )
        print(f"{'method':38s} {'without':>10s} {'with':>10s} {'more':>8s}")
        for method in args.methods:
            plain, sampled = health_s(method, args.task, args.workers, args.rounds, args.health)
            more = statistics.median(b / a for a, b in zip(plain, sampled, strict=True)) - 1.0
            times = [1e3 * statistics.median(seconds) / args.health for seconds in (plain, sampled)]
            print(f"{method:38s} {times[0]:10.3f} {times[1]:10.3f} {more:8.2%}", flush=True)
        return
    print(f"{args.workers} workers of {args.task}; medians over {args.rounds} rounds; ms a worker and step")
    print(f"{'method':38s} {'simulated':>10s} {'alone':>8s} {'plain':>8s} {'/ alone':>8s} {'/ plain':>8s}")
    for method in args.methods:
        simulated, alone, plain = measure(method, args.task, args.workers, args.rounds)
        ratios = [statistics.median(a / b for a, b in zip(simulated, own, strict=True)) for own in (alone, plain)]
        times = [1e3 * statistics.median(seconds) for seconds in (simulated, alone, plain)]
        print(
            f"{method:38s} {times[0]:10.3f} {times[1]:8.3f} {times[2]:8.3f} {ratios[0]:8.2f} {ratios[1]:8.2f}",
            flush=True,
        )


def measure(method: str, task: str, workers: int, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds a worker and step: of many simulated, of one alone, of one without any exchange; in turn."""
    simulated, alone, plain = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        many, one = (session(method, task, size, Path(folder, str(size))) for size in (workers, 1))
        many.train(0, STEPS)
        one.train(0, 64)
        plain_s(many.comparison, 64)
        half, done = workers * STEPS // 2, 64
        for number in range(1, rounds + 1):
            own = exchangeless = 0.0
            for part in range(2):
                own += seconds_of(one, done, done + half)
                exchangeless += plain_s(many.comparison, half)
                done += half
                if part == 0:
                    simulated.append(seconds_of(many, number * STEPS, (number + 1) * STEPS) / (2 * half))
            alone.append(own / (2 * half))
            plain.append(exchangeless / (2 * half))
    return simulated, alone, plain


def health_s(method: str, task: str, workers: int, rounds: int, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of rounds without samples of health and with them, in turn, an evaluation's sums included."""
    plain: list[float] = []
    sampled: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trained = session(method, task, workers, Path(folder))
        trained.train(0, steps)
        sampling, nobody = trained.health, HealthSampler([], workers)
        lead = trained.workers[0].runner
        watcher = lead.watcher
        done = steps
        for number in range(2 * rounds):
            is_sampled = number % 2 == 1
            trained.health = sampling if is_sampled else nobody
            lead.watcher = watcher if is_sampled else None
            begin = time.process_time()  # other programs do not count
            trained.train(done, done + steps)
            trained.health.squares()
            (sampled if is_sampled else plain).append(time.process_time() - begin)
            done += steps
    return plain, sampled


def session(method: str, task_name: str, workers: int, folder: Path) -> Session:
    """A training session of simulated workers that never ends by itself."""
    task = load_task(task_name)
    comparison = Comparison(
        methods=(method,), task=task_name, workers=workers, lrs=(0.01,), steps=10**9, tune_steps=1,
        evaluate_every=1, batch_size=task.batch_size,
    )  # fmt: skip
    engine = SimulatedEngine(workers, Network())
    return Session(comparison, Run(method, comparison.settings(method)[0], 0, "final", 10**9), task, engine, folder)


def seconds_of(trained: Session, start: int, stop: int) -> float:
    """Seconds to train from one step to another."""
    begin = time.perf_counter()
    trained.train(start, stop)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
