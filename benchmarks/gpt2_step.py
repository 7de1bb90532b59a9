"""What one exchanged step of a model of GPT-2's size takes over a slow link, and how much memory a process has at most.

Two processes train the same transformer of 124,439,808 parameters with AdamW, each in a network namespace with a link
that is as slow in each direction and has a latency (see ``delayed_links.py``). Every way has fresh processes, so that
the peak of their memory is its own. A batch is one window of 64 tokens: what is measured is the exchange, and forward,
backward and optimizer, which the row without an exchange has alone, would be as long under each way. A step takes as
long as the slowest process. Linux, root, iproute2 and tokenizers are needed, and 16 GB of memory. What it builds it
takes away again.

    python benchmarks/gpt2_step.py --bandwidth 100mbit --latency 20ms --out docs/data/gpt2_step.json
    python benchmarks/gpt2_step.py --ways "hook: signtopk:density=1%" --steps 3
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common_clock import CommonClock
from delayed_links import bandwidth_or_none, namespaces, parse_seconds, started, wait_for
from slow_link import interface_bytes
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import CompressedGradients, DensePolicy, Synchronizer
from thinwire.experiments.tasks.gpt import gpt
from thinwire.experiments.tasks.language_model import LanguageModelTask

WAYS = (
    "no exchange",
    "hook, all: signtopk:density=1%",
    "hook, all: topk:density=1%",
    "hook: signtopk:density=1%",
    "hook: topk:density=1%",
    "steps: signtopk:density=1%,every=8",
    "ddp + PowerSGD hook, rank 2",
    "ddp + bf16 hook",
    "ddp",
)
TOKENS = 64
LR = 1e-4
POWER_SGD_START = 2
"""Steps that torch's hook sends in full."""


def task() -> LanguageModelTask:
    """GPT-2's shapes, and the standard library in a vocabulary of as many tokens."""
    return gpt(layers=12, width=768, context=1024, vocabulary=50_257)


class Trainee:
    """A model of the task, wrapped as a script would."""

    def __init__(self, way: str, model: nn.Module) -> None:
        kind, _, method = way.partition(": ")
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
        self.handle: CompressedGradients | Synchronizer | None = None
        self.forward: Callable[[Tensor], Tensor] = model
        if kind == "steps":
            self.handle = thinwire.synchronize(self.optimizer, model, method)
        elif kind != "no exchange":
            # Both begin with the same parameters, so that DDP need not send them.
            one_bucket = "PowerSGD" in way  # with two, torch's hook waits in a callback and hangs on gloo
            wrapped = DistributedDataParallel(model, bucket_cap_mb=1000.0 if one_bucket else 25.0, init_sync=False)
            self.forward = wrapped
            self._hook(kind, method, wrapped)

    def _hook(self, kind: str, method: str, wrapped: DistributedDataParallel) -> None:
        if kind in ("hook", "hook, all"):
            # Unless told otherwise it sends embeddings in full; GPT-2's are also its last map, with a dense gradient.
            policy = DensePolicy(embeddings=kind == "hook")
            self.handle = thinwire.compress_ddp(wrapped, method, policy=policy)
        elif "bf16" in kind:
            wrapped.register_comm_hook(dist.group.WORLD, bf16_hook)
        elif "PowerSGD" in kind:
            from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

            state = powerSGD_hook.PowerSGDState(
                dist.group.WORLD, matrix_approximation_rank=2, start_powerSGD_iter=POWER_SGD_START
            )
            wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)

    def step(self, tokens: Tensor) -> None:
        self.optimizer.zero_grad()
        scores = self.forward(tokens[:, :-1])
        nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        self.optimizer.step()


