"""One row per method: how good it ended, and what it took to reach the target."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from statistics import fmean
from typing import Any

from thinwire.errors import ConfigError
from thinwire.report.intervals import half_width
from thinwire.report.records import Record, RecordedComparison
from thinwire.report.settings import RecordedMetric, RecordedSetting


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """What one method did, averaged over its runs (one per seed).

    Bytes are per worker. Fields "to target" are means over the runs that reached it, taken at the first
    evaluation at which the metric was at least as good as ``target``, without interpolation; None if no run
    reached it or there is no target. A field ``..._within`` is :func:`half_width` of the field before it: half of the
    95 % interval over seeds, None with fewer than two.

    Args:
        is_baseline: whether it is the dense method that ratios are against, see :func:`baseline_of`.
        setting: what the search took; None if unknown.
        num_runs: final runs, 0 if there was none.
        num_diverged: runs whose last evaluation was not finite.
        final_value: mean over the runs that did not diverge; None if there is none.
        against_dense: by how much it ended higher than the baseline, seed by seed; None without a common seed.
        final_top5: mean share of examples whose class is among the five likeliest; None where it is not measured.
        num_reached: runs that reached the target.
        link_bytes_to_target: bytes sent plus bytes received.
        message_ratio: the baseline's bytes to target divided by this method's ("times fewer").
        seconds_to_target: virtual for the simulator, measured for processes.
        message_bytes_per_step: cumulative message bytes divided by steps at the last evaluation.
        exchange: how messages are exchanged: the type of the exchange; None if unknown.
        all_reduces: whether an all-reduce serves, which adds messages on the way; None if unknown.
        union_density: share of entries that are not 0 in the last mean of worker 0.
        relative_error: ``||u - q||^2 / ||u||^2`` of messages q for u, the mean over those that were looked at: the
            normalised error that compression makes, whatever it does to the metric.
        computing_share: of a run's seconds, those in which a worker computes and does not wait.
    """

    method: str
    is_baseline: bool
    metric: RecordedMetric
    target: float | None
    setting: RecordedSetting | None
    num_runs: int
    num_diverged: int
    final_value: float | None
    final_value_within: float | None
    against_dense: float | None
    against_dense_within: float | None
    final_loss: float | None
    final_top5: float | None
    final_top5_within: float | None
    num_reached: int
    steps_to_target: float | None
    steps_to_target_within: float | None
    message_bytes_to_target: float | None
    message_bytes_to_target_within: float | None
    link_bytes_to_target: float | None
    link_bytes_to_target_within: float | None
    message_ratio: float | None
    link_ratio: float | None
    seconds_to_target: float | None
    seconds_to_target_within: float | None
    message_bytes_per_step: float | None
    exchange: str | None
    all_reduces: bool | None
    union_density: float | None
    relative_error: float | None
    computing_share: float | None

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
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "setting"}
        setting = asdict(self.setting) if self.setting else {"optimizer": None, "options": None, "lr": None}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in {**plain, **setting, "metric": self.metric.name}.items()
        }


ALL_REDUCES = ("AllReduce", "OrthonormalLines", "PowerIteration")
"""Exchanges whose messages are added on the way: the traffic of a worker does not grow with the number of workers."""


def diverged(run: Sequence[Record]) -> bool:
    """Whether the last evaluation of a run is not finite."""
    return not run[-1].finite


SLACK = 0.02
"""Part of the way from the start to the best value that a default target leaves out."""


def effective_target(data: RecordedComparison) -> float | None:
    """The target the user gave, or else one that every run of the dense methods reaches with a little to spare.

    Of each dense method's worst seed at its best evaluation the worst is taken, less 2 % of the way that training made
    to it from step 0 (on the metric's own axis): where a run happened to end plays no part, and what ends a hair
    lower is not left without a cost.

    None if no target was given and there is no dense method, or all its runs diverged.
    """
    if data.target is not None:
        return data.target
    runs = [run for method in data.dense for run in data.runs(method) if not diverged(run)]
    if not runs:
        return None
    best, worst = (max, min) if data.metric.higher_is_better else (min, max)
    reached = worst(best(record.value for record in run) for run in runs)
    start = worst(run[0].value for run in runs)
    if data.metric.logarithmic and start > 0 and reached > 0:
        return float(start**SLACK * reached ** (1 - SLACK))
    return reached + SLACK * (start - reached)


def baseline_of(data: RecordedComparison) -> str | None:
    """The dense method that ratios are against: the one that reached the target in the fewest seconds, then bytes.

    Before it comes to seconds, it is the one that reached it with the most seeds. None without dense methods.
    """
    target = effective_target(data)

    def cost(method: str) -> tuple[float, float, float]:
        reached = _reached(data, method, target)
        if not reached:
            return 0.0, 0.0, float(data.dense.index(method))
        return -len(reached), fmean(each.seconds for each in reached), fmean(each.message_bytes for each in reached)

    return min(data.dense, key=cost, default=None)


def summarise(data: RecordedComparison) -> list[ResultRow]:
    """One row per method, in the order of ``data.methods``."""
    target, baseline = effective_target(data), baseline_of(data)
    return [_row(data, method, target, baseline) for method in data.methods]


def refuse_met_at_start(rows: Iterable[ResultRow]) -> None:
    """Refuse a target that costs some method nothing: no ratio of what it cost says anything then.

    Raises:
        ConfigError: a method met the target before its first step, in every run that reached it.
    """
    for row in rows:
        if row.steps_to_target == 0.0:
            raise ConfigError(
                f"the target {row.target} of {row.metric.name} is met before the first step of {row.method}; give a "
                "--target that takes steps to reach"
            )


def _reached(data: RecordedComparison, method: str, target: float | None) -> list[Record]:
    """The first evaluation of every run that is at least as good as the target."""
    if target is None:
        return []
    good = data.metric.at_least_as_good
    firsts = (next((r for r in run if r.finite and good(r.value, target)), None) for run in data.runs(method))
    return [record for record in firsts if record is not None]


def _row(data: RecordedComparison, method: str, target: float | None, baseline: str | None) -> ResultRow:
    runs = data.runs(method)
    finals = [run[-1] for run in runs if not diverged(run)]
    values = [record.value for record in finals]
    top5 = [record.top5 for record in finals if math.isfinite(record.top5)]
    reached = _reached(data, method, target)
    dense = [] if baseline is None else _reached(data, baseline, target)
    ahead = [] if baseline is None else _ahead(finals, [run[-1] for run in data.runs(baseline) if not diverged(run)])
    moved = [run[-1].message_bytes / run[-1].step for run in runs if run[-1].step > 0]
    steps, message_bytes, link_bytes, seconds = (
        [float(amount(record)) for record in reached] for amount in (_STEPS, _MESSAGE_BYTES, _LINK_BYTES, _SECONDS)
    )
    exchange = data.exchanges.get(method, ())
    return ResultRow(
        method=method,
        is_baseline=method == baseline,
        metric=data.metric,
        target=target,
        setting=data.chosen.get(method),
        num_runs=len(runs),
        num_diverged=len(runs) - len(finals),
        final_value=_mean(values),
        final_value_within=half_width(values),
        against_dense=_mean(ahead),
        against_dense_within=half_width(ahead),
        final_loss=_mean([record.loss for record in finals]),
        final_top5=_mean(top5),
        final_top5_within=half_width(top5),
        num_reached=len(reached),
        steps_to_target=_mean(steps),
        steps_to_target_within=half_width(steps),
        message_bytes_to_target=_mean(message_bytes),
        message_bytes_to_target_within=half_width(message_bytes),
        link_bytes_to_target=_mean(link_bytes),
        link_bytes_to_target_within=half_width(link_bytes),
        message_ratio=_ratio(dense, reached, _MESSAGE_BYTES),
        link_ratio=_ratio(dense, reached, _LINK_BYTES),
        seconds_to_target=_mean(seconds),
        seconds_to_target_within=half_width(seconds),
        message_bytes_per_step=_mean(moved),
        exchange=exchange[0] if exchange else None,
        all_reduces=exchange[-1] in ALL_REDUCES if exchange else None,
        union_density=_mean(_known(run[-1].union_density for run in runs)),
        relative_error=_mean(_known(record.relative_error for run in runs for record in run)),
        computing_share=_mean(_known(run[-1].computing_s / run[-1].seconds for run in runs if run[-1].seconds > 0)),
    )


_STEPS, _MESSAGE_BYTES, _LINK_BYTES, _SECONDS = map(attrgetter, ("step", "message_bytes", "link_bytes", "seconds"))


def _ahead(finals: Sequence[Record], others: Sequence[Record]) -> list[float]:
    """By how much runs ended higher than those of the same seeds: what the seed did to both is not counted."""
    there = {record.seed: record.value for record in others}
    return [record.value - there[record.seed] for record in finals if record.seed in there]


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _ratio(baseline: list[Record], reached: list[Record], num_bytes: Callable[[Record], float]) -> float | None:
    if not baseline or not reached:
        return None
    own = fmean(num_bytes(record) for record in reached)
    # A target that step 0 already meets costs nothing; "times fewer" has no meaning there.
    return fmean(num_bytes(record) for record in baseline) / own if own > 0 else None
