"""What torchrun starts again and again: a training loop with checkpoints, as in examples/local_steps.py."""

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import thinwire

SAVED_EVERY = 10
GATES = {30: "killed", 60: "joined"}
"""Steps after which a test does something to the processes, and the files by which it says that it has."""
NUM_STEPS = 90


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    links = thinwire.LinkOptions(timeout=timedelta(seconds=60))
    with thinwire.synchronize(optimizer, model, "signtopk:density=5%,every=5", links=links) as sync:
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "thinwire": sync}
        checkpoints = thinwire.Checkpoints(folder / "checkpoints", parts)
        begin = checkpoints.load() or 0
        torch.save(sync.state_dict()["worker"]["tensors"], folder / f"begin-{begin}-{rank}-of-{size}.pt")
        for step in range(begin, NUM_STEPS):
            generator = torch.Generator().manual_seed(1000 * step + rank)
            x = torch.randn(16, 12, generator=generator)
            optimizer.zero_grad()
            (model(x) - x[:, :1].sin()).square().mean().backward()
            optimizer.step()
            if (step + 1) % SAVED_EVERY == 0:
                checkpoints.save(step + 1)
            gate = GATES.get(step + 1)
            (folder / f"at-{step + 1}-{rank}").touch()
            while gate and not (folder / gate).exists():
                time.sleep(0.02)
    torch.save([param.detach() for param in model.parameters()], folder / f"end-{rank}-of-{size}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
