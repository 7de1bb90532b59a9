"""Training to a target over real, slow links: DDP, its fp16 and PowerSGD hooks, local steps, and thinwire, in one run.

Each process gets a network namespace, with a link that is as slow in each direction and has a latency (see
``delayed_links.py``). The same model is trained from the same start by every way, until its accuracy on held-out images
of fashion-mnist has reached the target. What is timed begins before the model is wrapped: its first broadcast, and what
is measured of the link, are part of the seconds; compiling kernels, connecting the process group and evaluation are
not. Bytes counted by thinwire are compared with those of the interface, headers of packets apart. Linux, root and
iproute2 are needed. What it builds it takes away again.

    python benchmarks/slow_link.py --bandwidth 100mbit --latency 20ms --processes 2
    python benchmarks/slow_link.py --bandwidth none --latency 0ms
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common_clock import CommonClock
from delayed_links import HEADER_NUM_BYTES, bandwidth_or_none, parse_seconds, run_in_each
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import CompressedGradients, Synchronizer
from thinwire.experiments.tasks import load_task
from thinwire.experiments.tasks.images import ImageTask

WIDTH = 1870  # with 784 inputs, two hidden layers of this width and 10 outputs: 4,985,430 parameters
LR = 0.1
WAYS = (
    "steps: signtopk:density=1%,every=4",
    "steps: signtopk:density=1%,every=2",
    "hook: signtopk:density=0.2%",
    "hook: signtopk:density=1%",
    "hook: topk:density=1%",
    "ddp + PowerSGD hook, rank 2",
    "steps: local-sgd:every=16",
    "ddp + fp16 hook",
    "ddp",
)
NUM_TRAIN, NUM_HELD_OUT = 5000, 1000


def data(folder: str | None) -> tuple[Tensor, Tensor]:
    """Images of fashion-mnist as vectors, and their classes."""
    task = load_task("fashion-mnist", data=folder)
    assert isinstance(task, ImageTask)
    count = NUM_TRAIN + NUM_HELD_OUT
    return task.train.pixels[:count].flatten(1), task.train.classes[:count]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
    )  # fmt: skip


def load_kernels(method: str) -> None:
    """Compiled code is loaded when it is first used, which is part of starting and not of training."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    worker = thinwire.Worker(thinwire.parse_method(method), model, optimizer, rank=0, size=1, seed=0)
    while worker.num_exchanges < 3:
        for param in model.parameters():
            param.grad = torch.randn_like(param)
        thinwire.Simulation(1).run([worker.step()])


class Trainee:
    """One way to train: a step, the model that counts, and the bytes that thinwire counted, if it did."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.kind, _, self.method = way.partition(": ")
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR)
        self.handle: CompressedGradients | Synchronizer | None = None
        self.forward: Callable[[Tensor], Tensor] = self.model
        if self.method:
            load_kernels(self.method)

    def wrap(self, bucket_mb: float) -> None:
        """What a script does before its loop, in which processes first exchange something."""
        if self.kind == "steps":
            self.handle = thinwire.synchronize(self.optimizer, self.model, self.method)
            return
        one_bucket = "PowerSGD" in self.way  # with two, torch's hook waits in a callback and hangs on gloo
        wrapped = DistributedDataParallel(
            self.model,
            bucket_cap_mb=1000.0 if one_bucket else bucket_mb,
            init_sync=self.kind != "hook",  # compress_ddp sends what differs, which here is nothing
        )
        self.forward = wrapped
        if "fp16" in self.way:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

            wrapped.register_comm_hook(dist.group.WORLD, fp16_compress_hook)
        elif one_bucket:
            from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

            state = powerSGD_hook.PowerSGDState(dist.group.WORLD, matrix_approximation_rank=2, start_powerSGD_iter=2)
            wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
        elif self.kind == "hook":
            self.handle = thinwire.compress_ddp(wrapped, self.method)

    def evaluate(self, inputs: Tensor, labels: Tensor) -> float:
        """Accuracy of the model that counts."""
        named: dict[str, Tensor] = dict(self.model.named_parameters())
        if isinstance(self.handle, Synchronizer):
            named = self.handle.shared_parameters()
        with torch.no_grad():
            outputs = torch.func.functional_call(self.model, named, (inputs,))
        return float((outputs.argmax(1) == labels).float().mean())

    def counted(self) -> int | None:
        """Bytes sent and received on this process's link, as thinwire counts them."""
        if isinstance(self.handle, Synchronizer):
            return self.handle.bytes_sent + self.handle.bytes_received
        return None if self.handle is None else self.handle.traffic.bytes_sent + self.handle.traffic.bytes_received


def interface_bytes(name: str) -> int:
    """What went over the interface in both directions, without the headers of packets."""
    folder = Path("/sys/class/net", name, "statistics")
    count = {
        what: sum(int((folder / f"{way}_{what}").read_text()) for way in ("tx", "rx")) for what in ("bytes", "packets")
    }
    return count["bytes"] - HEADER_NUM_BYTES * count["packets"]


