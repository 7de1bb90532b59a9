"""What becomes of a training when one of its processes is killed or stopped, at a random moment, many times over.

Two to four processes train a small model in one of the forms that the library has. At a random moment one of them gets
SIGKILL or SIGSTOP. Every other one must end with an error that names it: within two seconds of a SIGKILL, within the
timeout and two seconds of a SIGSTOP; none may hang, and none may end by a signal. Processes are copies of this one,
which has imported everything and has no threads.

    python benchmarks/failures.py --kills 200 --stops 50
"""

import argparse
import contextlib
import json
import os
import random
import select
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire

FORMS = {
    "gather": "topk:density=10%",
    "all-reduce": "sgd",
    "local steps": "signtopk:density=10%,every=4",
    "hook, buckets": "topk:density=10%",
    "asynchronous": "qsparse-async:every=2,density=10%",
}
INTRODUCTION = "introduction"
"""The form in which a process ends while it makes the acquaintance of the others."""

SLACK_S = 2.0
HANG_S = 30.0
"""What has not ended so long after it should have hangs."""

WIDTH = 200


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 8))


def load_kernels() -> None:
    """What is compiled is loaded once, here, and not by every copy."""
    for method in FORMS.values():
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        product = thinwire.parse_method(method)
        if "async" in method:
            product = thinwire.parse_method(method.replace("-async", ""))
        worker = thinwire.Worker(product, model, optimizer, rank=0, size=1, seed=0)
        for _ in range(4):
            model(torch.ones(2, 32)).sum().backward()
            thinwire.Simulation(1).run([worker.step()])


# What one process does.


@dataclass(frozen=True)
class Trial:
    """One training, and what happens to it."""

    form: str
    how: str
    size: int
    victim: int
    moment_s: float
    closes: bool
    """Whether who is left closes its handle, or just ends."""


def train(trial: Trial, rank: int, timeout_s: float, begun: Callable[[], None]) -> None:
    """For ever."""
    links = thinwire.distributed.LinkOptions(timeout=timedelta(seconds=timeout_s))
    if trial.form == INTRODUCTION:
        begun()
        thinwire.distributed.Transport(options=links).share([0.0])
        time.sleep(HANG_S)
    method = FORMS[trial.form]
    model = network()
    if trial.form == "asynchronous" and rank == trial.size - 1:
        begun()
        thinwire.serve(model, method, num_steps=10**6, links=links)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    called: Callable[[Tensor], Tensor] = model
    if "hook" in trial.form:
        called = wrapped = DistributedDataParallel(model, bucket_cap_mb=0.03)
        handle: Any = thinwire.compress_ddp(wrapped, method, warn_if_slower=False, links=links)
    else:
        handle = thinwire.synchronize(optimizer, model, method, links=links)
    generator = torch.Generator().manual_seed(rank)
    with contextlib.closing(handle) if trial.closes else contextlib.nullcontext():
        for step in range(10**6):
            if step == 3:  # DDP has cut its buckets anew by then
                begun()
            optimizer.zero_grad()
            x = torch.randn(8, 32, generator=generator)
            (called(x) - x[:, :8].sin()).square().mean().backward()
            optimizer.step()


def run_process(trial: Trial, rank: int, folder: str, timeout_s: float, tells: int) -> None:
    """Train, and tell of the beginning and of the error at the end."""

    def tell(**what: Any) -> None:
        os.write(tells, (json.dumps({"rank": rank, **what}) + "\n").encode())

    store = dist.FileStore(str(Path(folder, "store")), trial.size)
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=trial.size, timeout=timeout)
    try:
        train(trial, rank, timeout_s, lambda: tell(kind="begun"))
    except BaseException as error:
        tell(kind="error", error=type(error).__name__, text=str(error)[:400], at=time.monotonic())


# What happens to them.


@dataclass
class Result:
    """Of one survivor."""

    form: str
    how: str
    seconds: float | None
    error: str
    text: str
    fault: str
    """Why it is a failure; empty if it is none."""


def run_trial(trial: Trial, timeout_s: float) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        hears, tells = os.pipe()
        pids = []
        for rank in range(trial.size):
            pid = os.fork()
            if pid == 0:
                os.close(hears)
                run_process(trial, rank, folder, timeout_s, tells)
                # As a script ends: whatever is still open is closed, and no thread may be in the way of it.
                os.environ["THINWIRE_CHILD"] = "1"
                raise SystemExit(0)
            pids.append(pid)
        os.close(tells)
        try:
            return observe(trial, pids, hears, timeout_s)
        finally:
            if "THINWIRE_CHILD" not in os.environ:
                os.close(hears)
                for pid in pids:
                    reap(pid)


