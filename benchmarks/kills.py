"""SIGKILL at random moments, many times over, in each form of training, and what each restart is held to.

``synchronize`` and ``hook``: two processes with ``Checkpoints``; one is killed, the other is ended, both begin again.
``store``: two workers over a folder, with state files; one is killed and begins again, the other waits for it.
``torchft``: participants under a lighthouse (by ``faults.py``), of models and of gradients; one is killed and returns.
``ray``: the server of an asynchronous training is killed, and Ray starts it again.

The first three must end with the bits of a training that nobody disturbed. In the others nothing may be lost or counted
twice: what moved the common model is what was handed in, less what is owed, to 1e-6. Processes are copies of this one,
which has imported everything and has no threads, but for those of Ray.

    python benchmarks/kills.py --kills 80                 # in each of the six
"""

import argparse
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from fault_replica import fork
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.stores import RunKey

METHODS = {
    "synchronize": "signtopk:density=10%,every=4",
    "hook": "topk:density=10%",
    "store": "signtopk:density=10%,every=2",
}
FAULTS = {"torchft, models": "signtopk:density=10%,every=4", "torchft, gradients": "ef-sgd:density=10%"}
SIZE, EVERY = 2, 5
MOST_S = 0.8
"""After its beginning a process is killed within so long: while it finds the others, loads, trains or saves."""

PACE_S = 0.005
NUMEL = 24


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 80), nn.Tanh(), nn.Linear(80, 5))


def backward(called: Callable[[Tensor], Tensor], rank: int, step: int) -> None:
    x = torch.randn(16, 20, generator=torch.Generator().manual_seed(100 * step + rank))
    (called(x) - x[:, :5].sin()).square().mean().backward()


def vector(model: nn.Module) -> Tensor:
    return torch.cat([each.detach().reshape(-1) for each in model.parameters()])


@dataclass(frozen=True)
class Training:
    """One that two processes make, and begin again.

    Args:
        form: a key of ``METHODS``.
        folder: of all that it leaves.
    """

    form: str
    folder: Path

    def run(self, rank: int, life: int) -> None:
        """From where the last life left off to the step in the file ``end``; the model is left in a file."""
        train = self._over_a_folder if self.form == "store" else self._with_checkpoints
        model = train(rank, life)
        torch.save(vector(model), self.folder / f"model-{rank}.partial")
        (self.folder / f"model-{rank}.partial").rename(self.folder / f"model-{rank}")

    def is_over(self, step: int) -> bool:
        return (self.folder / "end").exists() and step >= int((self.folder / "end").read_text())

    def note(self, rank: int, step: int) -> None:
        """Who looks on knows how far it is."""
        (self.folder / f"step-{rank}").write_text(str(step))

    def _with_checkpoints(self, rank: int, life: int) -> nn.Module:
        dist.init_process_group(
            "gloo", store=dist.FileStore(str(self.folder / f"store-{life}"), SIZE), rank=rank, world_size=SIZE
        )
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        called: Any = model
        if self.form == "hook":
            called = DistributedDataParallel(model)
            handle: Any = thinwire.compress_ddp(called, METHODS[self.form], warn_if_slower=False)
        else:
            handle = thinwire.synchronize(optimizer, model, METHODS[self.form])
        parts = {"model": model, "optimizer": optimizer, "thinwire": handle}
        checkpoints = thinwire.Checkpoints(self.folder / "steps", parts)
        step = checkpoints.load() or 0
        while not self.is_over(step):
            optimizer.zero_grad()
            backward(called, rank, step)
            optimizer.step()
            step += 1
            if step % EVERY == 0:
                checkpoints.save(step)
                self.note(rank, step)
            time.sleep(PACE_S)
        handle.close()
        return model

    def _over_a_folder(self, rank: int, life: int) -> nn.Module:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        handle = thinwire.synchronize_by_store(
            optimizer, model, METHODS[self.form], store=self.folder / "rounds", rank=rank, size=SIZE, run="kills",
            key=RunKey.from_file(self.folder / "key"), deadline=300.0, state_file=self.folder / f"state-{rank}",
        )  # fmt: skip
        while not self.is_over(handle.num_steps):
            optimizer.zero_grad()
            backward(model, rank, handle.num_steps)
            optimizer.step()
            self.note(rank, handle.num_steps)
            time.sleep(PACE_S)
        handle.close()
        return model


