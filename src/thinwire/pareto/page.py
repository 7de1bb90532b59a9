"""A family of configurations as one page: final metric against bytes, the frontier, all three against their parts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from thinwire.files import StrPath
from thinwire.pareto.folders import RecordedFamily
from thinwire.pareto.points import MEASURES, ParetoResult, Point
from thinwire.pareto.summary import summarise_family
from thinwire.pareto.tables import (
    CONTEST_NOTE,
    POINTS_NOTE,
    allowed_grid,
    contest_grid,
    points_grid,
    sentences,
)
from thinwire.report.axes import Scale, layout
from thinwire.report.columns import target_text
from thinwire.report.document import Drawing, Page, figures, legend, note, section, write_document
from thinwire.report.formats import human_bytes, metric_value
from thinwire.report.grids import Grid, html_grid
from thinwire.report.prose import setup
from thinwire.report.settings import RecordedMetric
from thinwire.report.styles import SHAPES, line_style, mark, swatch

_SYMBOLS = tuple(SHAPES)
FRONTIER = "frontier"
Cost = Callable[[Point], float | None]


@dataclass(frozen=True, slots=True)
class _Panel:
    """A figure: what is paid, by each point, and which points are on its frontier."""

    what: str
    cost: Cost
    is_on_frontier: Callable[[Point], bool]


_PANELS = (
    _Panel("message bytes", lambda point: point.message_bytes, lambda point: point.on_frontier),
    _Panel("link bytes", lambda point: point.link_bytes, lambda point: point.on_link_frontier),
)


def write_page(data: RecordedFamily, path: StrPath, *, inline: bool = False) -> None:
    """Write the page and beside it the figures' library, or both in one file; see :func:`write_document`.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_document(page_of(data), path, inline=inline)


def page_of(data: RecordedFamily) -> Page:
    """What the page shows."""
    result, comparison = summarise_family(data), data.comparison
    # The frontier has the first style, which is ink; dense comes next.
    names = [FRONTIER, *dict.fromkeys(point.name for point in result.points)]
    slots = {name: slot for slot, name in enumerate(names)}
    drawings = [
        Drawing(
            title=f"{comparison.metric.name} against {panel.what}",
            content=_drawn(result, panel, slots, comparison.metric),
        )
        for panel in _PANELS
    ]
    drawn = [swatch(0), *(mark(slot, _symbol(slot)) for slot in range(1, len(names)))]
    shown = legend(names, swatches=drawn) + figures(drawings) + _FIGURES_NOTE
    sections = [section("figures", "Figures", shown), *_tables(result, slots)]
    sections.append(section("command", "Command", f"<pre>{escape(comparison.command)}</pre>"))
    title = f"thinwire: bits against {comparison.metric.name} on {comparison.task}"
    lead = " ".join(map(escape, sentences(result)))
    header = f'<p class="headline">{lead}</p>\n<p>{setup(comparison)}</p>'
    return Page(title=title, header=header, body="\n".join(sections), drawings=drawings, num_names=len(names))


_FIGURES_NOTE = (
    '<p class="note">Each mark is a configuration at the end of its runs: the mean over seeds, with its 95 % interval. '
    "The line is the frontier: no configuration ends at least as well with fewer bytes. Configurations that diverged "
    "in a run are in the table only, and marks far below the better half lie outside of the view. Click a name to "
    "hide or show it.</p>"
)


def _tables(result: ParetoResult, slots: dict[str, int]) -> list[str]:
    def of(grid: Grid, name: int, parts: int) -> str:
        slots_of_rows = [slots.get(row[parts]) for row in grid.rows]
        return html_grid(grid, ["" if slot is None else mark(slot, _symbol(slot)) for slot in slots_of_rows], name)

    sections = []
    if result.allowed:
        sections.append(section("allowed", "Best for each loss", of(allowed_grid(result.allowed), 2, 1) + _LOSS_NOTE))
    for measure, contest in result.contest.items():
        if any(each.cost is not None for each in contest):
            title = f"All three against their parts: {MEASURES[measure]} to {target_text(result.points[0].row)}"
            sections.append(section(f"contest-{measure}", title, of(contest_grid(contest), 1, 0) + note(CONTEST_NOTE)))
    points = of(points_grid(result.points), 1, 0) + note(POINTS_NOTE)
    return [*sections, section("points", "All configurations", points)]


