"""The frontier as one self-contained HTML page: error against true bits, one figure for each input."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from thinwire.files import StrPath, write_atomically
from thinwire.frontier.points import KINDS, Kind, pareto
from thinwire.frontier.sweep import Frontier, FrontierRow
from thinwire.report.document import Drawing, document, figures, legend, name_cell, section, table
from thinwire.report.formats import significant
from thinwire.report.styles import line_style

_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8)
_TITLES = {"any": "all operators", "unbiased": "unbiased operators", "contraction": "contractions"}


def write_page(frontiers: Sequence[Frontier], path: StrPath) -> None:
    """Write the page; about 5 MB, nearly all of it the figures' library.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_atomically(path, render(frontiers).encode())


def render(frontiers: Sequence[Frontier]) -> str:
    """The page as text; it fetches nothing."""
    of_points = {point.operator for found in frontiers for point in found.points}
    names = sorted(of_points | {row.operator for found in frontiers for row in found.rows})
    slots = {name: slot for slot, name in enumerate(names)}
    panels = [(found, kind) for found in frontiers for kind in KINDS]
    drawings = [Drawing(title="error against bits", content=_drawn(found, kind, slots)) for found, kind in panels]
    sections = [
        section(
            f"panel-{number}",
            f"{found.input}: {_TITLES[kind]}",
            figures([drawing], number) + _table(found, kind, slots),
        )
        for number, (drawing, (found, kind)) in enumerate(zip(drawings, panels, strict=True))
    ]
    header = (
        "<p>Each line is the best that one operator reaches, over its parameters; bits are those of the encoded "
        "message, frame and all. Lower and further left is better. Click a name to hide or show it.</p>"
    )
    body = "\n".join((legend(names), *sections))
    return document("thinwire: error against bits on the wire", header, body, drawings, len(names))


def _drawn(found: Frontier, kind: Kind, slots: dict[str, int]) -> dict[str, Any]:
    traces = []
    fewest = 1.0  # bits an entry
    for name, slot in slots.items():
        style = line_style(slot)
        front = pareto(point for point in found.points if point.operator == name and point.is_of(kind))
        front = [point for point in front if point.error > 0.0]
        if not front:
            continue
        fewest = min(fewest, front[0].bits)
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": escape(name),
                "x": [point.bits for point in front], "y": [point.error for point in front],
                "text": [escape(str(point.configuration)) for point in front],
                "hovertemplate": "%{text}<br>%{x:.4g} bits, error %{y:.4g}<extra></extra>",
                "line": {"width": 1.6, "dash": style.dash, "color": style.light},
                "marker": {"size": 4, "color": style.light}, "meta": {"slot": slot, "part": "line"},
            }
        )  # fmt: skip
    low = math.log10(0.9 * fewest)
    high = math.log10(1.5 if kind == "contraction" else 1e3)
    return {
        "data": traces,
        "layout": {
            "font": {"size": 13}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 60, "r": 10, "t": 10, "b": 50}, "height": 560, "showlegend": False,
            "xaxis": {"type": "log", "title": {"text": "bits an entry"}, "range": [low, 0.95], "tickvals": _TICKS},
            "yaxis": {
                "type": "log", "title": {"text": "error"}, "range": [-4, high], "exponentformat": "power", "dtick": 1,
            },
        },
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
    return table("<tr>" + "".join(f'<th scope="col">{head}</th>' for head in heads) + "</tr>", lines)
