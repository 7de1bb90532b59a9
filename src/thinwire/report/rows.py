"""One row per method: how good it ended, and what it took to reach the target."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, stdev
from typing import Any

from thinwire.report.records import Record, RecordedComparison, RecordedMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """What one method did, averaged over its runs (one per seed).

    Bytes are per worker. Fields "to target" are means over the runs that reached it, taken at the first
    evaluation at which the metric was at least as good as ``target``, without interpolation; None if no run
    reached it or there is no target.

    Args:
        lr: the learning rate of the final runs; None if unknown.
        num_runs: final runs, 0 if there was none.
        num_diverged: runs whose last evaluation was not finite.
        final_value: mean over the runs that did not diverge; None if there is none.
        final_spread: standard deviation (n - 1) over the same runs; None with fewer than two.
        num_reached: runs that reached the target.
        link_bytes_to_target: bytes sent plus bytes received.
        message_ratio: the baseline's bytes to target divided by this method's ("times fewer").
        seconds_to_target: virtual for the simulator, measured for processes.
        message_bytes_per_step: cumulative message bytes divided by steps at the last evaluation.
    """

    method: str
    is_baseline: bool
    metric: RecordedMetric
    target: float | None
    lr: float | None
    num_runs: int
    num_diverged: int
    final_value: float | None
    final_spread: float | None
    final_loss: float | None
    num_reached: int
    steps_to_target: float | None
    message_bytes_to_target: float | None
    link_bytes_to_target: float | None
    message_ratio: float | None
    link_ratio: float | None
    seconds_to_target: float | None
    message_bytes_per_step: float | None

    @property
    def diverged(self) -> bool:
        """Whether every run diverged."""
        return self.num_runs > 0 and self.num_diverged == self.num_runs

    @property
    def reliable(self) -> bool:
        """Whether every run reached the target."""
        return 0 < self.num_runs == self.num_reached

    def to_json(self) -> dict[str, Any]:
        """The fields in plain values, the metric by its name; what is NaN or infinite is null."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in {**plain, "metric": self.metric.name}.items()
        }


def diverged(run: Sequence[Record]) -> bool:
    """Whether the last evaluation of a run is not finite."""
    return not run[-1].finite


def effective_target(data: RecordedComparison) -> float | None:
    """The target the user gave, or else the worst final value of the baseline's runs, which each of them reaches.

    None if neither exists: no target was given and there is no baseline, or all its runs diverged.
    """
    if data.target is not None:
        return data.target
    if data.baseline is None:
        return None
    finals = [run[-1].value for run in data.runs(data.baseline) if not diverged(run)]
    worst = min if data.metric.higher_is_better else max
    return worst(finals) if finals else None


def summarise(data: RecordedComparison) -> list[ResultRow]:
    """One row per method, in the order of ``data.methods``."""
    target = effective_target(data)
    baseline = None if data.baseline is None else _reached(data, data.baseline, target)
    return [_row(data, method, target, baseline) for method in data.methods]


def _reached(data: RecordedComparison, method: str, target: float | None) -> list[Record]:
    """The first evaluation of every run that is at least as good as the target."""
    if target is None:
        return []
    good = data.metric.at_least_as_good
    firsts = (next((r for r in run if r.finite and good(r.value, target)), None) for run in data.runs(method))
    return [record for record in firsts if record is not None]


def _row(data: RecordedComparison, method: str, target: float | None, baseline: list[Record] | None) -> ResultRow:
    runs = data.runs(method)
    finals = [run[-1] for run in runs if not diverged(run)]
    values = [record.value for record in finals]
    reached = _reached(data, method, target)
    moved = [run[-1].message_bytes / run[-1].step for run in runs if run[-1].step > 0]
    return ResultRow(
        method=method,
        is_baseline=method == data.baseline,
        metric=data.metric,
        target=target,
        lr=data.chosen_lrs.get(method),
        num_runs=len(runs),
        num_diverged=len(runs) - len(finals),
        final_value=_mean(values),
        final_spread=stdev(values) if len(values) > 1 else None,
        final_loss=_mean([record.loss for record in finals]),
        num_reached=len(reached),
        steps_to_target=_mean([record.step for record in reached]),
        message_bytes_to_target=_mean([record.message_bytes for record in reached]),
        link_bytes_to_target=_mean([record.link_bytes for record in reached]),
        message_ratio=_ratio(baseline, reached, lambda record: record.message_bytes),
        link_ratio=_ratio(baseline, reached, lambda record: record.link_bytes),
        seconds_to_target=_mean([record.seconds for record in reached]),
        message_bytes_per_step=_mean(moved),
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _ratio(baseline: list[Record] | None, reached: list[Record], num_bytes: Callable[[Record], float]) -> float | None:
    if not baseline or not reached:
        return None
    own = fmean(num_bytes(record) for record in reached)
    # A target that step 0 already meets costs nothing; "times fewer" has no meaning there.
    return fmean(num_bytes(record) for record in baseline) / own if own > 0 else None
