"""What the first step costs where no kernel was ever compiled, where none can be kept, and where all are on disk.

Two processes over gloo make their first step with `compress_ddp`. For each of them: the processor's seconds, user and
system, and the seconds of the clock, from `import thinwire` (torch is imported before) to the end of the step. `cold`
begins with an empty folder of kernels, `warm` finds what `cold` left there, and in `unkept` there is no folder that
may be written, so that each process compiles for itself. With ``--kernels`` the table has the seconds of every
kernel's compilation instead, without those that it calls.

    python benchmarks/cold_start.py --method signtopk:density=1%
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODELS = {"small": (32, 64, 10), "1 M": (512, 1024, 512, 10)}
PLACES = ("cold", "warm", "unkept")
NUM_STEPS = 3


def spent() -> tuple[float, float]:
    """Processor's seconds of this process, and the clock's."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, time.perf_counter()


def time_compilations(seconds: dict[str, float]) -> None:
    """Processor's seconds of each kernel that is compiled from now on, without those of the kernels that it calls."""
    from numba.core import event

    under_way: list[list[float]] = []

    class Compilations(event.Listener):
        def on_start(self, event: Any) -> None:
            under_way.append([time.thread_time(), 0.0])

        def on_end(self, event: Any) -> None:
            begun, inside = under_way.pop()
            took = time.thread_time() - begun
            if under_way:
                under_way[-1][1] += took
            function = event.data["dispatcher"].py_func
            name = f"{function.__module__.removeprefix('thinwire.kernels.')}.{function.__name__}"
            seconds[name] = seconds.get(name, 0.0) + took - inside

    event.register("numba:compile", Compilations())  # type: ignore[no-untyped-call]


def first_step(arguments: argparse.Namespace, sizes: tuple[int, ...]) -> dict[str, Any]:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    kernels: dict[str, float] = {}
    if arguments.kernels:
        time_compilations(kernels)
    store = dist.FileStore(arguments.store, 2)
    dist.init_process_group("gloo", store=store, rank=arguments.rank, world_size=2)
    torch.manual_seed(0)
    layers = [each for pair in itertools.pairwise(sizes) for each in (nn.Linear(*pair), nn.ReLU())]
    model = DistributedDataParallel(nn.Sequential(*layers[:-1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.randn(8, sizes[0])
    marks = [spent()]
    import thinwire

    compress_ddp = thinwire.compress_ddp
    marks.append(spent())
    handle = compress_ddp(model, arguments.method)
    marks.append(spent())
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        marks.append(spent())
    handle.close()
    dist.destroy_process_group()
    parts = [[end - begin for begin, end in zip(*pair, strict=True)] for pair in itertools.pairwise(marks)]
    return {"parts": parts, "kernels": kernels}


def run_both(arguments: argparse.Namespace, model: str, where: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    """Both processes' answers."""
    with tempfile.TemporaryDirectory(dir=folder) as meeting:
        command = [sys.executable, __file__, "--method", arguments.method, "--models", model]
        command += ["--store", f"{meeting}/store"] + ["--kernels"] * arguments.kernels
        environment = {**os.environ, **where, "PYTHONWARNINGS": "ignore"}
        processes = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, env=environment, text=True)
            for rank in range(2)
        ]
        told = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a process failed")
    return [json.loads(each) for each in told]


def show_seconds(name: str, told: list[dict[str, Any]]) -> None:
    for rank, each in enumerate(told):
        cpu, clock = (sum(part[which] for part in each["parts"][:3]) for which in (0, 1))
        parts = " ".join(f"{part[0]:8.2f}" for part in each["parts"])
        print(f"{name:16} {rank:4} {cpu:10.2f} {clock:10.2f}   {parts}", flush=True)


def show_kernels(name: str, told: list[dict[str, Any]]) -> None:
    print(f"{name}: seconds of each kernel, on rank 0 and 1")
    kernels = {kernel for each in told for kernel in each["kernels"]}
    rows = [(kernel, *(each["kernels"].get(kernel, 0.0) for each in told)) for kernel in kernels]
    for kernel, *seconds in [
        *sorted(rows, key=lambda row: -sum(row[1:])),
        ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])),
    ]:
        print(f"{kernel:50} " + " ".join(f"{each:8.2f}" for each in seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="signtopk:density=1%")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--kernels", action="store_true", help="what each kernel takes to compile")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        print(json.dumps(first_step(arguments, MODELS[arguments.models[0]])))
        return
    show = show_kernels if arguments.kernels else show_seconds
    if not arguments.kernels:
        print("                 rank  processor      clock   import     hook   step 1   step 2   step 3  (processor)")
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            kept = {"NUMBA_CACHE_DIR": folder}
            places = {"cold": kept, "warm": kept, "unkept": {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}}
            for where in arguments.places:
                show(f"{model}, {where}", run_both(arguments, model, places[where], Path(folder)))


if __name__ == "__main__":
    main()
