"""What rounds over a store cost, and whether workers that are killed at random moments change what training comes to.

Processes train a small network over a folder, or over an S3 server of this machine (moto's). With ``--kills`` workers
get SIGKILL at random moments and are started again with nothing but their state file. No worker is late as long as the
others wait for it, so that all must end with the bits of a simulation that nobody disturbed.

    python benchmarks/store_rounds.py --workers 4 --rounds 30 --kills 6
    python benchmarks/store_rounds.py --workers 2 --rounds 10 --s3
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thinwire
from thinwire.distributed import RoundSettings
from thinwire.simulator import Simulation
from thinwire.stores import RunKey, Store, open_store
from thinwire.worker import Worker

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from object_server import object_server

EVERY = 4
METHOD = f"signtopk:density=1%,every={EVERY}"


class Counted:
    """A store whose requests are counted, by kind."""

    def __init__(self, store: Store) -> None:
        self.store, self.requests = store, Counter[str]()

    def put(self, name: str, contents: bytes | memoryview) -> None:
        self.requests["put"] += 1
        self.store.put(name, contents)

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        self.requests["create"] += 1
        return self.store.create(name, contents)

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        self.requests["get"] += 1
        return self.store.get(name, max_num_bytes)

    def names(self, under: str) -> list[str]:
        self.requests["list"] += 1
        return list(self.store.names(under))

    def delete(self, name: str) -> None:
        self.requests["delete"] += 1
        self.store.delete(name)


def network(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.05)


def backward(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, step: int) -> None:
    inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(1000 * step + rank))
    optimizer.zero_grad()
    (model(inputs) - inputs[:, :10].sin()).square().mean().backward()


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def work(settings: dict[str, Any], rank: int) -> None:
    """One worker, in a process of its own."""
    model, optimizer = network(settings["width"])
    folder = Path(settings["folder"])
    store = Counted(open_store(settings["store"], settings["options"]))
    handle = thinwire.synchronize_by_store(
        optimizer, model, METHOD, store=store, rank=rank, size=settings["workers"], run="bench",
        key=RunKey.from_hex(settings["key"]), deadline=3600.0, state_file=folder / f"state-{rank}",
        settings=RoundSettings(poll_min_s=0.01, poll_max_s=0.1),
    )  # fmt: skip
    ends_s = []
    while handle.num_steps < settings["rounds"] * EVERY:
        backward(model, optimizer, rank, handle.num_steps)
        before, begin_s = handle.num_rounds, time.perf_counter()
        optimizer.step()
        if handle.num_rounds > before:
            ends_s.append(time.perf_counter() - begin_s)
    result = {
        "rounds": len(ends_s), "exchange_s": statistics.median(ends_s or [0.0]), "requests": dict(store.requests),
        "message_bytes": handle.message_bytes, "bytes_sent": handle.bytes_sent,
        "bytes_received": handle.bytes_received, "missed": handle.report.num_missed,
    }  # fmt: skip
    torch.save({"model": flat(model.parameters()), "result": json.dumps(result)}, folder / f"result-{rank}")


def simulated(workers: int, rounds: int, width: int) -> list[Tensor]:
    """What each worker's model is, undisturbed."""
    made = [network(width) for _ in range(workers)]
    method = thinwire.parse_method(METHOD)
    crew = [Worker(method, *each, rank=rank, size=workers, seed=0) for rank, each in enumerate(made)]
    simulation = Simulation(workers)
    for step in range(rounds * EVERY):
        for rank, (model, optimizer) in enumerate(made):
            backward(model, optimizer, rank, step)
        simulation.run([worker.step() for worker in crew])
    return [flat(model.parameters()) for model, _ in made]


def run(settings: dict[str, Any], kills: int, seed: int) -> tuple[list[dict[str, Any]], int, bool]:
    """All workers to their end; what each found, how many were killed, and whether all is as simulated."""
    choices, workers, folder = random.Random(seed), settings["workers"], Path(settings["folder"])
    command = [sys.executable, __file__, "--settings", json.dumps(settings)]
    running = {rank: subprocess.Popen([*command, "--rank", str(rank)]) for rank in range(workers)}
    num_killed = 0
    while any(process.poll() is None for process in running.values()):
        time.sleep(choices.uniform(0.0, 3.0))
        alive = [rank for rank, process in running.items() if process.poll() is None]
        begun = [rank for rank in alive if (folder / f"state-{rank}").exists()]
        if begun and num_killed < kills:
            rank = choices.choice(begun)
            running[rank].send_signal(signal.SIGKILL)
            if running[rank].wait() == -signal.SIGKILL:
                num_killed += 1
                running[rank] = subprocess.Popen([*command, "--rank", str(rank)])
    assert not any(process.returncode for process in running.values()), "a worker has failed"
    found = [torch.load(folder / f"result-{rank}", weights_only=True) for rank in range(workers)]
    expected = simulated(workers, settings["rounds"], settings["width"])
    is_same = all(torch.equal(each["model"], model) for each, model in zip(found, expected, strict=True))
    return [json.loads(each["result"]) for each in found], num_killed, is_same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.settings is not None:
        work(json.loads(given.settings), given.rank)
        return
    with tempfile.TemporaryDirectory() as folder, object_server() if given.s3 else nullcontext() as server:
        bucket = server.new_bucket() if server is not None else None
        settings = {
            "workers": given.workers, "rounds": given.rounds, "width": given.width, "folder": folder,
            "key": RunKey.create().to_hex(), "store": bucket.url if bucket else f"{folder}/store",
            "options": bucket.options if bucket else None,
        }  # fmt: skip
        results, num_killed, is_same = run(settings, given.kills, given.seed)
    for rank, each in enumerate(results):
        count = max(each["rounds"], 1)
        requests = ", ".join(f"{number / count:.1f} {kind}" for kind, number in sorted(each["requests"].items()))
        print(
            f"worker {rank}: {1e3 * each['exchange_s']:.0f} ms a round (median, with waiting), {requests} a round; "
            f"{each['bytes_sent']:,} bytes written, {each['bytes_received']:,} read, {each['message_bytes']:,} of "
            f"messages; {each['missed']} rounds missed"
        )
    print(f"{num_killed} workers killed; all models as simulated, bit for bit: {is_same}")
    assert is_same


if __name__ == "__main__":
    main()
