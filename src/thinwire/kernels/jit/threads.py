"""Kernels on several threads: how work is shared out, and the threads that do it.

A kernel holds no GIL, so plain threads run it in parallel. Their number is torch's own,
``torch.get_num_threads()``: what ``OMP_NUM_THREADS`` or ``torch.set_num_threads`` says holds here too. No result
depends on it.
"""

import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeAlias

import torch

_LEAST_NS = 1 << 17
"""Nanoseconds of work that make a thread worth its start: handing a job over takes about 35 microseconds, and then the
thread gets an idle core at best. Some times as much, so that two are never slower than one."""

STREAMED_NS = 0.25
"""Of an entry in a kernel that does no more than wait for memory, which two threads have hardly more of than one: as
much as it takes where nothing else runs. At a million entries two threads took a fifth more time than one."""

_PART, _MOST = 1 << 18, 16
"""Entries of a part, of which a thread makes one after the other, and how many these are at most for each thread."""

_Outcome: TypeAlias = tuple[int, Any, BaseException | None]


def count_threads(numel: int, entry_ns: float = 1.0) -> int:
    """How many threads so many entries are worth, of those there are, if one takes about ``entry_ns`` nanoseconds.

    Example:
        >>> count_threads(1000)
        1
    """
    return max(1, min(torch.get_num_threads(), int(numel * entry_ns) // _LEAST_NS))


def shares(numel: int, unit: int = 1, entry_ns: float = 1.0) -> list[tuple[int, int]]:
    """``[0, numel)`` cut into about equal ranges for the threads; one range if there is little to do.

    Of a long vector there are several ranges for each thread, since no two cores take equally long: what the system
    and other programs take of one, the others make up for.

    Args:
        numel: number of entries, 0 or more.
        unit: every border but the last is a multiple of it.
        entry_ns: about what an entry takes one thread; :data:`STREAMED_NS` where memory is all that it waits for.

    Returns:
        At least one ``(start, stop)``, ascending; together they cover every entry once.

    Example:
        >>> shares(1000)
        [(0, 1000)]
    """
    num_threads = count_threads(numel, entry_ns)
    if num_threads == 1:
        return [(0, numel)]
    return cut(numel, unit, num_threads * max(1, min(_MOST, numel // (_PART * num_threads))))


def cut(numel: int, unit: int, num: int) -> list[tuple[int, int]]:
    """``[0, numel)`` in ``num`` about equal ranges; every border but the last is a multiple of ``unit``.

    Example:
        >>> cut(1000, 8, 2)
        [(0, 496), (496, 1000)]
    """
    if num == 1:
        return [(0, numel)]
    num_units = -(-numel // unit)
    borders = [min(numel, num_units * part // num * unit) for part in range(num)] + [numel]
    return list(itertools.pairwise(borders))


def run(kernel: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """``kernel(*arguments)`` for every call, on ``torch.get_num_threads()`` threads; the results in order.

    Each thread makes the next call that none has begun, the caller's thread too: it waits for no thread that has not
    begun one. The kernel must not use :func:`run` itself. An error of a call is raised when those that are under way
    have ended; others may then not have been made.

    Example:
        >>> run(max, [(1, 2), (4, 3)])
        [2, 4]
    """
    if len(calls) == 1:
        return [kernel(*calls[0])]
    job = _Job(kernel, calls)
    idle = _idle(os.getpid())
    helpers = [_take(idle) for _ in range(min(len(calls), torch.get_num_threads()) - 1)]
    for helper in helpers:
        helper.put(job)
    try:
        job.work()
    finally:
        results = job.end()
        idle.extend(helpers)
    return results


class _Job:
    """Calls that are waiting for a thread, and what came of those that were made."""

    def __init__(self, kernel: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
        self._kernel = kernel
        self._calls = list(calls)
        self._num = len(calls)
        self._next = itertools.count()  # taking a number is atomic
        self._num_own = 0
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._results: list[Any] = [None] * len(calls)

    def work(self) -> None:
        """Make calls, on the caller's thread, until none is left."""
        while (number := next(self._next)) < self._num:
            self._num_own += 1
            self._results[number] = self._kernel(*self._calls[number])

    def help(self) -> None:
        """Make calls, on another thread, until none is left."""
        while (number := next(self._next)) < self._num:
            # No name holds the outcome: it would keep the result's memory.
            self._outcomes.put(self._outcome(number))

    def end(self) -> list[Any]:
        """Wait for the calls of the others; after an error, what none has begun is left out."""
        while next(self._next) < self._num:
            self._num_own += 1
        errors = []
        for _ in range(self._num - self._num_own):
            number, self._results[number], error = self._outcomes.get()
            if error is not None:
                errors.append(error)
        # A thread that comes late still has the job for a while: not the memory of arguments and results too.
        results, self._results, self._calls = self._results, [], []
        if errors:
            raise errors[0]
        return results

    def _outcome(self, number: int) -> _Outcome:
        try:
            return number, self._kernel(*self._calls[number]), None
        except BaseException as error:  # raised by the thread that waits for it
            return number, None, error


def _take(idle: "deque[SimpleQueue[_Job]]") -> "SimpleQueue[_Job]":
    """Where a thread waits for jobs: one that has none, or a new one.

    Such queues hand a job over in a third of the time that an executor and its futures take (35 against 100
    microseconds for calls that do nothing), and a message has about ten of them.
    """
    try:
        return idle.pop()
    except IndexError:
        jobs: SimpleQueue[_Job] = SimpleQueue()
        threading.Thread(target=_help, args=(jobs,), name="thinwire-kernel", daemon=True).start()
        return jobs


def _help(jobs: "SimpleQueue[_Job]") -> None:
    while True:
        jobs.get().help()


@functools.cache
def _idle(process: int) -> "deque[SimpleQueue[_Job]]":
    # By process: a fork takes no threads with it.
    return deque()
