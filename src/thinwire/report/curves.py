"""What the figures draw: their axes, and a mean over runs per method and step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from thinwire.report.formats import (
    human_bits_per_second,
    human_bytes,
    human_seconds,
    metric_value,
    significant,
)
from thinwire.report.records import Record, RecordedComparison
from thinwire.report.rows import diverged
from thinwire.report.settings import RecordedMetric

# A time axis is logarithmic once the slowest method takes this many times as long as the fastest.
LOG_TIME_FROM = 8.0
LOG_SCALE = ", log scale"
"""Behind the label of a logarithmic axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What a figure shows along x."""

    title: str
    value: Callable[[Record], float]
    logarithmic: bool
    label: str
    is_bytes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The mean over a method's runs at every step, and the least and greatest value of any run."""

    method: str
    steps: list[int]
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    hover: list[list[str]]
    diverged: bool


EPOCHS = Axis(
    title="samples", value=lambda record: record.epoch, logarithmic=False, label="epochs: times all samples were seen"
)


def axes(data: RecordedComparison) -> tuple[Axis, ...]:
    """Message bytes, link bytes, steps and seconds."""
    totals = [run[-1].seconds for method in data.methods for run in data.runs(method)]
    spans_decades = min(totals) > 0 and max(totals) >= LOG_TIME_FROM * min(totals)
    seconds = "measured wall seconds" if data.engine == "processes" else "virtual seconds"
    if data.network is not None and data.engine != "processes":
        bandwidth, latency = data.network.bandwidth_Bps, data.network.latency_s
        seconds += f" at {human_bits_per_second(bandwidth)}, {human_seconds(latency)}"
    return (
        Axis(
            title="message bytes",
            value=lambda record: record.message_bytes,
            logarithmic=True,
            label=f"message bytes per worker{LOG_SCALE}",
            is_bytes=True,
        ),
        Axis(
            title="link bytes",
            value=lambda record: record.link_bytes,
            logarithmic=True,
            label=f"bytes sent + received per worker{LOG_SCALE}",
            is_bytes=True,
        ),
        Axis(title="steps", value=lambda record: record.step, logarithmic=False, label="steps"),
        Axis(
            title="seconds",
            value=lambda record: record.seconds,
            logarithmic=spans_decades,
            label=f"{seconds}{LOG_SCALE}" if spans_decades else seconds,
        ),
    )


def mean_curve(data: RecordedComparison, method: str, axis: Axis) -> Curve:
    """The points of ``method`` that ``axis`` can show."""
    runs = data.runs(method)
    # A run that diverged would tear the mean; if all did, the curve ends where the first one broke.
    finished = [run for run in runs if not diverged(run)]
    by_step: dict[int, list[Record]] = {}
    for run in finished or runs:
        for record in run:
            by_step.setdefault(record.step, []).append(record)
    curve = Curve(method=method, steps=[], x=[], y=[], low=[], high=[], hover=[], diverged=bool(runs) and not finished)
    for step, records in sorted(by_step.items()):
        if not all(record.finite for record in records):
            if curve.diverged:
                break
            continue
        x, values = fmean(axis.value(r) for r in records), [r.value for r in records]
        # Zero bytes, and a suboptimality rounded to zero, have no place on a log axis.
        if (axis.logarithmic and x <= 0) or (data.metric.logarithmic and fmean(values) <= 0):
            continue
        mean = fmean(values)
        low = mean if data.metric.logarithmic and min(values) <= 0 else min(values)
        curve.steps.append(step)
        curve.x.append(x)
        curve.y.append(mean)
        curve.low.append(low)
        curve.high.append(max(values))
        curve.hover.append(_hover(step, records, values))
    return curve


def _hover(step: int, records: Sequence[Record], values: Sequence[float]) -> list[str]:
    spread = "" if len(values) < 2 else f" ({metric_value(min(values))} to {metric_value(max(values))})"
    return [
        f"{step:,}",
        metric_value(fmean(values)) + spread,
        human_bytes(fmean(r.message_bytes for r in records)),
        human_bytes(fmean(r.link_bytes for r in records)),
        f"{significant(fmean(r.seconds for r in records))} s",
    ]


def of_loss(data: RecordedComparison) -> RecordedComparison:
    """The same with the loss as its metric, for which there is no target."""
    return replace(
        data,
        metric=RecordedMetric(name="loss", higher_is_better=False, logarithmic=False),
        results=tuple(replace(record, value=record.loss) for record in data.results),
        target=None,
        dense=(),
    )
