"""What the processes of the tests of checkpoints' files run."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thinwire
from thinwire import files
from thinwire.distributed import Transport
from thinwire.errors import ConfigError, NumericsError


class Adversaries:
    """Two models whose parameters have the same names, two optimizers, two handles, one of each form of state."""

    def __init__(self, folder: str, rank: int) -> None:
        torch.manual_seed(7)
        self.models = {"g": nn.Linear(6, 4), "d": nn.Linear(4, 1)}
        # A script that wraps its models: names then have a prefix in the parts, and none in the handles.
        self.parts: dict[str, Any] = {"models": nn.ModuleDict(self.models)}
        self.optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in self.models.items()}
        self.handles = {
            name: thinwire.synchronize(self.optimizers[name], self.models[name], "signtopk:density=20%,every=2")
            for name in self.models
        }
        self.parts |= {f"optimizer {name}": optimizer for name, optimizer in self.optimizers.items()}
        self.parts |= {f"handle {name}": handle for name, handle in self.handles.items()}
        self.checkpoints = thinwire.Checkpoints(folder, self.parts)
        self.rank = rank

    def train(self, num_steps: int) -> None:
        generator = torch.Generator().manual_seed(self.rank)
        for _ in range(num_steps):
            for optimizer in self.optimizers.values():
                optimizer.zero_grad()
            made = self.models["g"](torch.randn(8, 6, generator=generator))
            (self.models["d"](made) - made.sum(1, keepdim=True).sin()).square().mean().backward()
            for optimizer in self.optimizers.values():
                optimizer.step()

    def states(self) -> dict[str, Any]:
        return {name: handle.state_dict() for name, handle in self.handles.items()}

    def close(self) -> None:
        self.checkpoints.close()
        for handle in self.handles.values():
            handle.close()


def fail_and_save(folder: str, transport: Transport) -> None:
    rank = transport.rank
    training = Adversaries(f"{folder}/steps", rank)
    training.train(4)
    real = os.fsync
    if rank == 1:
        files.os.fsync = full  # type: ignore[attr-defined]
    refused(training, ConfigError, "by processes [1]: ")
    os.fsync = real
    weight = training.models["g"].weight
    held = float(weight[0, 0])
    with torch.no_grad():
        weight[0, 0] = float("nan") if rank == 1 else held
    refused(training, NumericsError, "on process 1")
    with torch.no_grad():
        weight[0, 0] = held
    training.checkpoints.save(4)
    assert training.checkpoints.load() == training.checkpoints.load(4) == 4
    torch.save(training.states(), Path(folder, f"before-{rank}.pt"))
    training.close()


def refused(training: Adversaries, kind: type[Exception], text: str) -> None:
    """Every process raises the same, and nothing is left."""
    with pytest.raises(kind, match=re.escape(text)):
        training.checkpoints.save(4)
    assert training.checkpoints.steps() == []


def full(opened: int) -> None:
    raise OSError(28, "No space left on device")


def resume(folder: str, transport: Transport) -> None:
    training = Adversaries(f"{folder}/steps", transport.rank)
    assert training.checkpoints.load() == 4
    torch.save(training.states(), Path(folder, f"after-{transport.rank}.pt"))
    training.train(2)
    training.close()


def residual(state: dict[str, Any]) -> Tensor:
    tensors = state["worker"]["tensors"]
    return torch.cat([t.double().reshape(-1) for n, t in sorted(tensors.items()) if n.startswith("memory.residual.")])
