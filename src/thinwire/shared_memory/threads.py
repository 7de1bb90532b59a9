"""Threads that begin a kernel together, and how long they take."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from thinwire.kernels.shared_memory.shared import Shared

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What came of work that was done together.

    Args:
        results: in the order of the pieces.
        seconds: from the moment when the last thread called its piece until the last was done.
        core_seconds: processor time of all threads, while they waited for each other too.
    """

    results: list[T]
    seconds: float
    core_seconds: float


def run_together(shared: Shared, work: Sequence[Callable[[], T]], *, pinned: bool = False) -> Outcome[T]:
    """Do each piece of work in a thread of its own.

    The pieces are kernels that wait for each other on ``shared``. On Ctrl-C, or where a thread cannot be started or
    fails, the others are told to end. Threads that are ``pinned`` stay each on a processor of its own while there are
    as many; only Linux can do that.

    Raises:
        RuntimeError: the system has no more threads.

    Example:
        >>> import torch
        >>> run_together(Shared.around(torch.zeros(1)), [lambda: 1, lambda: 2]).results
        [1, 2]
    """
    shared.reset()
    # Threads come here asleep, so that little of their processor time is spent on waiting for each other in the kernel.
    barrier = threading.Barrier(len(work))
    processors = _processors() if pinned else [None]
    pieces = [_Piece(each, shared, barrier, processors[j % len(processors)]) for j, each in enumerate(work)]
    threads = [threading.Thread(target=piece.run, name="thinwire-shared-memory") for piece in pieces]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        for thread in threads:
            thread.join()
    except BaseException:
        barrier.abort()
        shared.stop()
        for thread in started:
            thread.join()
        raise
    for piece in pieces:
        if piece.error is not None:
            raise piece.error
    return Outcome(
        results=[piece.result() for piece in pieces],
        seconds=max(piece.ended_s for piece in pieces) - max(piece.begun_s for piece in pieces),
        core_seconds=sum(piece.core_s for piece in pieces),
    )


class _Piece(Generic[T]):
    """The work of one thread, and what came of it."""

    def __init__(
        self, work: Callable[[], T], shared: Shared, barrier: threading.Barrier, processor: int | None
    ) -> None:
        self.error: BaseException | None = None
        self.begun_s = self.ended_s = self.core_s = 0.0
        self._work = work
        self._shared = shared
        self._barrier = barrier
        self._processor = processor
        self._results: list[T] = []

    def run(self) -> None:
        """Do it; an error is kept for the thread that waits."""
        try:
            if self._processor is not None and sys.platform == "linux":
                os.sched_setaffinity(0, {self._processor})  # of this thread, which ends with the work
            self._barrier.wait()
            core_s, self.begun_s = time.thread_time(), time.perf_counter()
            self._results.append(self._work())
        except BaseException as error:  # raised by the thread that waits for this one
            self.error = error
            self._shared.stop()
            return
        self.ended_s = time.perf_counter()
        self.core_s = time.thread_time() - core_s

    def result(self) -> T:
        """What the work gave."""
        return self._results[0]


def _processors() -> Sequence[int | None]:
    """Those that this process may run on; one that is none where the system cannot say."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [None]
