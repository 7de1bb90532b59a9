"""``thinwire hogwild``."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, cast

from thinwire.cli.application import Interrupted, console, fill, numbers, open_lines, write_line
from thinwire.cli.progress import Meter
from thinwire.config import read_share
from thinwire.report import TerminalColumn, TerminalTable, print_fitted
from thinwire.shared_memory import VARIANTS, ContestResult, Plan, Result, Row, Settings, Variant, measure

_LEGEND = (
    "Medians; range: slowest and fastest run. cores: that the threads had at the same time; with fewer than threads "
    "they take turns. writes: coordinates added to. lost: of the writes of a further round, in which each also counts "
    "itself. loss: the objective at the end, evaluated while the threads stand still."
)


def train_as_asked(given: Mapping[str, Any]) -> None:
    """Measure what the options of the command say, and print it; what there is by then on Ctrl-C.

    Raises:
        ConfigError: something that cannot be.
    """
    plan = _plan(given)
    with open_lines(given["json_file"]) as lines, Meter() as meter:
        watcher = _Watcher(plan, meter, lines)
        try:
            measure(plan, watcher)
        except KeyboardInterrupt:
            watcher.interrupted = True
    if lines is not sys.stdout:
        if watcher.contests:
            print_fitted(_contest_table(plan, watcher.contests), console)
        if watcher.rows():
            print_fitted(_training_table(plan, watcher.rows()), console)
            console.print(_LEGEND, markup=False, highlight=False)
    if watcher.interrupted:
        raise Interrupted(f"{watcher.num_done} of {plan.num_runs} runs are done")


def _plan(given: Mapping[str, Any]) -> Plan:
    method = given["method"].value
    if method != "mem-sgd" and given["select"].value != "top-k":
        warnings.warn(f"--select has no effect on {method}", stacklevel=2)
    if method == "sgd" and given["keep"] != "1%":
        warnings.warn("--keep has no effect on sgd, which writes what the example has", stacklevel=2)
    names = [part.strip() for part in given["variants"].split(",") if part.strip()]
    threads = numbers(given["threads"], int, "--threads")
    fewest = {"threads": min(threads, default=1)}
    settings = fill(Settings, {**given, **fewest}, {"learning_rate": given["lr"], "keep": read_share(given["keep"])})
    changed = {
        "variants": cast(tuple[Variant, ...], tuple(names)) or VARIANTS, "threads": threads,
        "densities": numbers(given["density"], read_share, "--density"), "settings": settings,
    }  # fmt: skip
    return fill(Plan, given, changed)


class _Watcher:
    """Keeps what is done, writes it as it comes, shows how far it is."""

    def __init__(self, plan: Plan, meter: Meter, lines: TextIO | None) -> None:
        self.contests: list[ContestResult] = []
        self.interrupted = False
        self.num_done = 0
        self._results: dict[tuple[float, int, str], list[Result]] = {}
        self._total = plan.num_runs
        self._meter = meter
        self._lines = lines

    def begins(self, what: str) -> None:
        """See :class:`thinwire.shared_memory.sweep.Listener`."""
        self._meter.show("hogwild", self.num_done, self._total, "runs", what)

    def trained(self, result: Result) -> None:
        """See :class:`thinwire.shared_memory.sweep.Listener`."""
        settings = result.settings
        self._results.setdefault((result.density, settings.threads, settings.variant), []).append(result)
        self._ended(result.to_json())

    def contested(self, result: ContestResult) -> None:
        """See :class:`thinwire.shared_memory.sweep.Listener`."""
        self.contests.append(result)
        self._ended(result.to_json())

    def rows(self) -> list[Row]:
        """What was trained until now."""
        return [Row(results=tuple(results)) for results in self._results.values()]

    def _ended(self, line: Mapping[str, Any]) -> None:
        self.num_done += 1
        write_line(self._lines, line)
        self._meter.show("hogwild", self.num_done, self._total, "runs")


def _contest_table(plan: Plan, results: Sequence[ContestResult]) -> TerminalTable:
    title = f"contest: {plan.additions:,} additions of 1 to {results[0].contest.counters} counters of int64"
    columns = [
        TerminalColumn(header="threads", cells=[str(each.contest.threads) for each in results], is_name=True),
        TerminalColumn(header="variant", cells=[each.contest.variant for each in results], is_name=True),
        TerminalColumn(header="additions\nper s", cells=[f"{each.additions_per_s:.3g}" for each in results]),
        TerminalColumn(header="cores", cells=[f"{each.cores:.2f}" for each in results]),
        TerminalColumn(header="lost", cells=[f"{each.lost:,}" for each in results]),
    ]
    return TerminalTable(columns=columns, title=title)


def _training_table(plan: Plan, rows: Sequence[Row]) -> TerminalTable:
    results = [row.results[0] for row in rows]
    settings = plan.settings
    method = settings.method + (f", {settings.select}" if settings.method == "mem-sgd" else "")
    kept = "" if settings.method == "sgd" else f" of {settings.keep:.3g}"
    first = results[0]
    title = (
        f"{method}{kept}, {settings.loss}, {plan.task}: {first.examples:,} examples of {first.numel:,} coordinates, "
        f"{settings.updates:,} updates"
    )
    columns = [
        TerminalColumn(header="density", cells=[f"{each.density:.3g}" for each in results], is_name=True),
        TerminalColumn(header="threads", cells=[str(each.settings.threads) for each in results], is_name=True),
        TerminalColumn(header="variant", cells=[each.settings.variant for each in results], is_name=True),
        TerminalColumn(header="updates\nper s", cells=[_short(row.updates_per_s) for row in rows]),
        TerminalColumn(header="range", cells=[f"{_short(row.extent[0])}-{_short(row.extent[1])}" for row in rows]),
        TerminalColumn(header="cores", cells=[f"{row.cores:.2f}" for row in rows]),
        TerminalColumn(header="writes\nper s", cells=[_short(row.writes_per_s) for row in rows]),
        TerminalColumn(header="lost", cells=[f"{100 * row.lost_share:.3g} %" for row in rows]),
        TerminalColumn(header="loss", cells=[f"{row.loss:.4f}" for row in rows]),
    ]
    return TerminalTable(columns=columns, title=title)


def _short(number: float) -> str:
    """Three digits and a unit.

    Example:
        >>> _short(1234567.0), _short(99999.0), _short(12.0)
        ('1.23M', '100k', '12')
    """
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
