"""One thread that waits for messages while others compute."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from thinwire.distributed.lane import Lane

T = TypeVar("T")


class CommunicationThread:
    """Runs jobs one after another, in the order in which they were submitted.

    The thread is a daemon: a peer that never answers cannot keep the process from ending.

    Args:
        lane: what jobs do on a device, in the order in which they and those who submit them do it.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="thinwire-communication", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> "Future[T]":
        """Run ``job`` after those submitted before it."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """End the thread once its jobs are done."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        with self._lane.entered():
            self._go_through()

    def _go_through(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                future.set_result(job())
            except BaseException as error:  # handed to whoever waits for the result
                future.set_exception(error)
