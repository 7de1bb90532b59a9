"""Training to a target over real, slow links: DDP, its fp16 and PowerSGD hooks, local steps, and thinwire, in one run.

Each process gets a network namespace on a bridge; ``tc`` limits what leaves every namespace, so that a link is as slow
in each direction. The same model is trained from the same start by every way, until its accuracy on held-out images of
fashion-mnist has reached the target. Bytes counted by thinwire are compared with those of the interface, headers of
packets apart. Linux, root and iproute2 are
needed. What it builds it takes away again.

    python benchmarks/slow_link.py --bandwidth 100mbit --processes 2
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import CompressedGradients, Synchronizer
from thinwire.experiments.tasks import load_task

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
HEADER_NUM_BYTES = 66
"""Of a packet: Ethernet 14, IP 20, TCP with time stamps 32."""
NUM_TRAIN, NUM_HELD_OUT = 5000, 1000


def data(folder: str | None) -> tuple[Tensor, Tensor]:
    """Images of fashion-mnist as vectors, and their classes."""
    train = load_task("fashion-mnist", data=folder).train
    count = NUM_TRAIN + NUM_HELD_OUT
    return train.pixels[:count].flatten(1), train.classes[:count]


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

    def __init__(self, way: str, bucket_mb: float) -> None:
        self.model = network()
        self.handle: CompressedGradients | Synchronizer | None = None
        optimizer = torch.optim.SGD(self.model.parameters(), lr=LR)
        self.forward: Callable[[Tensor], Tensor] = self.model
        self.optimizer = optimizer
        kind, _, method = way.partition(": ")
        if method:
            load_kernels(method)
        if kind == "steps":
            self.handle = thinwire.synchronize(optimizer, self.model, method)
            return
        one_bucket = "PowerSGD" in way  # with two, torch's hook waits in a callback and hangs on gloo
        wrapped = DistributedDataParallel(self.model, bucket_cap_mb=1000.0 if one_bucket else bucket_mb)
        self.forward = wrapped
        if "fp16" in way:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

            wrapped.register_comm_hook(dist.group.WORLD, fp16_compress_hook)
        elif one_bucket:
            from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

            state = powerSGD_hook.PowerSGDState(dist.group.WORLD, matrix_approximation_rank=2, start_powerSGD_iter=2)
            wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
        elif kind == "hook":
            self.handle = thinwire.compress_ddp(wrapped, method)

    def evaluate(self, inputs: Tensor, labels: Tensor) -> float:
        """Accuracy of the model that counts."""
        named = dict(self.model.named_parameters())
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


def train(args: argparse.Namespace) -> None:
    """What one process does: every way in turn, to the target or the last step."""
    rank = args.rank
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(args.store, args.processes), rank=rank, world_size=args.processes
    )
    inputs, labels = data(args.data)
    held_out = inputs[NUM_TRAIN:], labels[NUM_TRAIN:]
    results = []
    for way in args.ways:
        trainee = Trainee(way, args.bucket_mb)
        generator = torch.Generator().manual_seed(100 + rank)
        dist.barrier()
        bytes_before = interface_bytes(args.interface)
        counted_before = trainee.counted() or 0
        seconds, durations, reached, step = 0.0, [], None, 0
        while step < args.steps and seconds < args.limit_s and reached is None:
            begin = time.perf_counter()
            batch = torch.randint(NUM_TRAIN, (32,), generator=generator)
            trainee.optimizer.zero_grad()
            nn.functional.cross_entropy(trainee.forward(inputs[batch]), labels[batch]).backward()
            trainee.optimizer.step()
            durations.append(time.perf_counter() - begin)
            seconds += durations[-1]
            step += 1
            if step % args.evaluate_every == 0:
                # Rank 0 decides; the question is small, and its time is not counted.
                answer = torch.tensor([float(trainee.evaluate(*held_out) >= args.target), seconds])
                dist.broadcast(answer, 0)
                seconds = float(answer[1])
                reached = step if answer[0] else None
        moved = interface_bytes(args.interface) - bytes_before
        counted = None if trainee.counted() is None else trainee.counted() - counted_before
        results.append(
            {
                "way": way, "bandwidth": args.bandwidth, "processes": args.processes, "reached": reached,
                "steps": step, "seconds": seconds, "step_s": statistics.median(durations),
                "mean_step_s": statistics.mean(durations), "accuracy": trainee.evaluate(*held_out),
                "interface_bytes": moved, "counted_bytes": counted,
            }
        )  # fmt: skip
        if rank == 0:
            print(json.dumps(results[-1]), flush=True)
        if trainee.handle is not None:
            dist.barrier()
            trainee.handle.close()
    dist.barrier()
    if rank == 0:
        Path(args.out).write_text("".join(json.dumps(result) + "\n" for result in results))
    os._exit(0)  # torch's hooks abort now and then when their process group is taken down right after them


@contextlib.contextmanager
def links(processes: int, bandwidth: str, latency: str) -> Iterator[list[str]]:
    """Namespaces ``tw0, tw1, ...``, each with an interface ``eth0`` on one bridge, shaped on its way out."""

    def run(command: str) -> None:
        subprocess.run(command.split(), check=True, capture_output=True, text=True)

    # Also who is asked to end takes away what was built.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    names = [f"tw{os.getpid() % 10000}-{number}" for number in range(processes)]
    bridge = f"twbr{os.getpid() % 10000}"
    try:
        run(f"ip link add {bridge} type bridge")
        run(f"ip link set {bridge} up")
        for number, name in enumerate(names):
            outside = f"twv{os.getpid() % 10000}-{number}"
            run(f"ip netns add {name}")
            run(f"ip link add {outside} type veth peer name eth0 netns {name}")
            run(f"ip link set {outside} master {bridge} up")
            run(f"ip -n {name} addr add 10.83.0.{number + 1}/24 dev eth0")
            run(f"ip -n {name} link set lo up")
            run(f"ip -n {name} link set eth0 up")
            run(f"tc -n {name} qdisc add dev eth0 root tbf rate {bandwidth} burst 64kb latency {latency}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", default="100mbit", help="of every link, as tc writes it")
    parser.add_argument("--latency", default="400ms", help="how long tc's queue may be")
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


def run_in_each(script: str, processes: int, bandwidth: str, latency: str) -> None:
    """Start the script with its own arguments, ``--rank`` and ``--store`` in every namespace, and wait for all."""
    if os.geteuid() != 0:
        sys.exit("network namespaces need root: run this as root")
    with tempfile.TemporaryDirectory() as folder, links(processes, bandwidth, latency) as names:
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
        children = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, script, *sys.argv[1:], "--rank", str(rank), "--store",
                 str(Path(folder, "store"))], env=environment,
            )
            for rank, name in enumerate(names)
        ]  # fmt: skip
        try:
            codes = [child.wait() for child in children]
        finally:
            for child in children:
                if child.poll() is None:
                    child.terminate()
                    child.wait()
    if any(codes):
        sys.exit(f"processes ended with {codes}")


def table(results: list[dict[str, Any]]) -> None:
    """Time to the target, beside that of plain DDP."""
    plain = next((each["seconds"] for each in results if each["way"] == "ddp" and each["reached"]), None)
    print(f"{'way':36s} {'ms/step':>8s} {'steps':>6s} {'seconds':>8s} {'times':>6s} {'MB':>8s} {'counted':>8s}")
    for each in results:
        seconds = f"{each['seconds']:.2f}" if each["reached"] else "-"
        times = f"{plain / each['seconds']:.1f}" if plain and each["reached"] else "-"
        share = f"{each['counted_bytes'] / each['interface_bytes']:.3f}" if each["counted_bytes"] else "-"
        print(
            f"{each['way']:36s} {1e3 * each['mean_step_s']:8.1f} {each['reached'] or '-':>6} {seconds:>8s} {times:>6s} "
            f"{each['interface_bytes'] / 1e6:8.2f} {share:>8s}"
        )


if __name__ == "__main__":
    main()
