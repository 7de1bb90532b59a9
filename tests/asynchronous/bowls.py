"""Small trainings with a server, whose every step is counted in f64: what is conserved can be checked."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.ray import AsyncHandle, AsyncWorker

NUMEL = 24
METHOD = "qsparse-async:k=5,levels=3,every=2"


def build_model() -> nn.Module:
    """A vector with one frozen number and one buffer beside it, from its own randomness."""
    generator = torch.Generator().manual_seed(5)
    model = nn.Module()
    model.w = nn.Parameter(0.3 * torch.randn(NUMEL, generator=generator))
    model.frozen = nn.Parameter(torch.randn(2, generator=generator), requires_grad=False)
    model.register_buffer("scale", torch.rand(1, generator=generator))
    return model


def other_start() -> nn.Module:
    """The same kind of model with other numbers: workers begin with the server's."""
    model = build_model()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1.0)
    return model


def set_gradient(model: nn.Module, rank: int, number: int) -> None:
    """That of a bowl that is each worker's own, and moves."""
    w = model.get_parameter("w")
    target = torch.full((NUMEL,), 0.1 * (rank + 1)) + 0.02 * torch.arange(NUMEL) * (-1.0) ** number
    w.grad = w.detach() - target


@dataclass
class Ledger:
    """What a worker has done, and what of it has left.

    Args:
        handed_in: the sum of its drifts, each over the number of workers at its exchange (f64).
        owed: what its memory holds, over the number of workers (f64).
        size: of the crew at its end.
        num_sent: messages.
        traffic: bytes sent, received and sent again.
        node: where it was.
    """

    handed_in: Tensor
    owed: Tensor
    size: int
    num_sent: int
    traffic: tuple[int, int, int]
    node: str


class Stepper:
    """Steps of one worker on a bowl of its own.

    Args:
        worker: of Ray, or of a test's.
        build: makes its model.
    """

    def __init__(self, worker: AsyncWorker, build: Callable[[], nn.Module] = other_start) -> None:
        self.model = build()
        self.optimizer = torch.optim.SGD([self.model.get_parameter("w")], lr=0.05)
        self.handed_in = torch.zeros(NUMEL, dtype=torch.float64)
        self._drift = torch.zeros(NUMEL, dtype=torch.float64)
        self._before = torch.zeros(NUMEL)
        self._size = 0
        # Registered first, so that it sees what the optimizer has done before the exchange.
        self.optimizer.register_step_post_hook(lambda *_: self._count())
        self.handle: AsyncHandle = worker.synchronize(self.optimizer, self.model)
        self.rank = worker.rank

    def step(self, number: int) -> None:
        set_gradient(self.model, self.rank, number)
        self._before, self._size = self.model.get_parameter("w").detach().clone(), self.handle.size
        exchanges = self.handle.worker.num_exchanges
        self.optimizer.step()
        if self.handle.worker.num_exchanges > exchanges:
            self.handed_in += self._drift / self._size
            self._drift.zero_()

    def _count(self) -> None:
        self._drift += self._before.double() - self.model.get_parameter("w").detach().double()

    def ledger(self, node: str = "") -> Ledger:
        handle = self.handle
        residual = handle.worker.exchanged.channels[0].memory["residual"].double()
        traffic = handle.bytes_sent, handle.bytes_received, handle.bytes_resent
        size = handle.worker.size
        return Ledger(self.handed_in, residual / size, size, handle.worker.num_exchanges, traffic, node)


def train(worker: AsyncWorker, num_steps: int = 8, at_step: Callable[[AsyncWorker, int], Any] | None = None) -> Ledger:
    """That many steps, or until told to pause."""
    import ray

    stepper = Stepper(worker)
    with stepper.handle as handle:
        for number in range(num_steps):
            if at_step is not None:
                at_step(worker, number)
            stepper.step(number)
            if handle.is_paused:
                break
    return stepper.ledger(ray.get_runtime_context().get_node_id())


def kill_server(folder: Path) -> None:
    """End the process that holds the folder's lock, by the signal that nobody hears."""
    words = (folder / ".thinwire.lock").read_text().split()
    os.kill(int(words[1]), signal.SIGKILL)


def moved(initial: nn.Module, final: dict[str, Tensor]) -> Tensor:
    """Initial minus final, in f64."""
    return initial.get_parameter("w").detach().double() - final["w"].double()


def conserved(ledgers: list[Ledger]) -> Tensor:
    """What initial minus final must be."""
    return torch.stack([each.handed_in - each.owed for each in ledgers]).sum(dim=0)
