"""The frontier as one self-contained HTML page: error against true bits, one figure for each input."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from thinwire.files import StrPath
from thinwire.frontier.points import KINDS, Kind, Point, pareto
from thinwire.frontier.sweep import Frontier, FrontierRow
from thinwire.report.axes import Scale, layout
from thinwire.report.document import Drawing, Page, figures, legend, name_cell, section, table, write_document
from thinwire.report.formats import significant
from thinwire.report.grids import head_row
from thinwire.report.styles import line_style

BEST = "best of all"
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8)
_TITLES = {"any": "all operators", "unbiased": "unbiased operators", "contraction": "contractions"}


def write_page(frontiers: Sequence[Frontier], path: StrPath, *, command: str, inline: bool = False) -> None:
    """Write the page and beside it the figures' library, or both in one file; see :func:`write_document`.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_document(page_of(frontiers, command), path, inline=inline)


def page_of(frontiers: Sequence[Frontier], command: str) -> Page:
    """What the page shows."""
    of_points = {point.operator for found in frontiers for point in found.points}
    names = [BEST, *sorted(of_points | {row.operator for found in frontiers for row in found.rows})]
    slots = {name: slot for slot, name in enumerate(names)}
    panels = [(found, kind) for found in frontiers for kind in KINDS]
    drawings = [
        Drawing(title=f"error against bits on {found.input}, {_TITLES[kind]}", content=_drawn(found, kind, slots))
        for found, kind in panels
    ]
    sections = [
        section(
            f"panel-{number}",
            f"{found.input}: {_TITLES[kind]}",
            figures([drawing], number) + _table(found, kind, slots),
        )
        for number, (drawing, (found, kind)) in enumerate(zip(drawings, panels, strict=True))
    ]
    header = (
        f'<p class="headline">{_headline(frontiers)}</p>'
        "<p>Each line is the best that one operator reaches, over its parameters; the broad one is the best of all. "
        "Bits are those of the encoded message, frame and all. Lower and further left is better. Click a name to hide "
        "or show it.</p>"
    )
    sections.append(section("command", "Command", f"<pre>{escape(command)}</pre>"))
    body = "\n".join((legend(names), *sections))
    title = "thinwire: error against bits on the wire"
    remake = f"{command} --inline"
    return Page(title=title, header=header, body=body, drawings=drawings, num_names=len(names), remake=remake)


def _headline(frontiers: Sequence[Frontier]) -> str:
    """The operator of the least error on each input, at the budget in the middle of those asked for."""
    sentences = []
    for found in frontiers:
        single = [row for row in found.rows if row.kind == "any" and row.clients == min(r.clients for r in found.rows)]
        budgets = sorted({row.budget for row in single})
        if budgets:
            budget = budgets[len(budgets) // 2]
            best = min((row for row in single if row.budget == budget), key=lambda row: (row.error, row.bits))
            sentences.append(
                f"On {escape(found.input)} the least error for at most {budget:g} bit{'s' * (budget != 1)} an entry "
                f"was {significant(best.error)}, by <code>{escape(best.configuration)}</code>."
            )
    return " ".join(sentences)


def _drawn(found: Frontier, kind: Kind, slots: dict[str, int]) -> dict[str, Any]:
    traces = []
    fewest = 1.0  # bits an entry
    for name, slot in slots.items():
        own = (point for point in found.points if name in (BEST, point.operator) and point.is_of(kind))
        front = [point for point in pareto(own) if point.error > 0.0]
        if front:
            fewest = min(fewest, front[0].bits)
            traces.append(_line(name, slot, front))
    low = math.log10(0.9 * fewest)
    high = math.log10(1.5 if kind == "contraction" else 1e3)
    shown = layout(
        Scale(title="bits an entry, log scale", more={"range": [low, 0.95], "tickvals": _TICKS}),
        Scale(title="error, log scale", more={"range": [-4, high], "exponentformat": "power", "dtick": 1}),
        height=560,
    )
    return {"data": traces, "layout": shown}


def _line(name: str, slot: int, front: Sequence[Point]) -> dict[str, Any]:
    style = line_style(slot)
    is_best = name == BEST  # a broad, pale line under the others
    return {
        "type": "scatter", "mode": "lines" if is_best else "lines+markers", "name": escape(name),
        "x": [float(f"{point.bits:.5g}") for point in front], "y": [float(f"{point.error:.5g}") for point in front],
        "text": [escape(str(point.configuration)) for point in front], "opacity": 0.25 if is_best else 1.0,
        "hovertemplate": "%{text}<br>%{x:.4g} bits, error %{y:.4g}<extra></extra>",
        "line": {"width": 9 if is_best else 1.6, "dash": style.dash, "color": style.light},
        "marker": {"size": 4, "color": style.light}, "meta": {"slot": slot, "part": "line"},
    }  # fmt: skip


def _table(found: Frontier, kind: Kind, slots: dict[str, int]) -> str:
    rows = [row for row in found.rows if row.kind == kind]
    best: dict[tuple[float, int], FrontierRow] = {}
    for row in rows:
        key = (row.budget, row.clients)
        if key not in best or (row.error, row.bits) < (best[key].error, best[key].bits):
            best[key] = row
    lines = [
        f"<tr>{name_cell(row.configuration, slots[row.operator])}<td>{row.budget:g}</td><td>{row.clients}</td>"
        f"<td>{row.bits:.4g}</td><td>{significant(row.error)}</td></tr>"
        for row in best.values()
    ]
    heads = ("best", "at most bits", "clients", "bits", "error")
    return table(head_row(heads), lines)
