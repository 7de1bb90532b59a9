"""Seconds of one call, with memcpy of the same vector beside it."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from thinwire.arrays import CPU, release

SWEEP_BELOW = 4_000_000
"""Vectors of fewer entries would be found in the cache, where no training step leaves them."""
_LONG, _LEAST_CALLS = 5.0, 3
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Something to time.

    Args:
        run: the call. What it returns is dropped outside of the timed part.
        refill: called before each, with the number of the turn, not timed: puts new data in place.
    """

    run: Callable[[], Any]
    refill: Callable[[int], Any] = lambda turn: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Medians in seconds, and the memory that a call took for itself."""

    seconds: float
    memcpy_seconds: float
    extra_bytes: int | None


class Stopwatch:
    """Times cases on vectors of one length.

    Keeps two buffers of that length for memcpy and, for short vectors, one that is written over before each call so
    that nothing of the vector is left in the cache.

    Args:
        numel: length of the vectors.
        repeats: calls of each case; the median counts. Of a case that takes long, only as many as begin within 5
            seconds, but at least 3.
        warmups: calls before those.
        sweep_num_bytes: length of the buffer that is written over, which should be longer than the cache.
    """

    def __init__(self, numel: int, repeats: int, warmups: int, sweep_num_bytes: int) -> None:
        self.repeats = repeats
        self.warmups = warmups
        self._source, self._target = (
            torch.ones(numel, dtype=torch.float32, device=CPU),
            torch.zeros(numel, dtype=torch.float32, device=CPU),
        )
        self._sweep = torch.zeros(sweep_num_bytes, dtype=torch.uint8, device=CPU) if numel < SWEEP_BELOW else None

    def time(self, case: Case, threads: Sequence[int]) -> list[Times]:
        """Median seconds with ``torch.set_num_threads`` at each of the numbers, memcpy (always one thread) beside each.

        They take turns, so that an hour in which the machine is slow is one for all of them.
        """
        before = torch.get_num_threads()
        own: list[list[float]] = [[] for _ in threads]
        memcpy: list[list[float]] = [[] for _ in threads]
        try:
            extra = [self._warm_up(case, number) for number in threads]
            for turn in range(self.warmups + 1, self.warmups + 1 + self.repeats):
                for number, times, copies in zip(threads, own, memcpy, strict=True):
                    # On one thread: torch's others would go on spinning for some milliseconds, on cores that are timed.
                    torch.set_num_threads(1)
                    case.refill(turn)
                    copies.append(self._once(self._copy))
                    torch.set_num_threads(number)
                    times.append(self._once(case.run))
                if max(sum(times) for times in own) > _LONG and len(own[0]) >= _LEAST_CALLS:
                    break
        finally:
            torch.set_num_threads(before)
        return [
            Times(seconds=statistics.median(times), memcpy_seconds=statistics.median(copies), extra_bytes=taken)
            for times, copies, taken in zip(own, memcpy, extra, strict=True)
        ]

    def _warm_up(self, case: Case, threads: int) -> int | None:
        """The memory that a call takes once it is warm."""
        torch.set_num_threads(threads)
        for turn in range(self.warmups):
            case.refill(turn)
            case.run()
        case.refill(self.warmups)
        return extra_bytes(case.run)

    def _copy(self) -> None:
        self._target.copy_(self._source)

    def _once(self, run: Callable[[], Any]) -> float:
        if self._sweep is not None:
            self._sweep.add_(1)
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        del result
        return seconds


def extra_bytes(run: Callable[[], Any]) -> int | None:
    """Peak of the process's memory during ``run()`` above its level before, result included.

    Memory that the process has and does not use goes back to the system first, so that what ``run`` takes of it is
    seen too: garbage, what :mod:`thinwire.arrays` keeps and, with the C library of GNU, what the allocator
    keeps. Pages are counted whole, and Linux may be a few dozen behind. None where the system does not tell: it takes
    Linux and a writable ``/proc/self/clear_refs``.

    Example:
        >>> taken = extra_bytes(lambda: torch.ones(1 << 22))
        >>> taken is None or taken > 0.9 * 2**24
        True
    """
    gc.collect()
    release()
    _trim()
    try:
        _CLEAR.write_text("5")  # the peak starts anew at the present level
        before = _status("VmRSS")
        result = run()
        peak = _status("VmHWM")
        del result
    except (OSError, KeyError):
        run()
        return None
    return max(0, peak - before)


def _trim() -> None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return
    trim(0)


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
