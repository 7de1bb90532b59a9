"""The workers' actors, watched by a thread of the driver: who returns, who fails, who dies."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from thinwire.errors import NumericsError, WorkerError
from thinwire.ray.calls import ray_package

_POLL_S = 0.2


@dataclass(slots=True, eq=False)
class Crew:
    """All workers that were ever begun.

    Args:
        leave: tells the server that a worker is gone, and whether it is dead.
        tolerates: whether the others go on where the function of one has raised an error.
    """

    leave: Callable[[int, bool], object]
    tolerates: bool
    _actors: dict[int, Any] = field(init=False, default_factory=dict)
    _running: dict[Any, int] = field(init=False, default_factory=dict)
    _results: dict[int, Any] = field(init=False, default_factory=dict)
    _errors: dict[int, BaseException] = field(init=False, default_factory=dict)
    _failure: Exception | None = field(init=False, default=None)
    _is_closed: bool = field(init=False, default=False)
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    _thread: threading.Thread | None = field(init=False, default=None)

    def add(self, rank: int, actor: Any) -> None:
        """Let a worker begin."""
        with self._changed:
            self._actors[rank] = actor
            self._running[actor.run.remote()] = rank
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="thinwire.ray", daemon=True)
            self._thread.start()

    def is_running(self, rank: int) -> bool:
        """Whether the function of a worker has not returned yet."""
        with self._changed:
            return rank in self._running.values()

    def wait(self) -> Mapping[int, Any]:
        """What the functions of all workers returned, by rank; without those that have died or failed.

        Raises:
            NumericsError: a worker's numbers were not finite, of which all were told.
            WorkerError: a worker failed, and that is not tolerated; or all are gone.
        """
        with self._changed:
            while not self._is_over():
                self._changed.wait(_POLL_S)  # Ctrl-C is heard in between
            if self._failure is not None:
                raise self._failure
            for error in self._errors.values():
                if isinstance(error, NumericsError):
                    raise error
            if not self._results:
                raise WorkerError("every worker has died or failed; what was merged is in the server's checkpoint")
            return dict(sorted(self._results.items()))

    def close(self) -> None:
        """Watch no longer, and end all workers."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        for actor in self._actors.values():
            ray_package().kill(actor)

    def _is_over(self) -> bool:
        return self._failure is not None or not self._running

    def _watch(self) -> None:
        ray = ray_package()
        while True:
            with self._changed:
                while not self._running and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                calls = list(self._running)
            try:
                done, _ = ray.wait(calls, num_returns=1, timeout=_POLL_S)
                for call in done:
                    self._settle(ray, call)
            except Exception as error:  # it is raised where it is waited for
                self._fail(error)
                return

    def _settle(self, ray: Any, call: Any) -> None:
        rank = self._running[call]
        try:
            result = ray.get(call)
        except ray.exceptions.ActorUnavailableError:
            self.leave(rank, False)
            with self._changed:  # its function may go on; it answers this when that has returned
                del self._running[call]
                self._running[self._actors[rank].outcome.remote()] = rank
                self._changed.wait(_POLL_S)
            return
        except ray.exceptions.RayTaskError as error:
            cause = error.cause or error
            is_numerics = isinstance(cause, NumericsError)
            if not is_numerics and not self.tolerates:
                failure = WorkerError(f"worker {rank} raised {type(cause).__name__}: {cause}")
                failure.__cause__ = error
                self._fail(failure)
                return
            self.leave(rank, True)
            self._note(call, self._errors, rank, cause)
            return
        except ray.exceptions.RayError as error:
            self.leave(rank, True)
            self._note(call, self._errors, rank, error)
            return
        self._note(call, self._results, rank, result)

    def _note(self, call: Any, where: dict[int, Any], rank: int, what: Any) -> None:
        with self._changed:
            del self._running[call]
            where[rank] = what
            self._changed.notify_all()

    def _fail(self, failure: Exception) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
