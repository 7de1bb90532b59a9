"""Where the comparisons of a speed-up lie, and reading them together."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from thinwire import report
from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.report import RecordedComparison

_ALIKE = (
    "task", "metric.name", "target", "methods", "seeds", "engine", "network", "compute", "overlap", "batch_size",
    "optimizers", "lr_schedule", "average", "sharding",
)  # fmt: skip
"""What the comparisons of a speed-up have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSpeedup:
    """The same methods, to the same target, with several numbers of workers.

    Args:
        target: value of the metric.
        comparisons: by number of workers, ascending from 1.
    """

    target: float
    comparisons: Mapping[int, RecordedComparison]

    @property
    def workers(self) -> tuple[int, ...]:
        """The numbers of workers."""
        return tuple(self.comparisons)

    @property
    def first(self) -> RecordedComparison:
        """That of one worker."""
        return self.comparisons[1]


def subfolder(folder: StrPath, workers: int) -> Path:
    """The folder of the comparison with so many workers.

    Example:
        >>> subfolder("runs/logreg-speedup", 8).as_posix()
        'runs/logreg-speedup/workers-8'
    """
    return Path(folder) / f"workers-{workers}"


def workers_in(folder: StrPath) -> tuple[int, ...]:
    """The numbers of workers that have a finished or interrupted comparison in the folder, ascending."""
    found = []
    for path in Path(folder).glob("workers-*/comparison.json"):
        match = re.fullmatch(r"workers-([1-9]\d{0,11})", path.parent.name)
        if match:
            found.append(int(match[1]))
    return tuple(sorted(found))


def load_speedup(folder: StrPath, workers: Sequence[int] = ()) -> RecordedSpeedup:
    """Read what ``thinwire speedup`` wrote.

    Args:
        folder: that of the command.
        workers: numbers of workers, ascending from 1; all that are there if not given.

    Raises:
        ConfigError: there are fewer than two numbers of workers, or not one worker among them; the comparisons differ
            in more than the number of workers and steps, or have no target; or a file is missing or damaged.
    """
    counts = tuple(workers) or workers_in(folder)
    if len(counts) < 2 or counts[0] != 1:
        raise ConfigError(
            f"{folder} has comparisons of {', '.join(map(str, counts)) or 'no number of'} workers; a speed-up needs "
            "workers-1 and at least one more, as thinwire speedup writes them"
        )
    comparisons = {count: report.load(subfolder(folder, count)) for count in counts}
    first = comparisons[1]
    for count, other in comparisons.items():
        if other.workers != count:
            raise ConfigError(
                f"{subfolder(folder, count)} is a comparison of {other.workers} workers; its folder was renamed or "
                "copied: delete it, and run the command again"
            )
        for name in _ALIKE:
            before, now = attrgetter(name)(first), attrgetter(name)(other)
            if before != now:
                raise ConfigError(
                    f"the comparisons in {folder} differ: {name} is {before} with 1 worker and {now} with {count}; an "
                    "interrupted command was changed: run it again to its end"
                )
    if first.target is None:
        raise ConfigError(f"the comparisons in {folder} have no target; give --target, the same for all")
    return RecordedSpeedup(target=first.target, comparisons=comparisons)
