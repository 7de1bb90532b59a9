"""The server and the workers as actors: classes that Ray makes, each in a process of its own."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from thinwire.distributed.starting_point import digest, model_terms
from thinwire.errors import ConfigError
from thinwire.methods import Method
from thinwire.plugins import import_package
from thinwire.ray.calls import RayServer, to_bytes
from thinwire.ray.desk import Desk
from thinwire.ray.link import tensor_of_bytes
from thinwire.ray.plan import Plan
from thinwire.ray.report import Report
from thinwire.ray.seats import Reply
from thinwire.ray.worker import AsyncWorker


@dataclass(frozen=True, slots=True)
class Shipped:
    """A function of the user's, and where this process finds the modules that it is from.

    Args:
        pickled: by Ray's cloudpickle, in the driver.
        path: of the driver's ``sys.path``.
    """

    pickled: bytes
    path: tuple[str, ...]

    @staticmethod
    def of(function: Callable[..., Any]) -> "Shipped":
        """Pack a function of this process."""
        pickled: bytes = import_package("ray.cloudpickle", "thinwire.ray", "ray").dumps(function)
        return Shipped(pickled, tuple(sys.path))

    def load(self) -> Callable[..., Any]:
        """The function; it is the driver's own code, as everything that runs on its cluster."""
        sys.path += [each for each in self.path if each not in sys.path]
        function: Callable[..., Any] = import_package("ray.cloudpickle", "thinwire.ray", "ray").loads(self.pickled)
        return function


class ServerActor:
    """Ray makes it anew where its process has died; then it goes on from its checkpoint.

    Ray runs its methods one at a time, each until it waits: no lock is needed.

    Args:
        plan: what to do.
        build_model: makes the initial model.
    """

    def __init__(self, plan: Plan, build_model: Shipped) -> None:
        self._plan = plan
        self._build_model = build_model
        self._desk: Desk | None = None
        self._terms = ""
        self._digests: dict[str, bytes] = {}
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    async def open(self) -> None:
        """Be ready.

        Raises:
            ConfigError: see :class:`thinwire.ray.desk.Desk`; or ``build_model`` does not make a model.
        """
        self._opened()

    async def enter(self, rank: int, terms: str, digests: Mapping[str, bytes]) -> tuple[int, tuple[str, ...], bytes]:
        """A worker begins: how many there are, the names of what is trained, and what it has to take over.

        Raises:
            ConfigError: its model is another one.
        """
        desk = self._opened()
        if terms != self._terms:
            raise ConfigError(
                f"the model of worker {rank} is not that of build_model: it has {terms!r}, the server {self._terms!r}"
            )
        size = desk.enter(rank)
        others = {name: each for name, each in desk.untrained.items() if self._digests[name] != digests.get(name)}
        return size, desk.names, to_bytes({**others, **desk.parameters()})

    async def exchange(self, rank: int, sequence: int, size: int, message: bytes) -> tuple[Any, ...]:
        """See :meth:`thinwire.ray.desk.Desk.exchange`; the reply comes when there is one for this worker."""
        desk = self._opened()
        replies = desk.exchange(rank, sequence, size, tensor_of_bytes(message))
        # Of two calls for one message both get the reply.
        waiting = self._waiting.setdefault(rank, asyncio.get_running_loop().create_future())
        self._hand_out(replies)
        return tuple(await waiting)

    async def finish(self, rank: int, sequence: int, norm: float, bytes_resent: int) -> tuple[Any, ...]:
        """See :meth:`thinwire.ray.desk.Desk.finish`."""
        reply, others = self._opened().finish(rank, sequence, norm, bytes_resent)
        self._hand_out(others)
        return tuple(reply)

    async def leave(self, rank: int, is_dead: bool) -> None:
        """See :meth:`thinwire.ray.desk.Desk.leave`."""
        self._hand_out(self._opened().leave(rank, is_dead=is_dead))

    async def dismiss(self, rank: int) -> None:
        """See :meth:`thinwire.ray.desk.Desk.dismiss`."""
        self._opened().dismiss(rank)

    async def stop(self) -> None:
        """See :meth:`thinwire.ray.desk.Desk.stop`."""
        self._hand_out(self._opened().stop())

    async def model(self) -> bytes:
        """The trained parameters, for :func:`thinwire.ray.calls.from_bytes`."""
        return to_bytes(self._opened().shared_parameters())

    async def report(self) -> Report:
        """See :meth:`thinwire.ray.desk.Desk.report`."""
        return self._opened().report()

    def _opened(self) -> Desk:
        if self._desk is None:
            model = self._build_model.load()()
            if not isinstance(model, nn.Module):
                raise ConfigError(f"build_model returned a {type(model).__name__}; it must make the initial model")
            self._terms = model_terms(model)
            desk = self._desk = Desk(self._plan, model)
            self._digests = {name: digest(each) for name, each in desk.untrained.items()}
        return self._desk

    def _hand_out(self, replies: Sequence[tuple[int, Reply]]) -> None:
        for rank, reply in replies:
            waiting = self._waiting.pop(rank, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)


class WorkerActor:
    """Runs the training function of one worker.

    Args:
        server: Ray's handle of the server's actor.
        train: the function.
        method: what is exchanged and how.
        rank: of the worker.
        size: number of workers.
        seed: of the method's randomness.
    """

    def __init__(self, server: Any, train: Shipped, method: Method, rank: int, size: int, seed: int) -> None:
        self._train = train
        self._worker = AsyncWorker(RayServer(server), method, rank, size, seed)
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> Any:
        """What the function returns."""
        try:
            self._result = self._train.load()(self._worker)
            self._worker.end()
        except BaseException as error:
            self._error = error
            raise
        return self._result

    def outcome(self) -> Any:
        """What :meth:`run` returned or raised: for who has called it, and could not be reached when it was over."""
        if self._error is not None:
            raise self._error
        return self._result