def measure(way: str, args: argparse.Namespace, clock: CommonClock) -> dict[str, Any]:
    """Train by one way, to the target or the last step."""
    inputs, labels = data(args.data)
    held_out = inputs[NUM_TRAIN:], labels[NUM_TRAIN:]
    trainee = Trainee(way)
    generator = torch.Generator().manual_seed(100 + args.rank)
    begin_s = clock.begin()
    bytes_at_start = interface_bytes(args.interface)
    trainee.wrap(args.bucket_mb)
    start_s = time.perf_counter() - begin_s
    bytes_before = interface_bytes(args.interface)
    counted_before = trainee.counted() or 0
    total_s, durations, reached, step = 0.0, [], None, 0
    while step < args.steps and total_s < args.limit_s and reached is None:
        step_begin_s = time.perf_counter()
        batch = torch.randint(NUM_TRAIN, (32,), generator=generator)
        trainee.optimizer.zero_grad()
        nn.functional.cross_entropy(trainee.forward(inputs[batch]), labels[batch]).backward()
        trainee.optimizer.step()
        end_s = time.perf_counter()
        durations.append(end_s - step_begin_s)
        step += 1
        if step % args.evaluate_every == 0 or step == args.steps:
            # The slowest counts, rank 0 decides, and then all go on together: neither is part of the time.
            total_s += clock.most(end_s - begin_s)
            accuracy = clock.share(trainee.evaluate(*held_out))[0][0]
            reached = step if accuracy >= args.target else None
            begin_s = clock.begin()
    counted = trainee.counted()
    result = {
        "way": way, "bandwidth": args.bandwidth, "latency_s": args.latency, "processes": args.processes,
        "reached": reached, "steps": step, "seconds": total_s, "start_s": clock.most(start_s),
        "step_s": statistics.median(durations), "mean_step_s": statistics.mean(durations), "accuracy": accuracy,
        "start_bytes": bytes_before - bytes_at_start, "interface_bytes": interface_bytes(args.interface) - bytes_before,
        "counted_bytes": None if counted is None else counted - counted_before,
    }  # fmt: skip
    clock.begin()
    if trainee.handle is not None:
        trainee.handle.close()
    return result


def train(args: argparse.Namespace) -> None:
    """What one process does: every way in turn."""
    torch.set_num_threads(1)
    store = dist.FileStore(args.store, args.processes)
    dist.init_process_group("gloo", store=store, rank=args.rank, world_size=args.processes)
    clock = CommonClock(f"{args.store}-clock", args.rank, args.processes)
    results = []
    for way in args.ways:
        results.append(measure(way, args, clock))
        if args.rank == 0:
            print(json.dumps(results[-1]), flush=True)
    if args.rank == 0:
        Path(args.out).write_text("".join(json.dumps(result) + "\n" for result in results))
    clock.begin()
    os._exit(0)  # torch's hooks abort now and then when their process group is taken down right after them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=bandwidth_or_none, default="100mbit", help="of every link, or none")
    parser.add_argument("--latency", type=parse_seconds, default="20ms", help="one way")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--target", type=float, default=0.7, help="accuracy on held-out data")
    parser.add_argument("--data", help="folder with the IDX files of fashion-mnist, if not Debian's")
    parser.add_argument("--steps", type=int, default=120, help="at most, for each way")
    parser.add_argument("--limit-s", type=float, default=1800.0, help="seconds at most, for each way")
    parser.add_argument("--evaluate-every", type=int, default=4)
    parser.add_argument("--bucket-mb", type=float, default=25.0)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--out", default="slow_link.jsonl")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--interface", default="eth0", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        train(args)
        return
    run_in_each(__file__, args.processes, args.bandwidth, args.latency)
    table([json.loads(line) for line in Path(args.out).read_text().splitlines()])


def table(results: list[dict[str, Any]]) -> None:
    """Time to the target, beside that of plain DDP; of it what came before the first step."""
    plain = next((each["seconds"] for each in results if each["way"] == "ddp" and each["reached"]), None)
    print(
        f"{'way':36s} {'ms/step':>8s} {'steps':>6s} {'seconds':>8s} {'start s':>8s} {'times':>6s} "
        f"{'MB':>8s} {'counted':>8s} {'start MB':>8s}"
    )
    for each in results:
        taken = f"{each['seconds']:.2f}" if each["reached"] else "-"
        times = f"{plain / each['seconds']:.1f}" if plain and each["reached"] else "-"
        share = f"{each['counted_bytes'] / each['interface_bytes']:.3f}" if each["counted_bytes"] else "-"
        print(
            f"{each['way']:36s} {1e3 * each['mean_step_s']:8.1f} {each['reached'] or '-':>6} {taken:>8s} "
            f"{each['start_s']:8.2f} {times:>6s} {each['interface_bytes'] / 1e6:8.2f} {share:>8s} "
            f"{each['start_bytes'] / 1e6:8.2f}"
        )


if __name__ == "__main__":
    main()
