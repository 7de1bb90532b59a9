"""Reading what the commands of studies wrote."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from thinwire import report
from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.report import Amount, RecordedComparison, ResultRow

Line = dict[str, Any]


def shown(amount: Amount) -> str:
    """Three digits, and two of half the interval.

    Example:
        >>> shown(Amount(0.97777, 0.0191)), shown(Amount(1200.0)), shown(Amount(math.inf))
        ('0.978 ± 0.019', '1.2e+03', 'never')
    """
    if math.isinf(amount.mean):
        return "never"
    return f"{amount.mean:.3g}" + ("" if amount.within is None else f" ± {amount.within:.2g}")


def is_below(one: Amount, other: Amount) -> bool | None:
    """True or False where the intervals lie apart, None where they overlap.

    Example:
        >>> is_below(Amount(1.0, 0.1), Amount(2.0, 0.1)), is_below(Amount(1.0, 2.0), Amount(2.0))
        (True, None)
    """
    near, far = one.within or 0.0, other.within or 0.0
    if one.mean + near < other.mean - far:
        return True
    return False if one.mean - near > other.mean + far else None


def listed(parts: Iterable[str]) -> str:
    """Several findings in a row."""
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Row:
    """A method of a comparison.

    Args:
        result: its row of the table.
    """

    result: ResultRow

    @property
    def method(self) -> str:
        """The method string."""
        return self.result.method

    @property
    def final(self) -> Amount:
        """The metric at the end."""
        return _number(self.result.final_value, self.result.final_value_within)

    @property
    def worse(self) -> Amount:
        """By how much it is worse at the end than the fastest dense method; below 0 if it is better."""
        found = _number(self.result.against_dense, self.result.against_dense_within)
        return Amount(-found.mean, found.within) if self.result.metric.higher_is_better else found

    @property
    def reached(self) -> bool:
        """Whether every run reached the target."""
        return self.result.num_reached == self.result.num_runs > 0

    def to_target(self, what: Literal["steps", "seconds", "message_bytes", "link_bytes"]) -> Amount:
        """What it took to the target; infinite if a run missed it."""
        if not self.reached:
            return Amount(math.inf)
        mean, within = {
            "steps": (self.result.steps_to_target, self.result.steps_to_target_within),
            "seconds": (self.result.seconds_to_target, self.result.seconds_to_target_within),
            "message_bytes": (self.result.message_bytes_to_target, self.result.message_bytes_to_target_within),
            "link_bytes": (self.result.link_bytes_to_target, self.result.link_bytes_to_target_within),
        }[what]
        return _number(mean, within)

    @property
    def bytes_per_step(self) -> float:
        """Message bytes of a worker."""
        return math.nan if self.result.message_bytes_per_step is None else self.result.message_bytes_per_step


def _number(mean: float | None, within: float | None) -> Amount:
    return Amount(math.nan if mean is None else mean, within)


@dataclass(frozen=True, slots=True)
class Found:
    """The results of the parts.

    Args:
        folders: of the parts that a question names, by key.
    """

    folders: Mapping[str, StrPath]
    _comparisons: dict[str, RecordedComparison] = field(default_factory=dict, repr=False, compare=False)

    def lines(self, key: str) -> list[Line]:
        """What a part wrote with ``--json``.

        Raises:
            ConfigError: it is not there, or damaged.
        """
        return read_lines(self._folder(key) / "rows.jsonl")

    def comparison(self, key: str) -> RecordedComparison:
        """The records of a comparison, read once; ``study/part/workers-4`` is one of a speed-up."""
        if key not in self._comparisons:
            self._comparisons[key] = report.load(self._folder(key))
        return self._comparisons[key]

    def records(self, key: str) -> list[Line]:
        """Every evaluation of the final runs of a comparison, as they were written; keys as of :meth:`comparison`."""
        return read_lines(self._folder(key) / "results.jsonl")

    def tried(self, key: str) -> list[Line]:
        """Every evaluation of the search, likewise."""
        return read_lines(self._folder(key) / "tuning.jsonl")

    def rows(self, key: str) -> list[Row]:
        """The rows of a comparison, in the order of its methods.

        Raises:
            ConfigError: a method has no final run.
        """
        results = report.summarise(self.comparison(key))
        for result in results:
            if not result.num_runs:
                raise ConfigError(
                    f"{self._folder(key)} has no final run of {result.method}; delete it and run it again"
                )
        return [Row(result) for result in results]

    def row(self, key: str, method: str) -> Row:
        """That of one method.

        Raises:
            ConfigError: there is none.
        """
        for row in self.rows(key):
            if row.method == method:
                return row
        raise ConfigError(f"{key} has no row of {method}; its study was changed without the demand that reads it")

    def _folder(self, key: str) -> Path:
        study, part, *inner = key.split("/")
        if f"{study}/{part}" not in self.folders:
            raise ConfigError(f"{key} is read by a question that names {', '.join(self.folders)} alone")
        return Path(self.folders[f"{study}/{part}"]).joinpath(*inner)


def read_lines(path: StrPath) -> list[Line]:
    """A JSON value from each line.

    Raises:
        ConfigError: the file is not there, or damaged.
    """
    try:
        return [json.loads(line) for line in Path(path).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); delete its folder and run the part again") from error
