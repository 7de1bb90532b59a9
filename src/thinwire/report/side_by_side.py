"""Several comparisons side by side: what differs between them, and every method in each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.report.columns import columns
from thinwire.report.exports import latex_lines
from thinwire.report.formats import MISSING, human_bits_per_second, human_seconds, metric_value
from thinwire.report.grids import Grid, print_grid
from thinwire.report.records import RecordedComparison, load
from thinwire.report.rows import ResultRow, effective_target, summarise
from thinwire.report.tables import terminal_columns
from thinwire.report.terminal import TerminalColumn, TerminalTable, print_fitted

if TYPE_CHECKING:
    from rich.console import Console

Runs = Mapping[str, RecordedComparison]
"""By name of the run: the folder as it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRow:
    """A method in a run."""

    run: str
    row: ResultRow

    def to_json(self) -> dict[str, Any]:
        """The row in plain values, the run first."""
        return {"run": self.run, **self.row.to_json()}


def load_several(folders: Sequence[StrPath]) -> dict[str, RecordedComparison]:
    """Read several comparisons of one metric.

    Raises:
        ConfigError: a folder twice, another metric than that of the first, or see :func:`thinwire.report.load`.
    """
    runs: dict[str, RecordedComparison] = {}
    seen: dict[Path, str] = {}
    for folder in folders:
        name, place = str(Path(folder)), Path(folder).resolve()
        if place in seen:
            raise ConfigError(f"{name} and {seen[place]} are the same folder; give each once")
        seen[place], runs[name] = name, load(folder)
    first, *others = runs
    for other in others:
        ours, theirs = runs[first].metric, runs[other].metric
        if ours != theirs:
            raise ConfigError(
                f"{first} was judged by {_metric_text(runs[first])} and {other} by {_metric_text(runs[other])}, and "
                "numbers of unlike kind do not stand side by side; give folders of one metric at a time"
            )
    return runs


def _metric_text(data: RecordedComparison) -> str:
    return f"{data.metric.name} ({'higher' if data.metric.higher_is_better else 'lower'} is better)"


def settings_of(data: RecordedComparison) -> dict[str, str]:
    """Under what a comparison was made, as people read it."""
    network, compute, target = data.network, data.compute, effective_target(data)
    link = MISSING
    if network is not None:
        up = "" if network.uplink_Bps is None else f", {human_bits_per_second(network.uplink_Bps)} up"
        others = f", {network.num_others} on other links" if network.num_others else ""
        link = f"{human_bits_per_second(network.bandwidth_Bps)}, {human_seconds(network.latency_s)}{up}{others}"
    step = MISSING
    if compute is not None:
        step = human_seconds(compute.compute_s) + ("" if compute.are_equal else ", varied")
    return {
        "task": data.task,
        "parameters": _count(data.num_parameters),
        "workers": _count(data.workers),
        "clients": MISSING if data.clients is None else data.clients.text,
        "steps": _count(data.steps),
        "seeds": ", ".join(map(str, data.seeds)),
        "batch size": _count(data.batch_size),
        "sharding": data.sharding or MISSING,
        "optimizers": "; ".join(data.optimizers),
        "learning rates fall": data.lr_schedule or MISSING,
        "average of iterates": data.average or MISSING,
        "target": MISSING if target is None else metric_value(target),
        "engine": data.engine,
        "link": link,
        "computation a step": step,
        "overlap": data.overlap,
    }


def _count(number: int | None) -> str:
    return MISSING if number is None else f"{number:,}"


def differing_settings(runs: Runs) -> dict[str, dict[str, str]]:
    """Those settings that are not the same in all runs: by setting and run."""
    found = {name: settings_of(data) for name, data in runs.items()}
    first = next(iter(found.values()))
    each = {setting: {name: own[setting] for name, own in found.items()} for setting in first}
    return {setting: values for setting, values in each.items() if len(set(values.values())) > 1}


def all_methods(runs: Runs) -> tuple[str, ...]:
    """The methods of all runs, each once, in the order in which they come."""
    return tuple(dict.fromkeys(method for data in runs.values() for method in data.methods))


def summarise_several(runs: Runs) -> list[NamedRow]:
    """Every method in each run that has it; those of a method follow each other."""
    rows = {name: {row.method: row for row in summarise(data)} for name, data in runs.items()}
    return [
        NamedRow(run=name, row=own[method])
        for method in all_methods(runs)
        for name, own in rows.items()
        if method in own
    ]


def settings_grid(runs: Runs, differing: Mapping[str, Mapping[str, str]]) -> Grid:
    """What :func:`differing_settings` found, a line each."""
    rows = [(setting, *(values[name] for name in runs)) for setting, values in differing.items()]
    return Grid(heads=("setting", *runs), rows=rows)


def print_several(runs: Runs, console: "Console") -> None:
    """Print the settings that differ, then every method in each run."""
    differing = differing_settings(runs)
    if differing:
        print_grid(settings_grid(runs, differing), console)
        console.print()
    rows = summarise_several(runs)
    heads = [
        TerminalColumn(header="run", cells=[each.run for each in rows], is_name=True),
        TerminalColumn(header="method", cells=[each.row.method for each in rows], is_name=True),
    ]
    print_fitted(TerminalTable(columns=[*heads, *terminal_columns([each.row for each in rows])]), console)


def latex_several(rows: Sequence[NamedRow]) -> str:
    """The rows as a LaTeX ``tabular``."""
    shown = columns([each.row for each in rows])
    head = ["method", "run", *(column.full_header for column in shown)]
    cells = [[each.row.method, each.run, *(column.text(each.row) for column in shown)] for each in rows]
    return latex_lines(head, cells)