_LOSS_NOTE = (
    '<p class="note">The configuration with the fewest message bytes of a run among those that end at most so much '
    "worse than the best dense method ends. Times fewer: than the fastest dense method.</p>"
)


def _drawn(result: ParetoResult, panel: _Panel, slots: dict[str, int], metric: RecordedMetric) -> dict[str, Any]:
    # Neither bytes of 0 nor a metric of 0 has a place on a log axis.
    cost = panel.cost
    shown = [
        point
        for point in result.points
        if point.competes and cost(point) and (not metric.logarithmic or (point.row.final_value or 0.0) > 0)
    ]
    traces = [
        _marks([point for point in shown if point.name == name], name, slot, cost, metric.logarithmic)
        for name, slot in slots.items()
        if any(point.name == name for point in shown)
    ]
    front = sorted(filter(panel.is_on_frontier, shown), key=lambda point: cost(point) or 0.0)
    if front:
        traces.insert(0, _stairs(front, cost))
    bytes_axis = Scale(title=f"{panel.what} of a run, per worker", is_bytes=True, more={"dtick": 1})
    more = {"exponentformat": "power"} if metric.logarithmic else {}
    value_axis = Scale(title=metric.name, logarithmic=metric.logarithmic, more=more | {"range": view(shown, metric)})
    return {"data": traces, "layout": layout(bytes_axis, value_axis, height=460)}


def view(points: Sequence[Point], metric: RecordedMetric) -> list[float] | None:
    """The part of the axis of values in which the better half of the points lies, and as much again below it.

    Without it one configuration that went astray, or one wide interval, would press all others onto a line.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    finals = [point.row.final_value or 0.0 for point in points]
    values = sorted(sign * (math.log10(final) if metric.logarithmic else final) for final in finals)
    if not values:
        return None
    best, middle = values[-1], values[len(values) // 2]
    worst = max(values[0], best - 3.0 * (best - middle)) if best > middle else values[0]
    margin = 0.1 * (best - worst) or 0.1 * abs(best) or 1.0
    return sorted((sign * (worst - margin), sign * (best + margin)))


def _marks(points: Sequence[Point], name: str, slot: int, cost: Cost, is_log: bool) -> dict[str, Any]:
    colour = line_style(slot).light
    finals = [point.row.final_value or 0.0 for point in points]
    halves = [point.row.final_value_within or 0.0 for point in points]
    # On a log axis a whisker must not reach 0.
    lower = [min(half, 0.9 * final) if is_log else half for half, final in zip(halves, finals, strict=True)]
    return {
        "type": "scatter", "mode": "markers", "name": escape(name),
        "x": [cost(point) for point in points], "y": finals,
        "error_y": {
            "type": "data", "symmetric": False, "array": halves, "arrayminus": lower, "thickness": 1, "width": 3,
            "color": colour,
        },
        "text": [_hover(point) for point in points], "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour}, "meta": {"slot": slot, "part": "line"},
        "marker": {"size": 9, "symbol": _symbol(slot), "color": colour},
    }  # fmt: skip


def _stairs(front: Sequence[Point], cost: Cost) -> dict[str, Any]:
    colour = line_style(0).light
    return {
        "type": "scatter", "mode": "lines+markers", "name": FRONTIER,
        "x": [cost(point) for point in front], "y": [point.row.final_value for point in front], "hoverinfo": "skip",
        "line": {"width": 1.6, "dash": "dot", "shape": "hv", "color": colour}, "meta": {"slot": 0, "part": "line"},
        "marker": {"size": 16, "symbol": "circle-open", "color": colour, "line": {"width": 1.5}},
    }  # fmt: skip


def _symbol(slot: int) -> str:
    return _SYMBOLS[(slot - 1) % len(_SYMBOLS)]


def _hover(point: Point) -> str:
    half = point.row.final_value_within
    within = "" if half is None else f" ± {metric_value(half)}"
    costs = (point.message_bytes, "message bytes"), (point.link_bytes, "on the link")
    return "<br>".join(
        (
            f"<b>{escape(point.row.method)}</b>", escape(point.name),
            f"{escape(point.row.metric.name)} {metric_value(point.row.final_value or 0.0)}{within}",
            *(f"{human_bytes(num_bytes)} {what}" for num_bytes, what in costs if num_bytes is not None),
        )
    )  # fmt: skip
