"""Mem-SGD's own result table (Stich, Cordonnier, Jaggi 2018) on a problem of epsilon's dimension, beside the published.

One worker, one example a step, L2-regularised logistic regression, lambda = 1/n, as in the paper. Two sets of runs:

- *theory*: eta_t = 2 / (lambda (a + t)), averaged with weights (a + t)^2; a = d / k, a = 1 ("no shift"), and top-k
  without memory.
- *tuned*: eta_t = g / (1 + g lambda t) with g searched in {0.1, 1, 10, 100} over 1 % of an epoch, the uniform average
  of the iterates; SGD, top-k, random-k, and QSGD with s = 2^b levels of the l2 norm, b = 8, 4, 2.

An entry waits about d / k steps until it is sent. With fewer examples than epsilon's 400,000 that is a larger part of
an epoch, so k is scaled: it is the one whose wait is that of epsilon's k = 1 in epochs (`--k 1` takes 1 nevertheless).

Millions of steps are made by one loop. The program first trains some steps of every method in the simulator and in that
loop, with the same random numbers, and stops if the models are not the same.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numba import njit

from thinwire.compressors import QSGD, RandK
from thinwire.experiments.learning_rates import Rates, make_rates
from thinwire.experiments.tasks.logreg import LogisticRegression
from thinwire.kernels.quantize.dither import dither_torch
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.layout import Segments
from thinwire.memory import NoMemory
from thinwire.methods import parse_method
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.theory import RunningAverage
from thinwire.worker import Worker

SEED = 0
GRID = (0.1, 1.0, 10.0, 100.0)
CHUNK = 1000


def epsilon_like(num_examples: int, dimension: int, margin: float) -> LogisticRegression:
    """The task ``logreg`` with features of equal variance, as epsilon's are: rows of norm 1, margins of a given spread.

    (``logreg`` itself has features whose variance falls like 1/j: its curvature is 250 times as large in the steepest
    direction, and the wait of random-1 makes it unstable at these step sizes.)
    """
    random = np.random.Generator(np.random.Philox(key=SEED + 2))
    rows = torch.from_numpy(random.standard_normal((num_examples, dimension), dtype=np.float32))
    for chunk in torch.split(rows, 10_000):
        chunk /= chunk.norm(dim=1, keepdim=True)
    truth = torch.from_numpy(random.standard_normal(dimension, dtype=np.float32))
    margins = rows @ truth
    margins *= margin / float(margins.square().mean().sqrt())
    positive = torch.from_numpy(random.random(num_examples, dtype=np.float32)) < torch.sigmoid(margins)
    labels = torch.where(positive, 1, -1)
    return LogisticRegression(
        signed_rows=rows.mul_(labels.unsqueeze(1)), labels=labels, regularisation=1 / num_examples
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of a table: ``published`` are the losses of the authors' result files on epsilon, by epoch."""

    name: str
    method: str
    published: dict[int, float]
    shift: float = 1.0


def theory(dimension: int, k: int) -> list[Setting]:
    """The runs with the step sizes of the theorem."""
    shift = dimension / k
    return [
        Setting("SGD", "sgd", {3: 0.2831}, shift),
        Setting(f"top-{k}", f"mem-sgd:k={k}", {3: 0.2828}, shift),
        Setting(f"random-{k}", f"mem-sgd:k={k},select=random", {3: 0.2834}, shift),
        Setting(f"random-{k}, no shift", f"mem-sgd:k={k},select=random", {1: 1.14, 3: 0.2874}),
        Setting(f"top-{k}, no memory", f"mem-sgd:k={k},memory=none", {3: 2.51}, shift),
    ]


def tuned(k: int) -> list[Setting]:
    """The comparison with QSGD."""
    return [
        Setting("SGD", "sgd", {1: 0.2884, 10: 0.2823}),
        Setting(f"top-{k}", f"mem-sgd:k={k}", {1: 0.2857, 10: 0.2823}),
        Setting(f"random-{k}", f"mem-sgd:k={k},select=random", {1: 0.3054, 10: 0.2827}),
        Setting("QSGD 8 bit", "qsgd:levels=256,norm=l2,granularity=whole", {1: 0.2885, 10: 0.2824}),
        Setting("QSGD 4 bit", "qsgd:levels=16,norm=l2,granularity=whole", {1: 0.2905, 10: 0.2833}),
        Setting("QSGD 2 bit", "qsgd:levels=4,norm=l2,granularity=whole", {1: 0.3613, 10: 0.2938}),
    ]


