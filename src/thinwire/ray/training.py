"""Asynchronous training as a whole: what a script on Ray begins, watches and ends."""

import contextlib
import math
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from thinwire.errors import ConfigError, WorkerError
from thinwire.files import StrPath
from thinwire.methods import Method, parse_method
from thinwire.ray.actors import ServerActor, Shipped, WorkerActor
from thinwire.ray.calls import from_bytes, result_of
from thinwire.ray.clusters import Connection, worker_options
from thinwire.ray.crew import Crew
from thinwire.ray.plan import Plan, check_plan
from thinwire.ray.report import Report
from thinwire.ray.server_file import NAME, taken
from thinwire.ray.worker import AsyncWorker
from thinwire.worker import needs_server

_LAST_WORDS_S = 10.0
"""How long the server of a training that has failed is asked for what it has."""


class AsyncTraining:
    """Trains on Ray with an asynchronous method: workers come, go and die, and a server that survives holds the model.

    Each worker is an actor that calls ``train`` once. Inside, :meth:`AsyncWorker.synchronize` lets ``optimizer.step()``
    exchange with the server, on the worker's own clock. The training is a context manager: it begins with the block,
    and everything that was started on Ray ends with it.

    Args:
        train: called with an :class:`AsyncWorker`; what it returns must be something that Ray can send.
        build_model: makes the initial model, on the CPU.
        method: with a server, such as ``"qsparse-async:density=1%,every=8"``.
        num_workers: at the beginning.
        until: after how many messages in all the workers are told to pause, those on their way being merged too; None:
            they decide.
        folder: for the server's checkpoint, on the driver's node. Without it the death of the server ends the training.
        save_every: after how many messages the checkpoint is written; workers keep what it does not have.
        resume: begin with the model that another training has left in the folder.
        seed: addresses the method's randomness.
        tolerate_failures: whether the others go on where the function of one raises an error.
        address: of a cluster that runs, ``"auto"`` or ``"host:port"``; None: one of this process's own.
        resources_per_worker: such as ``{"CPU": 1, "GPU": 1}``; by default a processor, on one's own cluster none.

    Raises:
        ConfigError: a method without server, numbers that make no sense, or a folder with another training's state.

    Example::

        training = thinwire.ray.AsyncTraining(train, build_model, "qsparse-async:every=8", num_workers=4, folder="run")
        with training:
            results = training.wait()
        model.load_state_dict(training.shared_parameters(), strict=False)
    """

    def __init__(
        self,
        train: Callable[[AsyncWorker], Any],
        build_model: Callable[[], nn.Module],
        method: str | Method,
        *,
        num_workers: int,
        until: int | None = None,
        folder: StrPath | None = None,
        save_every: int = 50,
        resume: bool = False,
        seed: int = 0,
        tolerate_failures: bool = False,
        address: str | None = None,
        resources_per_worker: Mapping[str, float] | None = None,
    ) -> None:
        self._method = parse_method(method) if isinstance(method, str) else method
        if not needs_server(self._method):
            raise ConfigError(
                f"{self._method} has no server; give an asynchronous method, such as qsparse-async, or use "
                "thinwire.compress_ddp or thinwire.synchronize in the training function of Ray Train"
            )
        place = None if folder is None else str(Path(folder).resolve())
        self._plan = Plan(
            self._method, num_workers, math.inf if until is None else until, place, save_every, uuid.uuid4().hex, resume
        )
        check_plan(self._plan)
        if place is not None and not resume and (Path(place) / NAME).exists():
            raise taken(place)
        self._train, self._build_model, self._seed = train, build_model, seed
        self._tolerates, self._address, self._resources = tolerate_failures, address, resources_per_worker
        self._num_begun = 0
        self._undo = contextlib.ExitStack()
        self._connection: Connection | None = None
        self._server: Any = None
        self._crew: Crew | None = None
        self._last: tuple[Report, dict[str, Tensor]] | None = None

    def add_worker(self) -> int:
        """One worker more takes part, from the server's present model on, as soon as it has begun; its rank."""
        crew, connection = self._begun()
        rank = self._num_begun
        self._num_begun += 1
        options = worker_options(self._resources, is_embedded=connection.is_embedded)
        size = max(self._num_begun, self._plan.num_workers)
        given = (self._server, self._shipped, self._method, rank, size, self._seed)
        crew.add(rank, connection.start(WorkerActor, given, options))
        return rank

    def remove_worker(self, rank: int) -> None:
        """A worker is told to pause after its next exchange, and counts no longer from then on.

        Raises:
            ConfigError: there is none of this rank, or its function has returned.
        """
        crew, _ = self._begun()
        if not crew.is_running(rank):
            raise ConfigError(f"worker {rank} is not at work; {self._num_begun} have begun, some may have ended")
        self._ask("dismiss", rank)

    def stop(self) -> None:
        """Every worker is told to pause after its next exchange."""
        self._begun()
        self._ask("stop")

    def wait(self) -> dict[int, Any]:
        """What ``train`` returned on each worker, by rank, once all have ended; those that were lost are not there.

        Raises:
            NumericsError: NaN or inf in the model of a worker: on every worker.
            WorkerError: a worker's function raised an error, every worker is gone, or the server is.
        """
        crew, _ = self._begun()
        return dict(crew.wait())

    def shared_parameters(self) -> dict[str, Tensor]:
        """The server's model, by parameter name, as it is now; after the block, as it was at its end."""
        if self._last is not None:
            return self._last[1]
        self._begun()
        return from_bytes(self._ask("model"))

    @property
    def report(self) -> Report:
        """What was merged, sent and lost so far; after the block, as it was at its end."""
        if self._last is not None:
            return self._last[0]
        self._begun()
        found: Report = self._ask("report")
        return found

    def __enter__(self) -> "AsyncTraining":
        """Itself, with the server and the first workers begun."""
        if self._connection is not None:
            raise ConfigError("this training has begun before; make a new AsyncTraining")
        with contextlib.ExitStack() as undo:
            connection = self._connection = Connection(self._address)
            undo.callback(connection.close)
            restarts = 0 if self._plan.folder is None else -1
            options = {"num_cpus": 0, "max_restarts": restarts, "max_task_retries": restarts}
            options["scheduling_strategy"] = connection.on_this_node()
            self._server = connection.start(ServerActor, (self._plan, Shipped.of(self._build_model)), options)
            undo.callback(connection.kill, self._server)
            opening = self._server.open.remote()
            self._crew = Crew(lambda rank, is_dead: self._ask("leave", rank, is_dead), self._tolerates)
            undo.callback(self._crew.close)
            self._shipped = Shipped.of(self._train)
            for _ in range(self._plan.num_workers):
                self.add_worker()  # their processes begin while the server's does
            result_of(opening, "the server")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what the server has, and end all actors; and the cluster, if it is this process's own."""
        with self._undo:
            self._crew = None
            timeout_s = None if error is None else _LAST_WORDS_S
            with contextlib.ExitStack() as tolerant:
                if error is not None:  # which is what is to be told
                    tolerant.enter_context(contextlib.suppress(WorkerError))
                self._last = (
                    self._ask("report", timeout_s=timeout_s),
                    from_bytes(self._ask("model", timeout_s=timeout_s)),
                )

    def _ask(self, name: str, *given: object, timeout_s: float | None = None) -> Any:
        return result_of(getattr(self._server, name).remote(*given), "the server", timeout_s)

    def _begun(self) -> tuple[Crew, Connection]:
        if self._crew is None or self._connection is None:
            raise ConfigError("this training is not under way; use it inside its with block")
        return self._crew, self._connection
