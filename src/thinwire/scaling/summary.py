"""From the comparisons of a speed-up: what was measured, what the model says, and what is best."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from thinwire import report
from thinwire.experiments.settings import with_options
from thinwire.methods import num_exchanges, parse_method
from thinwire.report import Amount, RecordedComparison, ResultRow
from thinwire.scaling.folders import RecordedSpeedup
from thinwire.scaling.points import Best, Point, Prediction, Scaling, SpeedupResult, StepSeconds
from thinwire.theory import LINEAR_FROM, StepsToTarget, fit_steps_to_target


def summarise_speedup(data: RecordedSpeedup) -> SpeedupResult:
    """Measured and predicted steps, seconds and bytes.

    Raises:
        ConfigError: the target is met before the first step.
    """
    rows = {
        (row.method, count): row for count, found in data.comparisons.items() for row in report.summarise(found)
    }  # fmt: skip
    report.refuse_met_at_start(rows.values())
    points, scalings = [], []
    for method in data.first.methods:
        own = [_point(data.comparisons[count], rows[method, count], count) for count in data.workers]
        own = [_with_prediction(_with_speedup(point, own[0]), own) for point in own]
        points += own
        scalings.append(_scaling(method, own))
    return SpeedupResult(points=tuple(points), scalings=tuple(scalings), best=tuple(_best(points, data.workers)))


def _point(data: RecordedComparison, row: ResultRow, workers: int) -> Point:
    dense = None if data.num_parameters is None else 4.0 * data.num_parameters
    sent = row.message_bytes_per_step

    def amount(mean: float | None, within: float | None) -> Amount | None:
        return None if mean is None or not row.reliable else Amount(mean, within)

    return Point(
        method=row.method,
        workers=workers,
        row=row,
        step=_step_seconds(data, row.method),
        ratio=dense / sent if dense and sent else None,
        evaluated_every=max((run[1].step - run[0].step for run in data.runs(row.method) if len(run) > 1), default=0),
        steps=amount(row.steps_to_target, row.steps_to_target_within),
        seconds=amount(row.seconds_to_target, row.seconds_to_target_within),
        message_bytes=amount(row.message_bytes_to_target, row.message_bytes_to_target_within),
        link_bytes=amount(row.link_bytes_to_target, row.link_bytes_to_target_within),
    )


def _step_seconds(data: RecordedComparison, method: str) -> StepSeconds | None:
    """From the records: the simulator charged them, and few steps are enough to know them."""
    ends = [run[-1] for run in data.runs(method) if run[-1].step > 0]
    num_steps = sum(record.step for record in ends)
    if not num_steps:
        return None
    total_s = sum(record.seconds for record in ends) / num_steps
    compute_s = min(total_s, 0.0 if data.compute is None else data.compute.compute_s)
    setting = data.chosen.get(method)
    made = parse_method(method if setting is None else with_options(method, setting.options))
    exchanges = sum(num_exchanges(made, 0, record.step) for record in ends) / num_steps
    codec_s = min(total_s - compute_s, exchanges * max(data.codec_s.get(method, (0.0, 0.0))))
    rest_s = total_s - compute_s - codec_s
    # What sums round off is no communication.
    return StepSeconds(compute_s=compute_s, codec_s=codec_s, communication_s=rest_s if rest_s > 1e-9 * total_s else 0.0)


def _with_speedup(point: Point, alone: Point) -> Point:
    steps = None if point.steps is None or alone.steps is None else alone.steps.over(point.steps)
    seconds = None
    if point.seconds is not None and alone.seconds is not None and point.seconds.mean and alone.seconds.mean:
        seconds = alone.seconds.over(point.seconds)
    if point is alone:  # 1 by definition, whatever the interval
        steps, seconds = (each and Amount(1.0) for each in (steps, seconds))
    return replace(point, speedup_steps=steps, speedup_seconds=seconds)


def _with_prediction(point: Point, own: Sequence[Point]) -> Point:
    model = _model([each for each in own if each.workers != point.workers])
    if model is None or point.steps is None or point.seconds is None or point.step is None:
        return point
    steps = model.at(point.workers)
    seconds = steps * point.step.total_s
    return replace(
        point,
        prediction=Prediction(
            steps=steps,
            seconds=seconds,
            steps_error=steps / point.steps.mean - 1.0,
            # Nothing takes time where compute, codec and links are free.
            seconds_error=seconds / point.seconds.mean - 1.0 if point.seconds.mean else 0.0,
        ),
    )


def _model(points: Sequence[Point]) -> StepsToTarget | None:
    known: Mapping[int, float] = {point.workers: point.steps.mean for point in points if point.steps is not None}
    return None if len(known) < 2 else fit_steps_to_target(list(known), list(known.values()))


def _scaling(method: str, own: Sequence[Point]) -> Scaling:
    linear = [
        point.workers
        for point in own
        if point.speedup_steps is not None and point.speedup_steps.mean >= LINEAR_FROM * point.workers
    ]
    return Scaling(
        method=method, largest=own[-1].workers, linear_until=max(linear, default=None), model=_model(own[:-1])
    )


def _best(points: Sequence[Point], workers: Sequence[int]) -> list[Best]:
    """Over all methods, and in each family of several, with each number of workers."""
    methods = dict.fromkeys(point.method for point in points)
    names = [_family(method) for method in methods]
    families = ["", *dict.fromkeys(name for name in names if names.count(name) > 1)]
    found = []
    for count in workers:
        for family in families:
            reached = [
                (point.seconds.mean, place, point)
                for place, point in enumerate(points)
                if point.workers == count and point.seconds is not None and family in ("", _family(point.method))
            ]
            if reached:
                found.append(Best(workers=count, family=family, point=min(reached)[2]))
    return found


def _family(method: str) -> str:
    return method.partition(":")[0]
