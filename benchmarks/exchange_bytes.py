"""How sparse sums fill in, and what each exchange moves, against the number of workers.

Simulated workers train a task with error feedback and a sparsifier, by each exchange; what is counted are the bytes
that cross each worker's link, framing included, and the entries of the mean that are not zero, both averaged over the
last steps, when memories are in their steady state. The lower bound of an exchange of P messages of k entries is
``2 k (P - 1) / P`` entries sent by each worker. An entry costs what it does in the workers' own encoded messages: an
f32 and its share of the indices and the header.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from thinwire.compressors import Compressor, RandK, SharedSeedRandK, TopK
from thinwire.exchanges import AllReduce, Exchange, Gather, ParameterServer, SparseReduceScatter, Tree
from thinwire.experiments.sharding import Batches, make_shards
from thinwire.experiments.tasks import Task, load_task
from thinwire.experiments.training import one_torch_thread
from thinwire.memory import ErrorFeedback
from thinwire.methods import ModelAveraging
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.worker import Worker


def cases(density: float) -> dict[str, tuple[Compressor, Exchange]]:
    """By name: what makes the messages, and how they become a mean."""
    top = TopK(density=density)
    return {
        "gather, top-k": (top, Gather()),
        "gather, random-k": (RandK(density=density), Gather()),
        "all-reduce, shared random-k": (SharedSeedRandK(density=density, shared=True), AllReduce()),
        "server, top-k": (top, ParameterServer()),
        "server, top-k both ways": (top, ParameterServer(downlink=top)),
        "tree, top-k": (top, Tree()),
        "tree, top-k of every sum": (top, Tree(merge=top)),
        "owners, top-k": (top, SparseReduceScatter()),
        "owners, top-k, balanced": (top, SparseReduceScatter(balanced=True)),
        "owners, top-k of every sum": (top, SparseReduceScatter(select=top)),
    }


def measure(
    task: Task, compressor: Compressor, exchange: Exchange, num_workers: int, args: argparse.Namespace
) -> dict[str, float]:
    """Means over the last steps: union density, and bytes a worker and step."""
    method = ModelAveraging(memory=ErrorFeedback(), compressor=compressor, exchange=exchange)
    key = Key(args.seed)
    shards = make_shards(task.labels, num_workers, "random", key.fold("shards"))
    batches = [Batches(shards[rank], args.batch_size, key.fold("batches", rank)) for rank in range(num_workers)]
    workers = []
    for rank in range(num_workers):
        model = task.model(args.seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
        workers.append(Worker(method, model, optimizer, rank=rank, size=num_workers, seed=args.seed))
        workers[-1].runner.counts_union = rank == 0
    simulation = Simulation(num_workers)
    densities = []
    before: list[tuple[int, int, int]] = []
    for step in range(args.steps):
        if step == args.steps - args.last:
            before = counts(workers, simulation)
        for worker, mine in zip(workers, batches, strict=True):
            worker.optimizer.zero_grad()
            task.loss(worker.model, mine.indices(step)).backward()
        simulation.run([worker.step() for worker in workers])
        if before:
            densities.append(worker_density(workers[0]))
    after = counts(workers, simulation)
    moved = [
        [(new - old) / args.last for new, old in zip(one, other, strict=True)]
        for one, other in zip(after, before, strict=True)
    ]
    return {
        "union_density": statistics.fmean(densities),
        "message_bytes": statistics.fmean(each[0] for each in moved),
        "bytes_sent": statistics.fmean(each[1] for each in moved),
        "busiest_link_bytes": max(max(each[1:]) for each in moved),
        "loss": float(task.loss(workers[0].model, batches[0].indices(args.steps)).detach()),
    }


def counts(workers: Iterable[Worker], simulation: Simulation) -> list[tuple[int, int, int]]:
    return [
        (worker.message_bytes, link.bytes_sent, link.bytes_received)
        for worker, link in zip(workers, simulation.traffic, strict=True)
    ]


def worker_density(worker: Worker) -> float:
    density = worker.runner.union_density
    assert density is not None
    return density


def table(found: dict[str, dict[int, dict[str, float]]], field: str, sizes: list[int], form: str) -> str:
    """A Markdown table: a row for each case, a column for each number of workers."""
    lines = ["| workers | " + " | ".join(map(str, sizes)) + " |", "|---" * (len(sizes) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(form.format(by_size[size][field]) for size in sizes) + " |"
        for name, by_size in found.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="fashion-mnist", help="whose gradients; digits needs no data set")
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--workers", type=int, nargs="*", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--last", type=int, default=6, help="of these steps averages are taken")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/exchange_bytes.json"))
    args = parser.parse_args()
    task = load_task(args.task)
    numel = sum(param.numel() for param in task.model(0).parameters())
    k = max(1, round(args.density * numel))
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in cases(args.density)}
    with one_torch_thread():
        for size in args.workers:
            for name, (compressor, exchange) in cases(args.density).items():
                found[name][size] = measure(task, compressor, exchange, size, args)
                print(f"{size:3} workers, {name}: {found[name][size]}", file=sys.stderr)
            # One number an entry for all: that of plain messages of the k largest.
            entry = found["gather, top-k"][size]["message_bytes"] / k
            bound = 2 * (size - 1) / size * k * entry
            for each in found.values():
                each[size]["entry_bytes"] = entry
                each[size]["ratio"] = each[size]["bytes_sent"] / bound
                each[size]["busiest_ratio"] = each[size]["busiest_link_bytes"] / bound
    independent = [1 - (1 - args.density) ** size for size in args.workers]
    print(f"{args.task}: d = {numel}, k = {k}; steps {args.steps - args.last + 1} to {args.steps}\n")
    print("Entries of the mean that are not 0, in %, and for independent supports:\n")
    shares = {
        name: {size: {"%": 100 * each["union_density"]} for size, each in of.items()} for name, of in found.items()
    }
    shares["independent: 1 - (1 - k/d)^P"] = {
        size: {"%": 100 * share} for size, share in zip(args.workers, independent, strict=True)
    }
    print(table(shares, "%", args.workers, "{:.2f}"))
    print("\nBytes sent by a worker in a step, mean over workers, over the lower bound 2 k (P-1)/P entries:\n")
    print(table(found, "ratio", args.workers, "{:.2f}"))
    print("\nBytes on the busiest link (the more of sent and received), over the same bound:\n")
    print(table(found, "busiest_ratio", args.workers, "{:.2f}"))
    print("\nkB sent by a worker in a step:\n")
    kilobytes = {name: {s: {"kB": each["bytes_sent"] / 1e3} for s, each in of.items()} for name, of in found.items()}
    print(table(kilobytes, "kB", args.workers, "{:.1f}"))
    settings: dict[str, Any] = {**vars(args), "out": str(args.out), "numel": numel, "k": k}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"settings": settings, "found": found}, indent=1, allow_nan=False) + "\n")
    worst = max(each["ratio"] for each in found["owners, top-k of every sum"].values())
    assert math.isfinite(worst)
    print(f"\nOwners that select stay within {worst:.2f} times the bound. Numbers: {args.out}")


if __name__ == "__main__":
    main()
