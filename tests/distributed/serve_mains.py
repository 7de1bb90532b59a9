"""What the processes of the tests of a server run; a module of its own, so that they can import it by name."""

import os
import signal
from typing import Any

import links_mains
import torch
from torch import Tensor, nn

import thinwire
from thinwire.errors import NumericsError, WorkerError

STEPS, FATAL = 10**6, 40
"""Nobody comes to the end before one of them has ended early."""


def start() -> nn.Module:
    """The same on all; every step of plain gradient descent moves every entry."""
    model = nn.Linear(4, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    return model


def loss_of(model: nn.Module) -> Tensor:
    loss: Tensor = model(torch.ones(1, 4)).sum()
    return loss


def serves(rank: int, size: int, method: str, how: str) -> dict[str, Any]:
    """The last process serves; worker 1 ends in its fortieth step, in the way that it is told, the others train on."""
    model = start()
    if rank == size - 1:
        error: Exception | None = None
        try:
            thinwire.serve(model, method, num_steps=STEPS)
        except (WorkerError, NumericsError) as raised:
            error = raised
        links_mains.raise_flag("served")
        return {"error": type(error).__name__, "text": str(error), "model": _values(model)}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with thinwire.synchronize(optimizer, model, method):
        for step in range(STEPS):
            if rank == 1 and step == FATAL:
                if how == "leave":
                    break
                _end(how, model)
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
    links_mains.wait_for("served")  # one that stops early goes on with something else
    return {"model": _values(model)}


def _end(how: str, model: nn.Module) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise ValueError("a bad batch")
    assert how == "nan"
    with torch.no_grad():
        next(model.parameters())[0] = torch.nan


def _values(model: nn.Module) -> list[float]:
    return torch.cat([each.detach().reshape(-1) for each in model.parameters()]).tolist()
