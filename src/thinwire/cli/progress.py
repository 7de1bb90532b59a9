"""How far a command is, on standard error: standard output is for what it finds."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY_S = 30.0
"""Seconds between two lines where there is no terminal."""


class Meter:
    """Bars with the time that is left; where standard error is no terminal, a line now and then.

    Args:
        enabled: whether this process is the one that shows it.
        clock: seconds.
    """

    def __init__(self, *, enabled: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._clock = clock
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._said: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> "Meter":
        if self._enabled and sys.stderr.isatty():
            self._bars = _make_bars()
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, what: str, done: int, total: int, unit: str, now: str = "") -> None:
        """So much of it is done.

        Args:
            what: is done; a bar, or a row of lines, for each.
            done: of ``total``.
            total: all.
            unit: what is counted.
            now: what is done at present, if that has a name of its own.
        """
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, completed=done, total=total, unit=unit)
            self._bars.update(self._tasks[what], completed=done, total=total, description=now or what)
        elif self._enabled:
            self._say(what, done, total, unit, now)

    def _say(self, what: str, done: int, total: int, unit: str, now: str) -> None:
        time_s = self._clock()
        begun_s, first = self._begun.setdefault(what, (time_s, done))
        said_s, said = self._said.get(what, (-_EVERY_S, -1))
        is_over = done == total
        if done == said if is_over else time_s - said_s < _EVERY_S:
            return
        self._said[what] = (time_s, done)
        line = f"{what}: {done:,} of {total:,} {unit}"
        if first < done < total:
            left_s = (time_s - begun_s) * (total - done) / (done - first)
            line += f" after {short_time(time_s - begun_s)}, about {short_time(left_s)} left"
        elif is_over and time_s > begun_s:
            line += f" after {short_time(time_s - begun_s)}"
        print(f"{line}; {now}" if now else line, file=sys.stderr, flush=True)


def _make_bars() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def short_time(seconds: float) -> str:
    """Whole seconds up to two minutes, then minutes up to two hours.

    Example:
        >>> short_time(42.3), short_time(600), short_time(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
