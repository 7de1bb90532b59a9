"""A speed-up as one self-contained HTML page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from thinwire.files import StrPath
from thinwire.report import Amount
from thinwire.report.axes import Scale, layout
from thinwire.report.document import Drawing, Page, figures, legend, section, write_document
from thinwire.report.formats import human_bits_per_second, human_seconds, metric_value, ratio_number, significant
from thinwire.report.styles import line_style
from thinwire.scaling.folders import RecordedSpeedup
from thinwire.scaling.points import Point, Prediction, SpeedupResult
from thinwire.scaling.summary import summarise_speedup
from thinwire.scaling.tables import best_table, points_table, scalings_table


def write_page(data: RecordedSpeedup, path: StrPath, *, inline: bool = False) -> None:
    """Write the page and beside it the figures' library, or both in one file; see :func:`write_document`.

    Raises:
        ConfigError: the file cannot be written; what was there is as it was.
    """
    write_document(page_of(data), path, inline=inline)


def page_of(data: RecordedSpeedup) -> Page:
    """What the page shows."""
    result = summarise_speedup(data)
    methods = [scaling.method for scaling in result.scalings]
    slots = {method: slot for slot, method in enumerate(methods)}
    names = [*methods, *(f"P = {count}" for count in data.workers)]
    drawings = [_against_workers(panel, result, slots, data.workers) for panel in _PANELS]
    drawings.append(_against_ratio(result, data.workers, len(methods)))
    sections = (
        section("figures", "Figures", legend(names) + figures(drawings) + _FIGURES_NOTE),
        section("limits", "How far it is linear", scalings_table(result.scalings, slots)),
        section("best", "Fewest seconds", best_table(result.best, slots)),
        section("points", "All numbers", points_table(result.points, slots)),
        section("command", "Command", f"<pre>{escape(data.first.command)}</pre>"),
    )
    title = f"thinwire: speed-up over {data.workers[-1]} workers on {data.first.task}"
    header = f'<p class="headline">{_headline(result, data.workers[-1])}</p>\n<p>{_setup(data)}</p>'
    return Page(title=title, header=header, body="\n".join(sections), drawings=drawings, num_names=len(names))


@dataclass(frozen=True, slots=True)
class _Panel:
    """A figure over the number of workers: what is measured of a point, and what is predicted."""

    title: str
    label: str
    measured: Callable[[Point], Amount | None]
    predicted: Callable[[Prediction, Point], float | None]
    is_bytes: bool = False
    rises: bool = False


_PANELS = (
    _Panel("steps against workers", "steps to target", lambda point: point.steps, lambda said, point: said.steps),
    _Panel(
        "speed-up in steps", "speed-up over one worker",
        lambda point: point.speedup_steps,
        # What one worker took is measured, also where what P take is predicted.
        lambda said, point: (
            None if point.speedup_steps is None or point.steps is None or point.workers == 1
            else point.speedup_steps.mean * point.steps.mean / said.steps
        ),
        rises=True,
    ),
    _Panel(
        "seconds against workers", "simulated seconds to target",
        lambda point: point.seconds,
        lambda said, point: said.seconds,
    ),
    _Panel(
        "message bytes against workers", "message bytes to target, per worker",
        lambda point: point.message_bytes,
        lambda said, point: None,
        is_bytes=True,
    ),
)  # fmt: skip
_TICKS = {"tickformat": "~g", "dtick": "D2"}
"""Between powers of ten only 2 and 5, as others overlap."""
_FIGURES_NOTE = (
    '<p class="note">All axes are logarithmic. Whiskers are 95 % intervals over seeds. Crosses are predicted by the '
    "model fitted to all other numbers of workers. The dashed line is a linear speed-up. In the last figure each line "
    "is a number of workers and each mark a method. Click a name to hide or show it.</p>"
)


def _headline(result: SpeedupResult, largest: int) -> str:
    """Who was fastest with the most workers, and how far each was linear."""
    linear = "; ".join(
        f"<code>{escape(each.method)}</code> {'at least ' if each.linear_until == largest else ''}{each.linear_until}"
        for each in result.scalings
        if each.linear_until is not None
    )
    sentences = []
    for best in result.best:
        if best.workers == largest and not best.family and best.point.seconds is not None:
            ratio = (
                "" if best.point.ratio is None else f", with {ratio_number(best.point.ratio)} times fewer bytes a step"
            )
            sentences.append(
                f"With {largest} workers <code>{escape(best.point.method)}</code> reached the target in the fewest "
                f"seconds, {significant(best.point.seconds.mean)}{ratio}."
            )
    if not sentences:
        sentences.append(f"No method reached the target in every run with {largest} workers.")
    if linear:
        sentences.append(f"The speed-up in steps is at least 80 % of the number of workers up to: {linear}.")
    return " ".join(sentences)


def _setup(data: RecordedSpeedup) -> str:
    first = data.first
    seeds = f"{len(first.seeds)} seeds" if len(first.seeds) > 1 else "one seed"
    batch = (
        "The batch of a worker" if first.batch_size is None else f"A worker's batch of {first.batch_size:,} examples"
    )
    network = ""
    if first.network is not None:
        network = (
            f" The links carry {human_bits_per_second(first.network.bandwidth_Bps)} with "
            f"{human_seconds(first.network.latency_s)} latency."
        )
    compute = "" if first.compute is None else f" A step computes for {human_seconds(first.compute.compute_s)}."
    sign = "≥" if first.metric.higher_is_better else "≤"
    return (
        f"{len(first.methods)} methods with {', '.join(map(str, data.workers))} workers to {escape(first.metric.name)} "
        f"{sign} {metric_value(data.target)}, {seeds}. {batch} stays the same, so that P workers "
        "see P times the examples in a step. Learning rate and optimizer were tuned anew with each number of workers."
        f"{network}{compute} Seconds are simulated."
    )


def _against_workers(panel: _Panel, result: SpeedupResult, slots: dict[str, int], workers: Sequence[int]) -> Drawing:
    traces: list[dict[str, Any]] = []
    for method, slot in slots.items():
        own = [point for point in result.points if point.method == method]
        measured = [(point.workers, amount) for point in own if (amount := panel.measured(point)) and amount.mean > 0]
        if measured:
            traces.append(_line([x for x, _ in measured], [y for _, y in measured], method, slot))
        predicted = [
            (point.workers, value)
            for point in own
            if point.prediction is not None and (value := panel.predicted(point.prediction, point))
        ]
        if predicted:
            traces.append(_crosses([x for x, _ in predicted], [y for _, y in predicted], method, slot))
    shown = layout(
        Scale(title="workers", more={"tickvals": list(workers), "ticktext": list(map(str, workers))}),
        Scale(title=panel.label, is_bytes=panel.is_bytes, more={} if panel.is_bytes else _TICKS),
    )
    if panel.rises:
        shown["shapes"] = [
            {"type": "line", "x0": 1, "y0": 1, "x1": workers[-1], "y1": workers[-1],
             "line": {"width": 1.5, "dash": "dash"}}
        ]  # fmt: skip
    return Drawing(title=panel.title, content={"data": traces, "layout": shown})


def _against_ratio(result: SpeedupResult, workers: Sequence[int], first_slot: int) -> Drawing:
    traces = []
    for place, count in enumerate(workers):
        own = [
            (point.ratio, point.seconds, point.method)
            for point in result.points
            if point.workers == count and point.ratio and point.seconds is not None and point.seconds.mean > 0
        ]
        own.sort(key=lambda each: each[0])
        if own:
            name, slot = f"P = {count}", first_slot + place
            line = _line([each[0] for each in own], [each[1] for each in own], name, slot)
            traces.append(line | {"text": [escape(each[2]) for each in own]})
    shown = layout(
        Scale(title="times fewer message bytes a step than f32", more=_TICKS),
        Scale(title="simulated seconds to target", more=_TICKS),
    )
    return Drawing(title="seconds against compression", content={"data": traces, "layout": shown})


def _line(x: Sequence[float], amounts: Sequence[Amount], name: str, slot: int) -> dict[str, Any]:
    style = line_style(slot)
    y = [amount.mean for amount in amounts]
    return {
        "type": "scatter", "mode": "lines+markers", "name": escape(name), "x": list(x), "y": y,
        "text": [escape(name)] * len(y),
        # On a log axis a whisker must not reach 0.
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3,
            "array": [amount.within or 0.0 for amount in amounts],
            "arrayminus": [min(amount.within or 0.0, 0.9 * amount.mean) for amount in amounts],
        },
        "hovertemplate": "%{text}<br>%{x:.4g}: %{y:.4g}<extra></extra>",
        "line": {"width": 2, "dash": style.dash, "color": style.light},
        "marker": {"size": 5, "color": style.light}, "meta": {"slot": slot, "part": "line"},
    }  # fmt: skip


def _crosses(x: Sequence[float], y: Sequence[float], name: str, slot: int) -> dict[str, Any]:
    colour = line_style(slot).light
    return {
        "type": "scatter", "mode": "markers", "name": escape(name), "x": list(x), "y": list(y),
        "text": [f"{escape(name)}, predicted {significant(value)}" for value in y],
        "hovertemplate": "%{text}<extra></extra>", "line": {"color": colour},
        "marker": {"size": 10, "symbol": "x-thin-open", "color": colour, "line": {"width": 1.5}},
        "meta": {"slot": slot, "part": "line"},
    }  # fmt: skip