def observe(trial: Trial, pids: list[int], hears: int, timeout_s: float) -> list[Result]:
    """Send the signal when all have begun, and see how the others end."""
    lines = Lines(hears)
    begun: set[int] = set()
    deadline = time.monotonic() + HANG_S
    while len(begun) < trial.size:
        for line in lines.read(0.05):
            if line["kind"] != "begun":
                return [Result(trial.form, trial.how, None, line["error"], line["text"], "failed by itself")]
            begun.add(line["rank"])
        if time.monotonic() > deadline:
            return [Result(trial.form, trial.how, None, "", "", f"only {sorted(begun)} have begun")]
    time.sleep(trial.moment_s)
    os.kill(pids[trial.victim], signal.SIGKILL if trial.how == "SIGKILL" else signal.SIGSTOP)
    sent = time.monotonic()
    limit_s = SLACK_S + (timeout_s if trial.how == "SIGSTOP" or trial.form == INTRODUCTION else 0.0)
    errors: dict[int, dict[str, Any]] = {}
    survivors = {rank for rank in range(trial.size) if rank != trial.victim}
    exits: dict[int, int] = {}
    while survivors - exits.keys() and time.monotonic() < sent + limit_s + HANG_S:
        errors |= {line["rank"]: line for line in lines.read(0.05) if line["kind"] == "error"}
        for rank in survivors - exits.keys():
            pid, status = os.waitpid(pids[rank], os.WNOHANG)
            if pid:
                exits[rank] = os.waitstatus_to_exitcode(status)
    errors |= {line["rank"]: line for line in lines.read(0.0) if line["kind"] == "error"}
    return [judge(trial, errors.get(rank), exits.get(rank), sent, limit_s) for rank in sorted(survivors)]


def judge(trial: Trial, error: dict[str, Any] | None, code: int | None, sent: float, limit_s: float) -> Result:
    """What is wrong with how a survivor ended."""
    result = Result(trial.form, trial.how, None, "", "", "")
    if error is not None:
        result.seconds, result.error, result.text = error["at"] - sent, error["error"], error["text"]
    if code is None:
        result.fault = "hangs" if error is None else "hangs after its error"
    elif code:
        result.fault = f"ended with {code}"
    elif error is None:
        result.fault = "ended without an error"
    elif error["at"] - sent > limit_s:
        result.fault = f"noticed only after {error['at'] - sent:.1f} s"
    elif f"worker {trial.victim}" not in result.text and trial.form != INTRODUCTION:
        result.fault = "does not name the one that ended"
    elif result.error not in ("WorkerError", "RuntimeError" if "hook" in trial.form else "") and (
        trial.form != INTRODUCTION
    ):  # DDP makes a RuntimeError of what a hook's future holds
        result.fault = f"is a {result.error}"
    return result


class Lines:
    """What processes tell, as far as it has come."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._rest = b""

    def read(self, wait_s: float) -> Iterator[dict[str, Any]]:
        while select.select([self._file], [], [], wait_s)[0]:
            data = os.read(self._file, 1 << 16)
            if not data:
                time.sleep(wait_s)  # all have ended; they are yet to be waited for
                return
            *whole, self._rest = (self._rest + data).split(b"\n")
            yield from map(json.loads, whole)
            wait_s = 0.0


def reap(pid: int) -> None:
    """Nobody is left, stopped or hanging."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# Many of them.


def trials(count: int, how: str, seed: int, forms: list[str]) -> list[Trial]:
    generator = random.Random(f"{seed} {how} {forms}")
    made = []
    for number in range(count):
        form = forms[number % len(forms)]
        size = generator.randint(3 if form == "asynchronous" else 2, 4)
        moment_s = generator.uniform(0.0, 0.02 if form == INTRODUCTION else 0.4)
        made.append(Trial(form, how, size, generator.randrange(size), moment_s, generator.random() < 0.5))
    return made


def run_all(planned: list[Trial], timeout_s: float, jobs: int) -> list[Result]:
    """So many at a time, each job in a copy of this process."""
    hears, tells = os.pipe()
    pids = []
    for job in range(jobs):
        pid = os.fork()
        if pid == 0:
            os.close(hears)
            for trial in planned[job::jobs]:
                for result in run_trial(trial, timeout_s):
                    os.write(tells, (json.dumps({**asdict(trial), **asdict(result)}) + "\n").encode())
            os._exit(0)
        pids.append(pid)
    os.close(tells)
    results = []
    with os.fdopen(hears) as file:
        for line in file:
            found = json.loads(line)
            result = Result(**{name: found[name] for name in Result.__dataclass_fields__})
            results.append(result)
            if result.fault:
                print(json.dumps(found), flush=True)
    if failed := [pid for pid in pids if os.waitpid(pid, 0)[1]]:
        results.append(Result("job", "", None, "", "", f"{len(failed)} of {jobs} broke off"))
    return results


def table(results: list[Result]) -> None:
    print(f"{'form':16s} {'signal':8s} {'survivors':>9s} {'median s':>9s} {'worst s':>8s} {'failures':>9s}  errors")
    for key in dict.fromkeys((result.form, result.how) for result in results):
        own = [result for result in results if (result.form, result.how) == key]
        seconds = [result.seconds for result in own if result.seconds is not None]
        faults = sum(bool(result.fault) for result in own)
        kinds = ", ".join(f"{count} {kind or 'none'}" for kind, count in Counter(each.error for each in own).items())
        median, worst = (statistics.median(seconds), max(seconds)) if seconds else (float("nan"),) * 2
        print(f"{key[0]:16s} {key[1]:8s} {len(own):9d} {median:9.2f} {worst:8.2f} {faults:9d}  {kinds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--introductions", type=int, default=0, help="SIGKILLs while the processes meet")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="of the links")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--forms", nargs="*", default=list(FORMS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    load_kernels()
    planned = trials(args.kills, "SIGKILL", args.seed, args.forms) + trials(
        args.stops, "SIGSTOP", args.seed, args.forms
    )
    planned += trials(args.introductions, "SIGKILL", args.seed, [INTRODUCTION])
    begin = time.monotonic()
    results = run_all(planned, args.timeout_s, args.jobs)
    table(results)
    print(f"{len(planned)} trainings in {time.monotonic() - begin:.0f} s")
    sys.exit(any(result.fault for result in results))


if __name__ == "__main__":
    main()
