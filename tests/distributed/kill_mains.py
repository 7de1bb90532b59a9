"""What the processes of the tests of checkpoints run; a module of its own, so that they can import it by name."""

import copy
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.errors import WorkerError

STEPS, EVERY = 24, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 80), nn.Tanh(), nn.Dropout(0.2), nn.Linear(80, 5))


class Trainee:
    """A training of a few seconds with everything that a script has; ``kind`` is a method, or ``hook: method``."""

    def __init__(self, kind: str, folder: str, size: int) -> None:
        torch.manual_seed(1000 + dist.get_rank())
        generator = torch.get_rng_state()
        self.model = network()
        torch.set_rng_state(generator)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5, gamma=0.8)
        self.called: nn.Module = self.model
        if kind.startswith("hook: "):
            self.called = DistributedDataParallel(self.model)
            self.handle: Any = thinwire.compress_ddp(self.called, kind.removeprefix("hook: "), warn_if_slower=False)
        else:
            self.handle = thinwire.synchronize(self.optimizer, self.model, kind)
        parts = {
            "model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "thinwire": self.handle,
        }  # fmt: skip
        self.checkpoints = thinwire.Checkpoints(folder, parts)

    def train(self, begin: int, end: int, every: int = EVERY) -> None:
        for step in range(begin, end):
            self.optimizer.zero_grad()
            generator = torch.Generator().manual_seed(100 * step + dist.get_rank())
            x = torch.randn(16, 20, generator=generator)
            (self.called(x) - x[:, :5].sin()).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            if (step + 1) % every == 0:
                self.checkpoints.save(step + 1)

    def everything(self) -> dict[str, Any]:
        state = {
            "model": {name: param.detach() for name, param in self.model.named_parameters()},
            "optimizer": self.optimizer.state_dict(),
            "handle": self.handle.state_dict(),
            "random": torch.get_rng_state(),
        }
        return copy.deepcopy(state)  # a state shows what is alive


def die(after_s: float) -> None:
    """As if somebody had pulled the plug: nothing is flushed, nobody is told."""
    time.sleep(after_s)
    os.kill(os.getpid(), signal.SIGKILL)


def run(
    rank: int, size: int, store: str, kind: str, folder: str, result: str, death: tuple[int, int, float] | None = None
) -> None:
    """Go on from the newest checkpoint to the end; leave what is then there.

    ``death`` is whose, in (or after) which step, and how many seconds after its beginning.
    """
    torch.set_num_threads(1)
    victim, moment, delay_s = death or (-1, 0, 0.0)
    doom = threading.Thread(target=die, args=(delay_s,), daemon=True)
    if rank == victim and moment < 0:
        doom.start()
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    try:
        trainee = Trainee(kind, folder, size)
        begin = begun = trainee.checkpoints.load() or 0
        if begin % EVERY or begin > STEPS:
            sys.exit(3)
        if rank == victim and moment >= 0:
            trainee.train(begin, max(begin, moment))
            begin = max(begin, moment)
            doom.start()
        trainee.train(begin, STEPS)
        torch.save({"begun": begun, **trainee.everything()}, Path(result, f"rank-{rank}.pt"))
        trainee.handle.close()
        if rank == victim:
            doom.join()  # the steps that were left took less time than it had
    except (WorkerError, RuntimeError):
        sys.exit(2)  # the other process was killed
    dist.destroy_process_group()


def stages(rank: int, size: int, store: str, kind: str, folder: str, result: str, end: int) -> None:
    """Train up to ``end`` with as many processes as there are; leave what there was after loading and at the end."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    trainee = Trainee(kind, folder, size)
    begin = trainee.checkpoints.load() or 0
    loaded = trainee.everything()
    trainee.train(begin, end, every=end)
    torch.save({"loaded": loaded, "trained": trainee.everything()}, Path(result, f"{end}-rank-{rank}.pt"))
    trainee.handle.close()
    dist.destroy_process_group()


def residual(state: dict[str, Any]) -> Tensor:
    tensors = state["handle"].get("worker", state["handle"])["tensors"]
    return torch.cat([t.double().reshape(-1) for n, t in sorted(tensors.items()) if n.startswith("memory.residual.")])
