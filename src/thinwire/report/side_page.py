"""The page of several comparisons side by side: figures of equal axes, what differs, every method in each."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from itertools import accumulate, zip_longest
from typing import Any

from thinwire.files import StrPath
from thinwire.report.columns import columns
from thinwire.report.curves import LOG_SCALE
from thinwire.report.document import Drawing, Page, figures, legend, name_cell, section, table, write_document
from thinwire.report.formats import MISSING
from thinwire.report.grids import head_row
from thinwire.report.page import drawings_of
from thinwire.report.side_by_side import (
    Runs,
    all_methods,
    differing_settings,
    settings_grid,
    settings_of,
    summarise_several,
)
from thinwire.report.tables import grouped_head


def write_several(runs: Runs, path: StrPath, *, inline: bool = False) -> None:
    """Write the page and beside it the figures' library, or both in one file; see :func:`write_document`.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_document(page_of(runs), path, inline=inline)


def page_of(runs: Runs) -> Page:
    """What the page shows."""
    methods = all_methods(runs)
    slots = {method: slot for slot, method in enumerate(methods)}
    own = [
        [replace(drawing, title=f"{drawing.title}: {name}") for drawing in drawings_of(data, slots)]
        for name, data in runs.items()
    ]
    # One row of figures for each kind, all runs in it.
    kinds = [[each for each in kind if each is not None] for kind in zip_longest(*_aligned(own))]
    equal = [_of_equal_axes(kind) for kind in kinds]
    drawings = [each for kind in equal for each in kind]
    firsts = accumulate((len(kind) for kind in equal), initial=0)
    shown = "".join(figures(kind, first, side_by_side=True) for kind, first in zip(equal, firsts, strict=False))
    metric = next(iter(runs.values())).metric
    commands = "".join(f"<h3>{escape(name)}</h3><pre>{escape(data.command)}</pre>" for name, data in runs.items())
    differing = differing_settings(runs)
    several = len(differing)
    lead = (
        f"{several} setting{'s differ' if several > 1 else ' differs'}: {', '.join(differing)}."
        if differing
        else _alike(runs)
    )
    sections = (
        section("settings", "What differs", _settings(runs, differing)),
        section("figures", "Figures", legend(methods) + shown + _FIGURES_NOTE),
        section("summary", "Every method in each run", _summary(runs, slots)),
        section("command", "Commands", commands),
    )
    return Page(
        title=f"thinwire: {len(runs)} runs side by side, by {metric.name}",
        header=f'<p class="headline">{escape(lead)}</p>',
        body="\n".join(sections),
        drawings=drawings,
        num_names=len(methods),
        remake=shlex.join(["thinwire", "report", *runs, "--inline"]),
    )


_FIGURES_NOTE = (
    '<p class="note">A method has the same colour in all runs, and figures of a kind have the same axes. Click a name '
    "to hide or show it in every figure.</p>"
)


def _aligned(own: Sequence[Sequence[Drawing]]) -> list[list[Drawing | None]]:
    """The drawings of each run in the order of all kinds; a run may lack a kind."""
    kinds = list(dict.fromkeys(_kind(drawing) for drawings in own for drawing in drawings))
    return [[next((each for each in drawings if _kind(each) == kind), None) for kind in kinds] for drawings in own]


def _kind(drawing: Drawing) -> str:
    return drawing.title.partition(": ")[0]


def _of_equal_axes(kind: Sequence[Drawing]) -> list[Drawing]:
    """The drawings with one range for each axis: what is shown of any of them, with a margin."""
    layouts = [each.content["layout"] for each in kind]
    ranges: dict[str, list[float]] = {}
    for axis, values in (("xaxis", "x"), ("yaxis", "y")):
        is_log = any(layout[axis].get("type") == "log" for layout in layouts)
        given = [layout[axis].get("range") or [] for layout in layouts]
        traces = [trace for each, cut in zip(kind, given, strict=True) if not cut for trace in each.content["data"]]
        shown = [*(end for ends in given for end in ends), *_on_axis(traces, values, is_log)]
        if shown:
            margin = 0.04 * (max(shown) - min(shown)) or 0.1
            ranges[axis] = [min(shown) - margin, max(shown) + margin]
    found = []
    for each, layout in zip(kind, layouts, strict=True):
        is_log = any(other["xaxis"].get("type") == "log" for other in layouts)
        axes = {axis: {**layout[axis], "range": ends} for axis, ends in ranges.items()}
        if is_log and "xaxis" in axes:
            axes["xaxis"] |= {"type": "log", "rangemode": "normal", "title": _as_log(layout["xaxis"]["title"])}
        found.append(Drawing(title=each.title, content={**each.content, "layout": {**layout, **axes}}, note=each.note))
    return found


def _as_log(title: Mapping[str, Any]) -> dict[str, Any]:
    """An axis's title that says how it is drawn."""
    return {**title, "text": title["text"].removesuffix(LOG_SCALE) + LOG_SCALE}


def _on_axis(traces: Iterable[Mapping[str, Any]], values: str, is_log: bool) -> list[float]:
    """Where the points of the traces lie on an axis."""
    numbers = [float(value) for trace in traces for value in trace[values] if value is not None]
    return [math.log10(value) for value in numbers if value > 0] if is_log else numbers


def _alike(runs: Runs) -> str:
    """What is the same in all runs, of which nothing is compared but this."""
    first = next(iter(runs.values()))
    known = [name for name, value in settings_of(first).items() if value != MISSING]
    return f"All runs are alike in {', '.join(known)}."


def _settings(runs: Runs, differing: Mapping[str, Mapping[str, str]]) -> str:
    if not differing:
        return f"<p>{escape(_alike(runs))}</p>"
    grid = settings_grid(runs, differing)
    lines = [
        f'<tr><th scope="row" class="method">{escape(name)}</th>'
        + "".join(f"<td>{escape(value)}</td>" for value in values)
        + "</tr>"
        for name, *values in grid.rows
    ]
    return table(head_row(grid.heads), lines)


def _summary(runs: Runs, slots: Mapping[str, int]) -> str:
    rows = summarise_several(runs)
    shown = columns([each.row for each in rows])
    lines = [
        f"<tr>{name_cell(each.row.method, slots[each.row.method])}<td>{escape(each.run)}</td>"
        + "".join(f"<td>{escape(column.text(each.row))}</td>" for column in shown)
        + "</tr>"
        for each in rows
    ]
    return table(grouped_head(["method", "run"], shown), lines)