def bf16_hook(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Torch's ``bf16_compress_hook``, which DDP refuses by its name on CPUs."""
    return default_hooks.bf16_compress_hook(group, bucket)


def peak_num_bytes() -> int:
    """The most memory that this process has had, of which others may share a part."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(args: argparse.Namespace, clock: CommonClock) -> dict[str, Any]:
    """Some steps by one way, after those that it does not count."""
    loaded = task()
    model = loaded.model(0)
    begin_num_bytes = peak_num_bytes()
    trainee = Trainee(args.way, model)
    # The first step makes the optimizer's state and compiles; PowerSGD's send in full; of local steps a whole period.
    num_before = {"ddp + PowerSGD hook, rank 2": POWER_SGD_START + 1}.get(args.way, 1)
    period = 8 if args.way.endswith("every=8") else 1
    num_before, num_counted = period * num_before, period * args.steps
    seconds, carried = [], 0
    for number in range(num_before + num_counted):
        window = loaded.windows[2 * number + args.rank]
        clock.begin()
        bytes_before = interface_bytes(args.interface)
        begin_s = time.perf_counter()
        trainee.step(window[None, : TOKENS + 1].long())
        took_s = clock.most(time.perf_counter() - begin_s)
        if number >= num_before:
            seconds.append(took_s)
            carried += interface_bytes(args.interface) - bytes_before
    exchanged = seconds[period - 1 :: period]
    result = {
        "way": args.way,
        "exchanged_step_s": round(statistics.median(exchanged), 2),
        "mean_step_s": round(statistics.mean(seconds), 2),
        "steps": len(seconds),
        "link_bytes_per_step": round(carried / len(seconds)),
        "peak_bytes": int(max(peak for (peak,) in clock.share(float(peak_num_bytes())))),
        "others_busy": round(max(0.0, os.getloadavg()[0] - 2.0), 1),
        "peak_bytes_before_wrapping": int(max(peak for (peak,) in clock.share(float(begin_num_bytes)))),
    }
    clock.begin()
    if trainee.handle is not None:
        trainee.handle.close()
    return result


def train(args: argparse.Namespace) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    store = dist.FileStore(args.store, 2)
    dist.init_process_group("gloo", store=store, rank=args.rank, world_size=2, timeout=datetime.timedelta(minutes=20))
    clock = CommonClock(f"{args.store}-clock", args.rank, 2, limit_s=1200.0)
    result = measure(args, clock)
    if args.rank == 0:
        Path(args.result).write_text(json.dumps(result))
    clock.begin()
    os._exit(0)  # torch's hooks abort now and then when their process group is taken down right after them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=bandwidth_or_none, default="100mbit", help="of every link, or none")
    parser.add_argument("--latency", type=parse_seconds, default="20ms", help="one way")
    parser.add_argument("--steps", type=int, default=2, help="that are counted; of local steps so many periods")
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--out", help="file for the figures, as JSON")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--interface", default="eth0", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        train(args)
        return
    task()  # what takes long is kept for the processes
    print(f"{'way':36s} {'exchanged s':>11s} {'mean step s':>11s} {'link MB/step':>12s} {'peak GB':>8s}", flush=True)
    rows = []
    with namespaces(2, args.bandwidth, args.latency) as links, tempfile.TemporaryDirectory() as folder:
        for way in args.ways:
            own = [*sys.argv[1:], "--way", way, "--result", f"{folder}/result"]
            with started(__file__, links.names, own) as processes:
                wait_for(processes)
            row = json.loads(Path(folder, "result").read_text())
            rows.append(row)
            if args.out:  # as it grows: the next way may fail
                Path(args.out).write_text(json.dumps(described(args, rows), indent=1) + "\n")
            print(
                f"{row['way']:36s} {row['exchanged_step_s']:11.2f} {row['mean_step_s']:11.2f} "
                f"{row['link_bytes_per_step'] / 1e6:12.2f} {row['peak_bytes'] / 1e9:8.2f}",
                flush=True,
            )


def described(args: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures with all that they depend on."""
    cores = len(os.sched_getaffinity(0))
    return {
        "what": "seconds of a step of 124,439,808 parameters (GPT-2's shapes, AdamW), and the peak memory of a process",
        "command": shlex.join(["python", "benchmarks/gpt2_step.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {cores} cores, torch {torch.__version__}; each process has one thread and a "
        "network namespace",
        "date": datetime.date.today().isoformat(),
        "processes": 2,
        "batch": f"1 window of {TOKENS} tokens for each process",
        "bandwidth": args.bandwidth or "no limit",
        "latency_s": args.latency,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
