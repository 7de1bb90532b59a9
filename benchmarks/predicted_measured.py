"""Steps as ``thinwire plan`` predicts them, beside steps as they are: over real links, for several ways to train.

For each link and number of processes the planner measures in a crew of processes, each in a network namespace of its
own (see ``delayed_links.py``), and the same crew then trains in every way. Lines go to a file; what is there already is
not measured again. Linux, root and iproute2 are needed. Close other programs first.

    python benchmarks/predicted_measured.py                              # all of it, hours
    python benchmarks/predicted_measured.py --mbit 50 --latency 20ms --processes 2
    python benchmarks/predicted_measured.py --summary                    # of what is in the file
    python benchmarks/predicted_measured.py --again                      # by the model as it is now
    python benchmarks/predicted_measured.py --table docs/planner.md      # and write the page's table again
"""

import argparse
import datetime
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common_clock import CommonClock
from delayed_links import namespaces, parse_seconds, started, wait_for
from predicted_table import Cell, read_cells, summary, write_table
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport
from thinwire.planner import Candidate, Kind, Measurements, TrainingStep, candidates, measure, predict
from thinwire.planner.family import DENSE, DENSE_BF16, POWER_SGD, RANK

METHODS = (
    "signtopk:density=1%", "topk:density=1%", "local-sgd:every=4", "signtopk:density=1%,every=16",
)  # fmt: skip
WAYS = (DENSE, DENSE_BF16, POWER_SGD, *METHODS)
MBITS, LATENCIES, PROCESSES = (10, 50, 200, 1000), ("0ms", "20ms", "100ms"), (2, 4)
WIDTH, BATCH_SIZE = 700, 256  # with 784 inputs and 10 outputs: 1,047,210 parameters
LR = 0.01
WARM_UPS = 4  # PowerSGD sends its first two steps in full, DDP makes new buckets after its first
LEAST_ROUNDS, MOST_ROUNDS = 3, 160
JUMBO_MTU = 9000
"""From 1 Gbit/s on: Python forwards about a gigabit a second in such frames."""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
    )  # fmt: skip


def loss_on(rank: int) -> Callable[[nn.Module], Tensor]:
    """The loss on batches that differ between processes and steps."""
    generator = torch.Generator().manual_seed(rank)
    inputs = torch.randn(8, BATCH_SIZE, 784, generator=generator)
    labels = torch.randint(10, (8, BATCH_SIZE), generator=generator)
    turns = itertools.cycle(range(8))

    def loss(model: nn.Module) -> Tensor:
        turn = next(turns)
        return nn.functional.cross_entropy(model(inputs[turn]), labels[turn])

    return loss