def start(training: Training, rank: int, life: int) -> int:
    return fork(functools.partial(training.run, rank, life), training.folder / f"errors-{rank}.txt", None)


def until_ended(pid: int, limit_s: float) -> int | None:
    """Its exit status, or None if it goes on."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def finish(training: Training, pids: list[int]) -> list[Tensor]:
    """What all end with, a while from now if it is not said when."""
    if not (training.folder / "end").exists():
        steps = [int((training.folder / f"step-{rank}").read_text() or "0") for rank in range(SIZE)]
        (training.folder / "end.partial").write_text(str((max(steps) // 20 + 3) * 20))
        (training.folder / "end.partial").rename(training.folder / "end")
    for rank, pid in enumerate(pids):
        code = until_ended(pid, 120.0)
        if code != 0:
            errors = (training.folder / f"errors-{rank}.txt").read_text()
            sys.exit(f"{training.form}: process {rank} ended with {code}\n{errors[-3000:]}")
    return [torch.load(training.folder / f"model-{rank}", weights_only=True) for rank in range(SIZE)]


def kill_all_and_restart(training: Training, count: int, generator: random.Random) -> list[Tensor]:
    """As a launcher does: where one process has ended all are ended, and all begin again."""
    for life in range(count):
        pids = [start(training, rank, life) for rank in range(SIZE)]
        victim = life % SIZE
        time.sleep(generator.uniform(0.0, MOST_S))
        os.kill(pids[victim], signal.SIGKILL)
        os.waitpid(pids[victim], 0)
        if until_ended(pids[1 - victim], 1.0) is None:
            os.kill(pids[1 - victim], signal.SIGKILL)
            os.waitpid(pids[1 - victim], 0)
    return finish(training, [start(training, rank, count) for rank in range(SIZE)])


def kill_one_and_restart(training: Training, count: int, generator: random.Random) -> list[Tensor]:
    """The other one waits."""
    pids = [start(training, rank, 0) for rank in range(SIZE)]
    for life in range(1, count + 1):
        victim = generator.randrange(SIZE)
        time.sleep(generator.uniform(0.0, MOST_S))
        os.kill(pids[victim], signal.SIGKILL)
        os.waitpid(pids[victim], 0)
        pids[victim] = start(training, victim, life)
    return finish(training, pids)


def same_bits(form: str, count: int, seed: int) -> dict[str, Any]:
    """A training that is killed so often, and one that is not."""
    strike = kill_one_and_restart if form == "store" else kill_all_and_restart
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, kills in (("killed", count), ("whole", 0)):
            training = Training(form, Path(folder, name))
            training.folder.mkdir()
            RunKey.create().write(training.folder / "key")
            for rank in range(SIZE):
                (training.folder / f"step-{rank}").write_text("0")
            if name == "whole":
                (training.folder / "end").write_text((Path(folder, "killed") / "end").read_text())
            found.append(strike(training, kills, random.Random(seed)))
        steps = int((Path(folder, "killed") / "end").read_text())
    killed, whole = found
    are_equal = all(torch.equal(one, other) for one, other in zip(killed, whole, strict=True))
    return {"form": form, "kills": count, "steps": steps, "law": "bits of a training without", "holds": are_equal}


def conserved_under_faults(form: str, count: int, seed: int) -> dict[str, Any]:
    """By ``faults.py``: a kill every second, each followed by a return, until there were so many."""
    options = {
        "replicas": 4, "kinds": "kill", "calm-s": 2, "faults-an-hour": 3600, "minutes": count / 12,
        "most-faults": count, "down-s": 0.2, "pace-s": 0.02, "timeout-s": 3, "heartbeat-s": 0.6, "join-s": 0.6,
        "loss-streams": 1, "seed": seed, "method": FAULTS[form],
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(Path(__file__).with_name("faults.py")), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        sys.exit(done.stderr[-3000:])
    found = json.loads(done.stdout.splitlines()[-1])
    holds = found["are_alike"] and done.returncode == 0
    return {
        "form": form, "kills": found["kinds"]["kill"], "steps": found["steps"], "law": "account",
        "off": found["violation"], "by_membership": found["owed_moved"], "moved": found["moved"],
        "fates": found["fates"], "holds": holds,
    }  # fmt: skip


# Ray: a server, its folder, and workers that do not end before they are told to.


def build_bowl() -> nn.Module:
    model = nn.Module()
    model.w = nn.Parameter(0.3 * torch.randn(NUMEL, generator=torch.Generator().manual_seed(5)))
    return model


def train_in_bowl(worker: Any, folder: str) -> tuple[Tensor, Tensor]:
    """What was handed in, over the number of workers, and what is owed."""
    model = build_bowl()
    w = model.get_parameter("w")
    optimizer = torch.optim.SGD([w], lr=0.05)
    handed_in = torch.zeros(NUMEL, dtype=torch.float64)
    drift = torch.zeros(NUMEL, dtype=torch.float64)
    before = torch.zeros(NUMEL)

    def count(*_: Any) -> None:
        drift.add_(before.double() - w.detach().double())

    optimizer.register_step_post_hook(count)  # before the exchange
    handle = worker.synchronize(optimizer, model)
    with handle:
        step = 0
        while not Path(folder, "end").exists():
            w.grad = w.detach() - 0.1 * (worker.rank + 1) - 0.02 * torch.arange(NUMEL) * (-1.0) ** step
            before.copy_(w.detach())
            size, exchanges = handle.size, handle.worker.num_exchanges
            optimizer.step()
            if handle.worker.num_exchanges > exchanges:
                handed_in += drift / size
                drift.zero_()
            step += 1
            time.sleep(PACE_S)
    residual = handle.worker.exchanged.channels[0].memory["residual"].double()
    return handed_in, residual / handle.worker.size


def conserved_on_ray(count: int, seed: int) -> dict[str, Any]:
    """The server's process is found by the lock that it holds."""
    from thinwire.ray import AsyncTraining

    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "server")
        place.mkdir()
        training = AsyncTraining(
            functools.partial(train_in_bowl, folder=folder), build_bowl, "qsparse-async:k=5,levels=3", num_workers=SIZE,
            folder=place, save_every=5,
        )  # fmt: skip
        with training:
            merged = -1
            for _ in range(count):
                while training.report.num_merged <= merged:  # the next server has begun, and something has come to it
                    time.sleep(0.05)
                merged = training.report.num_merged
                time.sleep(generator.uniform(0.0, 0.2))
                os.kill(int((place / ".thinwire.lock").read_text().split()[1]), signal.SIGKILL)
            Path(folder, "end").touch()
            results = training.wait()
        report = training.report
        moved = build_bowl().get_parameter("w").detach().double() - training.shared_parameters()["w"].double()
    expected = torch.stack([handed_in - owed for handed_in, owed in results.values()]).sum(0)
    off = float((moved - expected).abs().max())
    return {
        "form": "ray", "kills": count, "restarts": report.num_restarts, "merged": report.num_merged, "law": "account",
        "off": off, "moved": float(moved.abs().max()), "holds": off <= 1e-6,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=80, help="in each form")
    parser.add_argument("--forms", nargs="+", choices=[*METHODS, *FAULTS, "ray"], default=[*METHODS, *FAULTS, "ray"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for method in METHODS.values():  # what is compiled is loaded once, here
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        worker = thinwire.Worker(thinwire.parse_method(method), model, optimizer, rank=0, size=1, seed=0)
        for step in range(4):
            backward(model, 0, step)
            thinwire.Simulation(1).run([worker.step()])
    fail = False
    for form in args.forms:
        if form in METHODS:
            found = same_bits(form, args.kills, args.seed)
        elif form in FAULTS:
            found = conserved_under_faults(form, args.kills, args.seed)
        else:
            found = conserved_on_ray(args.kills, args.seed)
        print(json.dumps(found), flush=True)
        fail |= not found["holds"]
    sys.exit(fail)


if __name__ == "__main__":
    main()
