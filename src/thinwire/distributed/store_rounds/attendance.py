"""Who took part in the last rounds, and how long they took."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Attendance:
    """The lists of the last rounds.

    Args:
        size: number of workers.
        window: rounds that are looked back on.

    Example:
        >>> attendance = Attendance(size=3, window=4)
        >>> for counted in ([0, 1, 2], [0, 2], [0, 2], [0]):
        ...     attendance.add(counted, 1.0)
        >>> attendance.shares(), attendance.absent(max_missed=1), attendance.absent(max_missed=3)
        ({0: 1.0, 1: 0.25, 2: 0.75}, {1}, set())
    """

    size: int
    window: int
    _rounds: deque[list[int]] = field(init=False)
    _durations_s: deque[float] = field(init=False)
    _num_missed: list[int] = field(init=False)
    """In a row, up to now, by rank."""

    def __post_init__(self) -> None:
        self._rounds, self._durations_s = deque(maxlen=self.window), deque(maxlen=self.window)
        self._num_missed = [0] * self.size

    @property
    def durations_s(self) -> list[float]:
        """Of the last rounds, as far as this worker has measured them."""
        return list(self._durations_s)

    def add(self, counted: Collection[int], duration_s: float | None) -> None:
        """A round is over, with these workers' messages; None if it took no time here, being over already."""
        self._rounds.append(sorted(counted))
        if duration_s is not None:
            self._durations_s.append(duration_s)
        self._num_missed = [0 if rank in counted else missed + 1 for rank, missed in enumerate(self._num_missed)]

    def shares(self) -> dict[int, float]:
        """In which share of the last rounds each worker's message counted."""
        count = max(len(self._rounds), 1)
        return {rank: sum(rank in counted for counted in self._rounds) / count for rank in range(self.size)}

    def absent(self, max_missed: int) -> set[int]:
        """Who missed more rounds than this in a row."""
        return {rank for rank, missed in enumerate(self._num_missed) if missed > max_missed}

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "rounds": [list(counted) for counted in self._rounds],
            "durations_s": list(self._durations_s),
            "num_missed": list(self._num_missed),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self._rounds.clear()
        self._rounds.extend(saved["rounds"])
        self._durations_s.clear()
        self._durations_s.extend(saved["durations_s"])
        self._num_missed = list(saved["num_missed"])