@njit(fastmath=True)
def dot(a: Any, b: Any) -> Any:
    total = np.float32(0.0)
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@njit(error_model="numpy")
def advance(rows: Any, order: Any, rates: Any, rhos: Any, regularisation: Any, x: Any, memory: Any, mean: Any,
            has_residual: bool, k: int, kept: Any, levels: int, draws: Any) -> None:  # fmt: skip
    """Steps of Mem-SGD (k > 0), QSGD (levels > 0) or SGD; ``x``, ``memory`` and ``mean`` are moved on."""
    u = np.empty(x.size, np.float32)
    for t in range(order.size):
        row, rate = rows[order[t]], rates[t]
        for j in range(x.size):
            mean[j] += rhos[t] * (np.float64(x[j]) - mean[j])
        slope = np.float32(1.0) / (np.float32(1.0) + np.exp(dot(row, x)))
        for j in range(x.size):
            u[j] = regularisation * x[j] - slope * row[j]
        if k > 0:
            for j in range(x.size):
                u[j] = memory[j] + rate * u[j]
            for n in range(k):
                at = 0
                if kept.shape[0] > 0:
                    at = kept[t, n]
                else:
                    most = np.float32(-1.0)
                    for j in range(x.size):
                        if abs(u[j]) > most:
                            most, at = abs(u[j]), j
                x[at] -= u[at]
                u[at] = 0.0
            if has_residual:
                memory[:] = u
        elif levels > 0:
            unit = np.sqrt(dot(u, u)) / np.float32(levels)
            for j in range(x.size):
                ratio = abs(u[j]) / unit if unit > 0.0 else np.float32(0.0)
                low = np.floor(ratio)
                level = low + (np.float32(1.0) if draws[t, j] < ratio - low else np.float32(0.0))
                x[j] -= rate * np.copysign(level * unit, u[j])
        else:
            for j in range(x.size):
                x[j] -= rate * u[j]


class Trainer:
    """One run of a method by the loop."""

    def __init__(self, task: LogisticRegression, method: str) -> None:
        self.task = task
        self.rows = task.signed_rows.numpy()
        dimension = self.rows.shape[1]
        product = parse_method(method)
        compressor = product.compressor
        self.k = int(getattr(compressor, "k", None) or 0)
        self.is_random = isinstance(compressor, RandK)
        self.levels = compressor.levels if isinstance(compressor, QSGD) else 0
        self.has_residual = not isinstance(product.memory, NoMemory)
        self.x = np.zeros(dimension, np.float32)
        self.memory = np.zeros(dimension, np.float32)
        self.mean = np.zeros(dimension)
        self._random = np.random.Generator(np.random.Philox(SEED))

    def advance(self, order: Any, rates: Any, rhos: Any, kept: Any = None, draws: Any = None) -> None:
        """As many steps as ``order`` has examples; draws of its own unless given."""
        count, dimension = len(order), len(self.x)
        if kept is None:
            many = (count, self.k) if self.is_random else (0, 0)
            kept = self._random.integers(dimension, size=many)
            while self.is_random and self.k > 1 and (repeated := _repeats(kept)).any():
                kept[repeated] = self._random.integers(dimension, size=(int(repeated.sum()), self.k))
        if draws is None:
            draws = self._random.random((count, dimension) if self.levels else (0, 0), np.float32)
        advance(
            self.rows, np.asarray(order), np.asarray(rates, np.float32), np.asarray(rhos, np.float64),
            np.float32(self.task.regularisation), self.x, self.memory, self.mean, self.has_residual, self.k, kept,
            self.levels, draws,
        )  # fmt: skip


def _repeats(kept: Any) -> Any:
    """Which rows have an index twice."""
    return (np.diff(np.sort(kept, axis=1), axis=1) == 0).any(axis=1)


def check(task: LogisticRegression, method: str, steps: int = 60) -> float:
    """Bytes of a message; AssertionError if the loop and a simulated worker do not come to the same model."""
    dimension = task.signed_rows.shape[1]
    model = task.model(0)
    (weight,) = model.parameters()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    worker = Worker(parse_method(method), model, optimizer, rank=0, size=1, seed=SEED)
    simulation, trainer = Simulation(1), Trainer(task, method)
    whole, counts = Segments.whole(dimension).offsets(), torch.tensor([trainer.k])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate = 4.0 / (1.0 + step)
        optimizer.zero_grad()
        task.loss(model, torch.tensor([step])).backward()
        simulation.run([worker.step()])
        key = Key(SEED).fold("exchange", step, "rank", 0)
        kept, draws = np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32)
        if trainer.is_random:
            kept = segment_subsets(key.fold("indices").bits64(), whole, counts).numpy()[None]
        if trainer.levels:
            high, low = dither_torch(key.bits64(), dimension)
            draws = ((high.double() * 2**16 + low.double()) / 2**32).numpy()[None].astype(np.float32)
        trainer.advance([step], [rate], [1.0], kept, draws)
    found = torch.from_numpy(trainer.x)
    wanted = weight.detach().view(-1)
    if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max())):
        raise AssertionError(f"{method}: the loop is at {found[:4].tolist()}..., a worker at {wanted[:4].tolist()}...")
    return worker.message_bytes / steps


