"""The figures; imported late because it imports plotly."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean, median
from typing import Any

import plotly.graph_objects as go

from thinwire.report.axes import Scale, layout
from thinwire.report.curves import EPOCHS, Axis, Curve, axes, mean_curve, of_loss
from thinwire.report.formats import metric_value
from thinwire.report.records import Record, RecordedComparison
from thinwire.report.rows import effective_target
from thinwire.report.styles import line_style

# Above this many evaluations markers would merge into a thick line.
MAX_MARKERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One figure with its title and, where part of the data lies outside of the view, a note."""

    title: str
    figure: go.Figure
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthFigure:
    """Something that theorems bound, and the bound."""

    title: str
    value: Callable[[Record], float]
    bound: Callable[[Record], float]


HEALTH = (
    HealthFigure(
        title="norm of the memory", value=lambda record: record.memory_norm, bound=lambda record: record.memory_bound
    ),
    HealthFigure(
        title="distance of the mean from the virtual sequence",
        value=lambda record: record.virtual_distance,
        bound=lambda record: record.virtual_bound,
    ),
    HealthFigure(
        title="distance of local models from the shared one",
        value=lambda record: record.local_drift,
        bound=lambda record: record.drift_bound,
    ),
)
"""Root mean squares over workers."""


def panels(data: RecordedComparison, slots: Mapping[str, int] | None = None) -> list[Panel]:
    """Metric against message bytes, link bytes, steps and seconds, loss against samples and seconds, :data:`HEALTH`.

    Every trace carries ``meta`` = {"slot": that of the method, "part": "line" | "band" | "bound"}, by which the page's
    script colours and hides it.

    Args:
        data: what is drawn.
        slots: by method; its index among those of the comparison if not given.
    """
    slots = slots or {method: slot for slot, method in enumerate(data.methods)}
    health = (_health_panel(data, slots, each) for each in HEALTH)
    shown = axes(data)
    loss = [] if data.metric.name == "loss" else [_panel(of_loss(data), slots, axis) for axis in (EPOCHS, shown[-1])]
    return [*(_panel(data, slots, axis) for axis in shown), *loss, *filter(None, health)]


def _panel(data: RecordedComparison, slots: Mapping[str, int], axis: Axis) -> Panel:
    curves = [mean_curve(data, method, axis) for method in data.methods]
    figure = go.Figure()
    # All bands lie under all lines.
    for curve in curves:
        if curve.x and curve.low != curve.high:
            figure.add_trace(_band(curve, slots[curve.method]))
    for curve in curves:
        if curve.x:
            figure.add_trace(_line(curve, slots[curve.method], data.metric.name))
    y_range = _y_range(data, curves)
    _lay_out(
        figure,
        _x_scale(axis, [x for curve in curves for x in curve.x]),
        _y_scale(data, y_range, [y for curve in curves for y in curve.y]),
    )
    _add_target(figure, data)
    note = "" if y_range is None else "Values far worse than at the start are cut off."
    return Panel(title=f"{data.metric.name} against {axis.title}", figure=figure, note=note)


def _lay_out(figure: go.Figure, x: Scale, y: Scale) -> None:
    # The right margin holds the target's label, so that it never covers data.
    margin = {"l": 60, "r": 70, "t": 32, "b": 56}
    figure.update_layout({**layout(x, y), "template": "none", "margin": margin, "uirevision": "keep"})


def _health_panel(data: RecordedComparison, slots: Mapping[str, int], health: HealthFigure) -> Panel | None:
    """The mean over a method's runs at each step, on a log axis, with its bound; None if no method has any."""
    figure = go.Figure()
    shown: list[float] = []
    are_bounded = False
    for method in data.methods:
        steps, means = _means(data, method, health.value)
        if not steps:
            continue
        figure.add_trace(_health_line(method, slots[method], steps, means))
        shown += means
        steps, means = _means(data, method, health.bound)
        if steps:
            figure.add_trace(_bound_line(method, slots[method], steps, means))
            shown += means
            are_bounded = True
    if not shown:
        return None
    decades = {"exponentformat": "power", "nticks": max(5, _num_decades(shown))}
    _lay_out(
        figure,
        Scale(title="steps", logarithmic=False, more={"rangemode": "tozero"}),
        Scale(title="norm, log scale", more=decades),
    )
    note = "Thin dashed lines are the bounds of the theorems, with the largest gradients that were seen."
    return Panel(title=f"{health.title} against steps", figure=figure, note=note if are_bounded else "")


def _means(data: RecordedComparison, method: str, value: Callable[[Record], float]) -> tuple[list[int], list[float]]:
    """Steps, and the mean over a method's runs at each of them; only what is above 0 has a place on a log axis."""
    by_step: dict[int, list[float]] = {}
    for record in (record for run in data.runs(method) for record in run):
        if value(record) > 0:
            by_step.setdefault(record.step, []).append(value(record))
    return sorted(by_step), [fmean(by_step[step]) for step in sorted(by_step)]


