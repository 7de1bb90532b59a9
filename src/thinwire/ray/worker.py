"""What a training function gets on Ray: who it is, and the way to the server."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from thinwire.distributed.optimizer_hooks import check_unattached
from thinwire.distributed.starting_point import digest, model_terms
from thinwire.errors import ConfigError
from thinwire.methods import Method
from thinwire.ray.handle import AsyncHandle
from thinwire.ray.link import ServerCalls, ServerLink
from thinwire.worker import Worker
from thinwire.worker.parameters import plain_name


class Start:
    """Where a worker begins.

    Args:
        size: number of workers.
        names: of the trained parameters, in the order of the vector.
        tensors: these, f32, and what else differs from the worker's own, by name.
    """

    def __init__(self, size: int, names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> None:
        self.size = size
        self.names = names
        self.tensors = tensors


class WorkerCalls(ServerCalls, Protocol):
    """The server, as a worker reaches it."""

    def enter(self, rank: int, terms: str, digests: Mapping[str, bytes]) -> Start:
        """Where the worker begins.

        Args:
            rank: of the worker.
            terms: of its model, see :func:`thinwire.distributed.starting_point.model_terms`.
            digests: of its tensors, by name.
        """
        ...


class AsyncWorker:
    """One of the workers of an :class:`thinwire.ray.AsyncTraining`: what its training function is called with."""

    def __init__(self, server: WorkerCalls, method: Method, rank: int, size: int, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._size = size
        self._link: ServerLink | None = None
        self._handle: AsyncHandle | None = None
        self._has_ended = False
        self.method = method
        """What is exchanged and how."""
        self.rank = rank
        """This worker; ranks are never given twice, so that they may be higher than the number of workers."""

    @property
    def size(self) -> int:
        """How many workers there are, as far as this one has heard."""
        return self._size if self._link is None else self._link.size

    def synchronize(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, *, clip_grad_norm: float | None = None
    ) -> AsyncHandle:
        """From now on ``optimizer.step()`` also exchanges with the server what the method says.

        The model, frozen parameters and buffers included, begins as the server's is now; what differs is sent, outside
        of the byte counts.

        Args:
            optimizer: any ``torch.optim`` optimizer over all parameters of ``model`` that need gradients.
            model: of the same kind as the server's.
            clip_grad_norm: the largest norm of the gradient that the optimizer gets.

        Raises:
            ConfigError: another model than the server's, one that does not fit the method, an optimizer that has a
                handle already, or a second call.
            WorkerError: the server is gone, or has taken this worker for dead.

        Example::

            def train(worker):
                model = build_model()
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                with worker.synchronize(optimizer, model) as handle:
                    for inputs, targets in loader(worker.rank):
                        optimizer.zero_grad()
                        loss_of(model(inputs), targets).backward()
                        optimizer.step()
                        if handle.is_paused:
                            break
        """
        if self._link is not None:
            raise ConfigError("worker.synchronize was called twice; a worker has one model and one optimizer")
        check_unattached(optimizer)
        named = {plain_name(name): each for name, each in (*model.named_parameters(), *model.named_buffers())}
        digests = {name: digest(tensor) for name, tensor in named.items()}
        start = self._server.enter(self.rank, model_terms(model), digests)
        with torch.no_grad():
            for name, value in start.tensors.items():
                named[name].copy_(value)
        self._link = ServerLink(self._server, self.rank, start.size)
        # A rank may be higher than the number of workers; whoever makes a worker says that it is not.
        worker = Worker(
            self.method, model, optimizer, rank=self.rank, size=max(start.size, self.rank + 1), seed=self._seed
        )
        worker.resize(self.rank, start.size)
        if tuple(worker.layout.names) != start.names:
            raise ConfigError(
                f"the optimizer of worker {self.rank} trains {', '.join(worker.layout.names)}, but the server's model "
                f"has {', '.join(start.names)}; freeze in build_model what is not to be trained"
            )
        self._handle = AsyncHandle(worker, self._link, clip_grad_norm, self.end)
        return self._handle

    def end(self) -> None:
        """Tell the server, once, that no message follows; all that were sent are in its checkpoint afterwards."""
        if self._has_ended:
            return
        norm = 0.0 if self._handle is None else self._handle.worker.memory_norm()
        link = self._link or ServerLink(self._server, self.rank, self._size)
        link.finish(norm)
        self._has_ended = True
