"""Processes of one machine that go on at the same moment and tell each other numbers, without their network.

They share a page of memory, and ``time.perf_counter``, which on Linux is the same clock for all of them. What is timed
between them is then charged with nobody's late start, and no message of the measurement meets those that are measured.
"""

import itertools
import mmap
import os
import struct
import time
from pathlib import Path

_MOST_VALUES = 6
_SLOT = struct.Struct(f"<d{_MOST_VALUES}d")
_POLL_S, _SPIN_S = 2e-4, 3e-4


class CommonClock:
    """What ``size`` processes agree by; each makes one of the same path.

    Args:
        path: of a file that is made if it is not there, and may be deleted when all have begun.
        rank: of this process.
        size: number of processes.
        limit_s: how long the others are waited for.
    """

    def __init__(self, path: str | Path, rank: int, size: int, limit_s: float = 600.0) -> None:
        self._rank, self._size, self._limit_s = rank, size, limit_s
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(fd, 2 * size * _SLOT.size)
            self._memory = mmap.mmap(fd, 2 * size * _SLOT.size)
        finally:
            os.close(fd)
        self._numbers = itertools.count(1)

    def share(self, *values: float) -> list[tuple[float, ...]]:
        """Every process's numbers, in rank order; it is a barrier, which nobody leaves before all have come."""
        number = next(self._numbers)
        # Two banks in turn: who writes to one again has seen that all have read what was there.
        bank = number % 2 * self._size * _SLOT.size
        own = bank + self._rank * _SLOT.size
        padded = (*values, *(0.0 for _ in range(_MOST_VALUES - len(values))))
        self._memory[own + 8 : own + _SLOT.size] = struct.pack(f"<{_MOST_VALUES}d", *padded)
        self._memory[own : own + 8] = struct.pack("<d", number)
        begin_s = time.perf_counter()
        while True:
            slots = [_SLOT.unpack_from(self._memory, bank + rank * _SLOT.size) for rank in range(self._size)]
            if all(slot[0] == number for slot in slots):
                return [slot[1 : 1 + len(values)] for slot in slots]
            if time.perf_counter() - begin_s > self._limit_s:
                raise TimeoutError(f"process {self._rank} waited {self._limit_s} s for the others")
            time.sleep(_POLL_S)

    def begin(self, idle_s: float = 1e-3) -> float:
        """Wait until every process has been here for ``idle_s`` at least, and go on at the moment that is returned."""
        moment_s = max(each for (each,) in self.share(time.perf_counter() + idle_s))
        time.sleep(max(0.0, moment_s - time.perf_counter() - _SPIN_S))
        while time.perf_counter() < moment_s:
            pass
        return moment_s

    def most(self, value: float) -> float:
        """The largest of what the processes give."""
        return max(each for (each,) in self.share(value))
