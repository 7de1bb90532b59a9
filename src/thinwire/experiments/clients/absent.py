"""What clients remember while others sit at their places."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thinwire.experiments.clients.setting import Clients
from thinwire.layout import State
from thinwire.methods import ModelAveraging
from thinwire.worker import Worker


@dataclass(slots=True, eq=False)
class Kept:
    """Of one client, all that is its own; tensors are handed over, never copied.

    Args:
        memory: what its messages left out; None if that was given up.
        optimizer: the state of its local steps, by the index of the parameter.
        buffers: of its model.
        number: the round in which it last took part.
    """

    memory: State | None
    optimizer: dict[int, dict[str, Any]]
    buffers: dict[str, Tensor]
    number: int


class Absent:
    """Keeps of each client what it will need at its next turn, and nothing of those who never took part.

    Args:
        clients: says what is kept.
        first: a worker that has not begun, whose buffers a client begins with.
    """

    def __init__(self, clients: Clients, first: Worker) -> None:
        self._clients = clients
        self._keeps_optimizer = isinstance(first.method, ModelAveraging)
        self._kept: dict[int, Kept] = {}
        self._buffers = {name: buffer.clone() for name, buffer in first.model.named_buffers()}

    def put(self, client: int, number: int, worker: Worker) -> None:
        """The client leaves the worker's place after round ``number``."""
        (channel,) = worker.channels
        optimizer: dict[int, dict[str, Any]] = {}
        if self._keeps_optimizer:
            state = worker.optimizer.state
            params = [param for group in worker.optimizer.param_groups for param in group["params"]]
            optimizer = {index: state.pop(param) for index, param in enumerate(params) if param in state}
        buffers = {name: buffer.clone() for name, buffer in worker.model.named_buffers()}
        self._kept[client] = Kept(channel.memory, optimizer, buffers, number)
        if self._clients.local_optimizer == "fresh":
            self._kept[client].optimizer = {}

    def take(self, client: int, worker: Worker) -> None:
        """The client sits down at the worker's place, which :meth:`put` has left."""
        (channel,) = worker.channels
        kept = self._kept.pop(client, None)
        if kept is None or kept.memory is None:
            channel.reset_memory()
        else:
            channel.memory = kept.memory
        if self._keeps_optimizer and kept is not None:
            params = [param for group in worker.optimizer.param_groups for param in group["params"]]
            for index, state in kept.optimizer.items():
                worker.optimizer.state[params[index]] = state
        for name, buffer in worker.model.named_buffers():
            buffer.copy_((self._buffers if kept is None else kept.buffers)[name])

    def expire(self, number: int) -> None:
        """Give up memories that are too old to be of use in round ``number``."""
        for kept in self._kept.values():
            if number - kept.number > self._clients.lasts:
                kept.memory = None

    def forget(self) -> None:
        """Nothing is owed any more."""
        for kept in self._kept.values():
            kept.memory = None

    def residuals(self) -> list[Tensor]:
        """Of those who have one."""
        states = [kept.memory for kept in self._kept.values() if kept.memory is not None]
        return [state["residual"] for state in states if "residual" in state]

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """All of it, as tensors and numbers; they are not copied."""
        return {
            client: {"memory": kept.memory, "optimizer": kept.optimizer, "buffers": kept.buffers, "number": kept.number}
            for client, kept in self._kept.items()
        }

    def load_state_dict(self, saved: dict[int, dict[str, Any]]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._kept = {
            client: Kept(each["memory"], each["optimizer"], each["buffers"], each["number"])
            for client, each in saved.items()
        }
