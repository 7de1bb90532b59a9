"""The tables: the rows in a terminal, the rows and the search of learning rates as HTML."""

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from thinwire.report.columns import Column, best_methods, columns
from thinwire.report.document import name_cell, table
from thinwire.report.formats import MISSING, metric_value
from thinwire.report.grids import head_row
from thinwire.report.records import RecordedComparison
from thinwire.report.rows import ResultRow
from thinwire.report.terminal import TerminalColumn, TerminalTable, print_fitted

if TYPE_CHECKING:
    from rich.console import Console


def print_table(rows: Sequence[ResultRow], console: "Console") -> None:
    """Print the rows, the best of every column bold; columns for which there is no room follow below."""
    names = TerminalColumn(header="method", cells=[row.method for row in rows], is_name=True)
    shown = terminal_columns(rows, lambda column: best_methods(column, rows))
    print_fitted(TerminalTable(columns=[names, *shown]), console)


def terminal_columns(
    rows: Sequence[ResultRow], best: Callable[[Column], frozenset[str]] = lambda column: frozenset()
) -> list[TerminalColumn]:
    """The columns of numbers that a terminal has.

    Args:
        rows: of one comparison or of several.
        best: the methods whose cells of a column are bold; none if not given.
    """
    return [
        TerminalColumn(
            header=column.short_header,
            cells=[(column.short_text or column.text)(row) for row in rows],
            bold=frozenset(place for place, row in enumerate(rows) if row.method in best(column)),
        )
        for column in columns(rows)
        if column.in_terminal
    ]


def grouped_head(names: Sequence[str], shown: Sequence[Column]) -> str:
    """The two rows of headings of a page's table: groups, and below them names and columns."""
    groups = "".join(
        f'<th scope="colgroup" colspan="{len(list(members))}">{escape(name)}</th>'
        for name, members in groupby(column.group for column in shown)
    )
    heads = head_row([*names, *(column.header for column in shown)])
    return f'<tr class="groups">{"<th></th>" * len(names)}{groups}</tr>{heads}'


def summary_table(rows: Sequence[ResultRow]) -> str:
    """The rows as an HTML table with an explanation of every column; the best of a column is bold."""
    shown = columns(rows)
    best = [best_methods(column, rows) for column in shown]
    lines = []
    for slot, row in enumerate(rows):
        cells = "".join(
            f'<td class="best">{escape(column.text(row))}</td>'
            if row.method in winners
            else f"<td>{escape(column.text(row))}</td>"
            for column, winners in zip(shown, best, strict=True)
        )
        mark = ' <span class="tag">baseline</span>' if row.is_baseline else ""
        lines.append(f"<tr>{name_cell(row.method, slot, mark)}{cells}</tr>")
    # The two columns of ratios share one sentence.
    meanings = dict.fromkeys((column.header, column.meaning) for column in shown)
    explained = "".join(f"<dt>{escape(header)}</dt><dd>{escape(meaning)}</dd>" for header, meaning in meanings)
    return (
        table(grouped_head(["method"], shown), lines)
        + '<p class="note">The best of each column is bold; a method that diverged in a run does not compete, '
        "nor, for the target, one that missed it in a run. Bytes and seconds are per worker and cumulative; "
        f'units are decimal (1 kB = 1000 B).</p><dl class="meanings">{explained}</dl>'
    )


def tuning_table(data: RecordedComparison) -> str:
    """Per method, optimizer and options every learning rate tried and its validation value; the taken one is marked."""
    rates = sorted({setting.lr for tried in data.tuning.values() for setting, _ in tried})
    headers = "".join(f'<th scope="col">{lr:g}</th>' for lr in rates)
    lines = []
    for slot, method in enumerate(data.methods):
        chosen = data.chosen.get(method)
        tried = data.tuning.get(method, ())
        for name in dict.fromkeys(setting.name for setting, _ in tried) or [chosen.name if chosen else MISSING]:
            values = {setting.lr: value for setting, value in tried if setting.name == name}
            taken = chosen.lr if chosen is not None and chosen.name == name else None
            cells = "".join(_tried_cell(values.get(lr), taken is not None and lr == taken) for lr in rates)
            remark = tuning_remark(list(values), taken)
            lines.append(
                f"<tr>{name_cell(method, slot)}<td>{escape(name)}</td>{cells}"
                f'<td class="remark">{escape(remark)}</td></tr>'
            )
    head = (
        f'<tr><th scope="col">method</th><th scope="col">optimizer, options</th>{headers}'
        '<th scope="col" class="remark">taken</th></tr>'
    )
    return table(head, lines)


def tuning_remark(tried: Sequence[float], chosen_lr: float | None) -> str:
    """Which learning rate was taken, and whether it lies at the edge of those tried."""
    if chosen_lr is None:
        return MISSING
    if not tried:
        return f"{chosen_lr:g}, not searched"
    if chosen_lr not in tried:
        return f"{chosen_lr:g}, not among those tried"
    if len(tried) == 1:
        return f"{chosen_lr:g}, the only one tried"
    edge = {min(tried): "smallest", max(tried): "largest"}.get(chosen_lr)
    return f"{chosen_lr:g}" if edge is None else f"{chosen_lr:g}, at the edge: the {edge} tried"


def _tried_cell(value: float | None, is_taken: bool) -> str:
    if value is None:
        text = MISSING
    else:
        text = "diverged" if math.isnan(value) else metric_value(value)
    return f'<td class="taken"><span>✓ {text}</span></td>' if is_taken else f"<td>{text}</td>"