def train(
    task: LogisticRegression, method: str, rates: Rates, lr: float, average: RunningAverage, epochs: list[float]
) -> dict[str, Any]:
    """Losses of the average and of the last iterate after each number of epochs, None where it diverged."""
    n = task.num_train
    trainer = Trainer(task, method)
    examples = np.random.Generator(np.random.Philox(SEED + 1))
    found: dict[str, Any] = {"average": {}, "last": {}, "memory": 0.0}
    start = time.perf_counter()
    stops = {round(n * epoch): f"{epoch:g}" for epoch in epochs}
    step = 0
    for stop in sorted(stops):
        while step < stop:
            count = min(CHUNK, stop - step)
            now = range(step, step + count)
            trainer.advance(
                examples.integers(n, size=count), [rates.at(lr, t) for t in now], [average.rho(t) for t in now]
            )
            step += count
            share = float(np.square(trainer.memory, dtype=np.float64).sum()) / rates.at(lr, step - 1) ** 2
            found["memory"] = max(found["memory"], share)
        found["average"][stops[stop]] = loss_at(task, trainer.mean)
        found["last"][stops[stop]] = loss_at(task, trainer.x)
    return {**found, "us_per_step": 1e6 * (time.perf_counter() - start) / step}


def loss_at(task: LogisticRegression, x: Any) -> float | None:
    """The objective over all examples; None if it is not finite."""
    if not np.isfinite(x).all():
        return None
    weights = torch.from_numpy(x.astype(np.float32))
    total = 0.0
    for chunk in torch.split(task.signed_rows, 10_000):
        total += float(torch.nn.functional.softplus(-(chunk @ weights)).double().sum())
    return total / task.num_train + task.regularisation / 2 * float(weights.double().square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=2_000)
    parser.add_argument("--margin", type=float, default=4.0, help="standard deviation of the true margins")
    parser.add_argument("--k", type=int, help="kept entries [default: of the same wait in epochs as epsilon's 1]")
    parser.add_argument("--epochs", type=int, default=10, help="of the tuned runs; those of the theory take 3")
    parser.add_argument("--only", nargs="*", help="names of tuned runs; none of the theory then [default: everything]")
    parser.add_argument("--optimum", action="store_true", help="find the least value; takes a while")
    parser.add_argument("--out", type=Path, help="file for a JSON line a run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = epsilon_like(args.examples, args.dimension, args.margin)
    k = args.k or max(1, round(args.dimension / args.examples / 0.005))
    theoretical, compared = theory(args.dimension, k), tuned(k)
    if args.only:
        theoretical, compared = [], [setting for setting in compared if setting.name in args.only]
    sizes = {setting.method: check(task, setting.method) for setting in (*theoretical, *compared)}
    least = f"{task.optimum.value:.4f}" if args.optimum else "not asked for"
    print(f"n = {args.examples}, d = {args.dimension}, lambda = 1/n; least value {least} (epsilon: .28242)", flush=True)
    out = args.out.open("a") if args.out else None
    report_head("theory: eta = 2 / (lambda (a + t)), weights (a + t)^2", (1, 3))
    for setting in theoretical:
        first = 2.0 / (task.regularisation * setting.shift)
        average = RunningAverage(weights="quadratic", shift=setting.shift)
        rates = make_rates(f"inverse:shift={setting.shift!r}", 3 * args.examples)
        found = train(task, setting.method, rates, first, average, [1, 3])
        report(setting, f"a={setting.shift:g}", found, sizes[setting.method], (1, 3), out)
    report_head("tuned: eta = g / (1 + g lambda t), uniform average", (1, args.epochs))
    rates = make_rates(f"bottou:decay={task.regularisation!r}", args.epochs * args.examples)
    average = RunningAverage(weights="uniform")
    for setting in compared:
        tries = {g: train(task, setting.method, rates, g, average, [0.01])["average"]["0.01"] for g in GRID}
        g = min(GRID, key=lambda each: (tries[each] is None, tries[each]))
        found = train(task, setting.method, rates, g, average, [1, args.epochs])
        report(setting, f"g={g:g}", found, sizes[setting.method], (1, args.epochs), out)


def report_head(title: str, epochs: tuple[int, int]) -> None:
    """The columns: loss of the average and of the last iterate here, and the published, after some epochs."""
    columns = [f"{what} {epoch}" for epoch in epochs for what in ("average", "last", "paper")]
    print(f"\n{title}\n{'':22s}{'':9s}" + "".join(f"{column:>11s}" for column in columns) + "  |m|^2/eta^2   bytes")


def report(
    setting: Setting, rate: str, found: dict[str, Any], num_bytes: float, epochs: tuple[int, int], out: TextIO | None
) -> None:
    """One line of the table, and of the file."""
    cells = []
    for epoch in epochs:
        values = found["average"][str(epoch)], found["last"][str(epoch)], setting.published.get(epoch)
        cells += ["-" if value is None else f"{value:.4f}" for value in values]
    line = f"{setting.name:22s}{rate:9s}" + "".join(f"{cell:>11s}" for cell in cells)
    print(f"{line}{found['memory']:13.3g}{num_bytes:8.0f}", flush=True)
    if out is not None:
        about = {"name": setting.name, "method": setting.method, "rate": rate, "published": setting.published}
        print(json.dumps({**about, "message_bytes": num_bytes, **found}), file=out, flush=True)


if __name__ == "__main__":
    main()
