"""How long workers wait for each other, and what they keep."""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from thinwire.errors import ConfigError


@runtime_checkable
class Patience(Protocol):
    """Decides when a worker that waits closes a round although others are missing."""

    def is_over(
        self, number: int, present: Collection[int], missing: Collection[int], waited_s: float,
        durations_s: Sequence[float],
    ) -> bool:  # fmt: skip
        """Whether to wait no longer.

        Args:
            number: of the round.
            present: ranks whose messages are there.
            missing: ranks that are waited for.
            waited_s: seconds since this worker's own message was there.
            durations_s: of the last rounds, from one to the next: training, and waiting where it was not in vain.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """Wait as long as a round took of late, times a factor, and a minimum beside.

    Args:
        factor: on the median of the last rounds; 1 lets a worker be half as fast as the others.
        minimum_s: seconds in any case.
        first_s: seconds as long as no round has been measured: machines start one after another.

    Raises:
        ConfigError: a number below 0, or not finite.

    Example:
        >>> deadline = Deadline(factor=2.0, minimum_s=5.0)
        >>> deadline.seconds([10.0, 30.0, 11.0]), deadline.seconds([])
        (27.0, 600.0)
    """

    factor: float = 1.0
    minimum_s: float = 10.0
    first_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("factor", "minimum_s", "first_s"):
            check_seconds(name, getattr(self, name))

    def seconds(self, durations_s: Sequence[float]) -> float:
        """How long to wait after rounds of these durations."""
        return self.factor * statistics.median(durations_s) + self.minimum_s if durations_s else self.first_s

    def is_over(
        self, number: int, present: Collection[int], missing: Collection[int], waited_s: float,
        durations_s: Sequence[float],
    ) -> bool:  # fmt: skip
        """Whether :meth:`seconds` have passed."""
        return waited_s >= self.seconds(durations_s)


@dataclass(frozen=True, slots=True)
class FixedDeadline:
    """Wait so many seconds, whatever rounds take."""

    wait_s: float

    def __post_init__(self) -> None:
        check_seconds("deadline", self.wait_s)

    def is_over(
        self, number: int, present: Collection[int], missing: Collection[int], waited_s: float,
        durations_s: Sequence[float],
    ) -> bool:  # fmt: skip
        """Whether the seconds have passed."""
        return waited_s >= self.wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSettings:
    """What is kept of rounds, and how often a worker asks; the same on every worker.

    Args:
        keep_rounds: so many rounds' messages are kept at least, for workers that come back.
        snapshot_every: rounds from one copy of the common state to the next, for those that come back later. It is as
            long as the model, in full; the workers write it in turn.
        max_missed: a worker that missed more rounds than this in a row is not waited for, until its message counts.
        window: rounds that :attr:`StoreSynchronizer.participation` and the deadline look back on.
        poll_min_s: pause between two looks at first; it grows by half each time,
        poll_max_s: up to this.

    Raises:
        ConfigError: numbers that make no sense.
    """

    keep_rounds: int = 32
    snapshot_every: int = 32
    max_missed: int = 3
    window: int = 32
    poll_min_s: float = 0.05
    poll_max_s: float = 2.0

    def __post_init__(self) -> None:
        for name, least in (("keep_rounds", 1), ("snapshot_every", 1), ("max_missed", 0), ("window", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(f"{name} = {value!r} was given; it is a whole number, {least} or more")
        check_seconds("poll_min_s", self.poll_min_s)
        check_seconds("poll_max_s", self.poll_max_s)
        if self.poll_max_s < self.poll_min_s:
            raise ConfigError(f"pauses from {self.poll_min_s} to {self.poll_max_s} s were given; they grow")


def check_seconds(name: str, value: float) -> None:
    """Raise :class:`ConfigError` unless it is a finite number, 0 or more."""
    if not (math.isfinite(value) and value >= 0.0):
        raise ConfigError(f"{name} = {value!r} was given; it is a finite number, 0 or more")


def patience_of(deadline: float | Patience) -> Patience:
    """A number of seconds as what decides; anything that decides as it is."""
    if isinstance(deadline, Patience):
        return deadline
    return FixedDeadline(float(deadline))