def _health_line(method: str, slot: int, steps: list[int], values: list[float]) -> go.Scatter:
    style = line_style(slot)
    return go.Scatter(
        x=steps,
        y=values,
        mode="lines",
        line={"width": 2.2, "dash": style.dash, "color": style.light},
        marker={"color": style.light},
        customdata=[metric_value(value) for value in values],
        hovertemplate="<b>%{fullData.name}</b><br>step %{x}<br>%{customdata}<extra></extra>",
        name=escape(method),
        meta={"slot": slot, "part": "line"},
    )


def _bound_line(method: str, slot: int, steps: list[int], values: list[float]) -> go.Scatter:
    line = _health_line(method, slot, steps, values)
    line.update(
        line={"width": 1.2, "dash": "dash", "color": line_style(slot).light},
        hovertemplate="<b>%{fullData.name}</b><br>step %{x}<br>bound %{customdata}<extra></extra>",
        meta={"slot": slot, "part": "bound"},
    )
    return line


def _x_scale(axis: Axis, shown: Sequence[float]) -> Scale:
    more: dict[str, Any] = {}
    if axis.logarithmic and shown:
        more["nticks"] = _num_decades(shown)
    if not axis.logarithmic and not axis.is_bytes:
        more["rangemode"] = "tozero"
    return Scale(title=axis.label, logarithmic=axis.logarithmic, is_bytes=axis.is_bytes, more=more)


def _y_scale(data: RecordedComparison, view: list[float] | None, shown: Sequence[float]) -> Scale:
    more: dict[str, Any] = {"exponentformat": "power", "range": view}
    if data.metric.logarithmic and shown:
        target = effective_target(data)
        more["nticks"] = _num_decades([*shown, target] if target is not None and target > 0 else shown)
    return Scale(title=data.metric.name, logarithmic=data.metric.logarithmic, more=more)


def _num_decades(shown: Sequence[float]) -> int:
    """As many ticks as decades: plotly's own choice adds 2 and 5, whose labels overlap here."""
    return max(2, math.ceil(1.1 * (math.log10(max(shown)) - math.log10(min(shown)))))


def _band(curve: Curve, slot: int) -> go.Scatter:
    return go.Scatter(
        x=curve.x + curve.x[::-1],
        y=curve.high + curve.low[::-1],
        mode="lines",
        fill="toself",
        line={"width": 0},
        hoverinfo="skip",
        name=escape(curve.method),
        meta={"slot": slot, "part": "band"},
    )


def _line(curve: Curve, slot: int, metric: str) -> go.Scatter:
    style = line_style(slot)
    num = len(curve.x)
    sizes = [5 if num <= MAX_MARKERS else 0] * num
    symbols = ["circle"] * num
    if curve.diverged:
        sizes[-1], symbols[-1] = 10, "x"
    return go.Scatter(
        x=curve.x,
        y=curve.y,
        mode="lines+markers",
        line={"width": 2.2, "dash": style.dash, "color": style.light},
        marker={"size": sizes, "symbol": symbols, "color": style.light, "line": {"width": 0}},
        customdata=curve.hover,
        # The name is filled in by plotly, so that a method string is never read as a template.
        hovertemplate="<b>%{fullData.name}</b><br>step %{customdata[0]}<br>"
        + escape(metric).replace("%", "&#37;")
        + " %{customdata[1]}<br>%{customdata[2]} message bytes<br>%{customdata[3]} on the link"
        "<br>%{customdata[4]}" + ("<br>diverged later" if curve.diverged else "") + "<extra></extra>",
        name=escape(curve.method),
        meta={"slot": slot, "part": "line"},
    )


def _y_range(data: RecordedComparison, curves: Sequence[Curve]) -> list[float] | None:
    """A view that ends a little beyond the start, if a run went so far astray that the rest would be flat."""
    sign = 1.0 if data.metric.higher_is_better else -1.0

    def scale(value: float) -> float:
        return sign * (math.log10(value) if data.metric.logarithmic else value)

    def usable(value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not data.metric.logarithmic)

    starts = [scale(r.value) for r in data.results if r.step == 0 and usable(r.value)]
    shown = [scale(value) for curve in curves for value in (*curve.low, *curve.high)]
    if not starts or not shown:
        return None
    target = effective_target(data)
    start, best = median(starts), max(shown)
    if target is not None and usable(target):
        best = max(best, scale(target))
    span = best - start
    if span <= 0 or min(shown) >= start - span:
        return None
    ends = (sign * (start - 0.3 * span), sign * (best + 0.05 * span))
    return [min(ends), max(ends)]


def _add_target(figure: go.Figure, data: RecordedComparison) -> None:
    target = effective_target(data)
    if target is None or (data.metric.logarithmic and target <= 0):
        return
    figure.add_shape(
        type="line",
        xref="paper",
        x0=0,
        x1=1,
        yref="y",
        y0=target,
        y1=target,
        line={"width": 1.5, "dash": "dash"},
    )
    figure.add_annotation(
        # On a log axis a shape takes the value, but an annotation its logarithm.
        y=math.log10(target) if data.metric.logarithmic else target,
        yref="y",
        x=1,
        xref="paper",
        xanchor="left",
        xshift=4,
        align="left",
        showarrow=False,
        text=f"target<br>{metric_value(target)}",
        font={"size": 12},
    )
