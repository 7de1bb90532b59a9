"""How much memory a process has at most while it trains, in sizes of the model: plain, in DDP, and with thinwire.

Thirty linear layers without bias are trained by plain SGD on four examples, so that parameters, gradients and what the
exchange takes are nearly all there is. Each figure has processes of its own, which train a small model first: what is
compiled and imported is no part of it. The peak is the system's, above what the process had before it made the model.
The slope between two widths leaves out what does not grow with the model.

Linux is needed: peaks are read from ``/proc/self`` and reset there. Of several processes that of the largest counts.

    python benchmarks/memory.py                                   # the table of docs/bench.md
    python benchmarks/memory.py --ways "hook: topk" --widths 512 1024 --processes 2 --json
"""

import argparse
import gc
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import thinwire

WAYS = (
    "plain",
    "ddp",
    "synchronize: sgd",
    "synchronize: bf16-sgd",
    "synchronize: qsgd:bits=4",
    "synchronize: local-sgd:every=4",
    "synchronize: signtopk:density=1%,every=4",
    "synchronize: signtopk:density=1%,every=4,residual_dtype=bf16",
    "synchronize: diloco:every=4",
    "hook: sgd",
    "hook: qsgd:bits=4",
    "hook: signtopk:density=1%",
    "hook, views: signtopk:density=1%",
    "hook: signtopk:density=1%,residual_dtype=bf16",
    "hook: ef-signsgd",
    "hook: ef-signsgd:residual_dtype=bf16",
)
LAYERS = 30
STEPS = 9
"""Of every kind of step there are several: of two periods of four, and DDP has made its buckets anew."""


def train(way: str, layers: int, width: int) -> None:
    """Some steps of a new model."""
    kind, _, method = way.partition(": ")
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    if kind not in ("plain", "synchronize"):
        model = DistributedDataParallel(model, gradient_as_bucket_view=kind == "hook, views")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    handle: Any = None
    if kind.startswith("hook"):
        handle = thinwire.compress_ddp(model, method, warn_if_slower=False)
    elif kind == "synchronize":
        handle = thinwire.synchronize(optimizer, model, method)
    examples = torch.randn(4, width)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(examples).pow(2).sum().backward()
        optimizer.step()
    if handle is not None:
        if kind == "synchronize":
            handle.flush()
        handle.close()


def peak_num_bytes(way: str, layers: int, width: int) -> int:
    """The most memory that training takes, above what the process has before."""
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what there is now
    train(way, layers, width)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def _process(rank: int, size: int, folder: str, way: str, layers: int, width: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", size), rank=rank, world_size=size)
    train(way, 4, 300)
    Path(folder, f"rank-{rank}").write_text(str(peak_num_bytes(way, layers, width)))
    dist.barrier()
    dist.destroy_process_group()


def measure(way: str, size: int, layers: int, width: int) -> int:
    """The peak of the process that takes most, in bytes; each is a new one."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        shared = size, folder, way, layers, width
        processes = [context.Process(target=_process, args=(rank, *shared)) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                raise SystemExit(f"a process that trains by {way!r} ended with exit code {process.exitcode}")
        return max(int(Path(folder, f"rank-{rank}").read_text()) for rank in range(size))


def described(way: str, size: int, layers: int, widths: Sequence[int]) -> dict[str, Any]:
    """Peaks at each width, and the slope between the last two, in sizes of the model."""
    peaks = [measure(way, size, layers, width) for width in widths]
    sizes = [4 * layers * width * width for width in widths]
    return {
        "way": way,
        "processes": size,
        "parameters": [each // 4 for each in sizes],
        "peak": [round(peak / own, 2) for peak, own in zip(peaks, sizes, strict=True)],
        "slope": round((peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--widths", type=int, nargs="*", default=[1024, 2048], help="two or more, ascending")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each way")
    args = parser.parse_args()
    if not args.json:
        heads = "".join(f"{args.layers * width * width / 1e6:>9.1f} M" for width in args.widths)
        print(f"{'peak, in sizes of the model':62s}{heads}{'slope':>9s}", flush=True)
    for way in args.ways:
        row = described(way, args.processes, args.layers, args.widths)
        if args.json:
            print(json.dumps(row), flush=True)
        else:
            print(f"{way:62s}{''.join(f'{peak:11.2f}' for peak in row['peak'])}{row['slope']:9.2f}", flush=True)


if __name__ == "__main__":
    main()