def in_16_bits(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Torch's hook, which DDP refuses by its name where there is no GPU, though gloo adds up 16 bits."""
    return default_hooks.bf16_compress_hook(group, bucket)


def wrapped(candidate: Candidate, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
    """The model as a script trains it, and what is to be closed."""
    if candidate.kind is Kind.SYNCHRONIZED:
        return model, thinwire.synchronize(optimizer, model, candidate.method)
    one_bucket = candidate.kind is Kind.POWER_SGD
    ddp = DistributedDataParallel(model, bucket_cap_mb=1e5 if one_bucket else None)
    if candidate.kind is Kind.DENSE_BF16:
        ddp.register_comm_hook(dist.group.WORLD, in_16_bits)
    elif one_bucket:
        state = powerSGD_hook.PowerSGDState(dist.group.WORLD, matrix_approximation_rank=RANK, start_powerSGD_iter=2)
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    elif candidate.kind is Kind.HOOKED:
        return ddp, thinwire.compress_ddp(ddp, candidate.method, warn_if_slower=False)
    return ddp, None


def measured(candidate: Candidate, period: int, expected_s: float, budget_s: float, clock: CommonClock) -> list[float]:
    """Seconds of a step, mean over the processes, in each round: a step, or all local steps and their exchange."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    loss = loss_on(dist.get_rank())
    trained, handle = wrapped(candidate, model, optimizer)
    rounds = min(max(int(budget_s / (expected_s * period)), LEAST_ROUNDS), MOST_ROUNDS)
    marks = [clock.begin()]
    warm_ups = WARM_UPS if period == 1 else 2
    for _ in range(warm_ups + rounds):
        for _ in range(period):
            optimizer.zero_grad()
            loss(trained).backward()
            optimizer.step()
        marks.append(time.perf_counter())
    found = []
    for begin_s, end_s in itertools.pairwise(marks[warm_ups:]):
        found.append(statistics.mean(own for (own,) in clock.share((end_s - begin_s) / period)))
    if handle is not None:
        handle.close()
    return found


def train(args: argparse.Namespace) -> None:
    """What one process does: plan once, then train in every way that is asked for."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(args.store, args.size), rank=args.rank, world_size=args.size,
        timeout=datetime.timedelta(minutes=30),
    )  # fmt: skip
    clock = CommonClock(f"{args.store}-clock", args.rank, args.size, limit_s=1800.0)
    transport = Transport()
    step = TrainingStep(network(), loss_on(args.rank))
    chosen = [each for each in candidates(METHODS) if each.method in args.ways]

    def say(text: str) -> None:
        if args.rank == 0:
            print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    begin_s = time.perf_counter()
    found = measure(step, chosen, step.gradients(8), transport, args.limit_s, say)
    plan_s = time.perf_counter() - begin_s
    link = {"mbit": args.mbit, "latency": args.latency, "processes": args.size}
    if args.rank == 0:
        write(args.out, {"kind": "measurements", **link, "plan_s": plan_s, **found.to_json()})
    for row in predict(found, chosen):
        times = measured(row.candidate, round(row.period), row.step.middle, args.budget_s, clock)
        if args.rank == 0:
            cell = Cell(
                mbit=args.mbit, latency=args.latency, processes=args.size, method=row.method, use=row.use,
                predicted_s=row.step.middle, low_s=row.step.low, high_s=row.step.high,
                measured_s=statistics.fmean(times), rounds_s=times,
            )  # fmt: skip
            write(args.out, {"kind": "cell", **cell.to_json(), "load": os.getloadavg()[0]})
            say(f"{row.method}: predicted {1e3 * cell.predicted_s:.1f} ms, measured {1e3 * cell.measured_s:.1f}")
    clock.begin()
    os._exit(0)  # torch's hooks abort now and then when their process group is taken down right after them


def write(path: str, line: dict[str, Any]) -> None:
    """A line more."""
    with open(path, "a") as file:
        print(json.dumps(line), file=file)


def crews(args: argparse.Namespace) -> Iterator[tuple[int, str, int, list[str]]]:
    """Links, numbers of processes, and the ways that are not in the file yet."""
    known = {(cell.mbit, cell.latency, cell.processes, cell.method) for cell in read_cells(args.out)}
    for processes, mbit, latency in itertools.product(args.processes, args.mbit, args.latency):
        ways = [way for way in args.ways if (mbit, latency, processes, way) not in known]
        if ways:
            yield mbit, latency, processes, ways


def predicted_again(path: str) -> list[Cell]:
    """The cells of a file, predicted from the measurements that are there by the model as it is now."""
    found = {}
    for line in map(json.loads, Path(path).read_text().splitlines()):
        if line["kind"] == "measurements":
            kept = Measurements.from_json(line)
            chosen = [each for each in candidates(METHODS) if each.method in kept.exchanges]
            for row in predict(kept, chosen):
                found[line["mbit"], line["latency"], line["processes"], row.method] = row.step
    return [
        replace(cell, predicted_s=step.middle, low_s=step.low, high_s=step.high)
        for cell in read_cells(path)
        for step in [found[*cell.link, cell.method]]
    ]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/data/predicted_measured.jsonl")
    parser.add_argument("--mbit", type=int, nargs="*", default=list(MBITS))
    parser.add_argument("--latency", nargs="*", default=list(LATENCIES), help="one way")
    parser.add_argument("--processes", type=int, nargs="*", default=list(PROCESSES))
    parser.add_argument(
        "--ways", nargs="*", choices=WAYS, default=list(WAYS), metavar="WAY", help="; ".join(WAYS).replace("%", "%%")
    )
    parser.add_argument("--limit-s", type=float, default=3.0, help="of a single measurement of the planner")
    parser.add_argument("--budget-s", type=float, default=15.0, help="about as long as a way is trained")
    parser.add_argument("--summary", action="store_true", help="measure nothing; sum up what is in the file")
    parser.add_argument("--again", action="store_true", help="sum up predictions made anew of what was measured")
    parser.add_argument("--table", help="measure nothing; write the tables into this page")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = options().parse_args()
    if args.rank is not None:
        args.mbit, args.latency = args.mbit[0], args.latency[0]
        train(args)
        return
    if args.table:
        write_table(Path(args.table), read_cells(args.out))
        return
    if args.again:
        print(summary(predicted_again(args.out)))
        return
    todo = [] if args.summary else list(crews(args))
    for number, (mbit, latency, processes, ways) in enumerate(todo, start=1):
        print(f"{number} of {len(todo)}: {mbit} Mbit/s, {latency}, {processes} processes", file=sys.stderr, flush=True)
        own = [
            "--out", str(Path(args.out).resolve()), "--mbit", str(mbit), "--latency", latency, "--size", str(processes),
            "--limit-s", str(args.limit_s), "--budget-s", str(args.budget_s), "--ways", *ways,
        ]  # fmt: skip
        mtu = JUMBO_MTU if mbit >= 1000 else 1500
        with (
            namespaces(processes, f"{mbit}mbit", parse_seconds(latency), mtu) as links,
            started(__file__, links.names, own) as children,
        ):
            wait_for(children)
    print(summary(read_cells(args.out)))


if __name__ == "__main__":
    main()
