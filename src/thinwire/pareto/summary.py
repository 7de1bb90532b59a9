"""From the records of a family to what is told of it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from operator import itemgetter
from statistics import fmean

from thinwire import report
from thinwire.pareto.folders import RecordedFamily
from thinwire.pareto.parts import COMBINED
from thinwire.pareto.points import MEASURES, Allowed, Contestant, Measure, ParetoResult, Point, Unit, frontier
from thinwire.report import Record, ResultRow
from thinwire.report.settings import RecordedMetric

_POINTS = (0.002, 0.005, 0.01, 0.02, 0.05)
"""Losses of a share, such as accuracy: .2 to 5 points."""
_FACTORS = (1.1, 1.5, 2.0, 5.0)
"""Of a metric on a log axis."""
_SHARES = (0.002, 0.005, 0.01, 0.02, 0.05)
"""Of the dense value, for other metrics."""


def summarise_family(data: RecordedFamily) -> ParetoResult:
    """The points with their frontier, the best for each loss, all three against their parts.

    Raises:
        ConfigError: the target is met before the first step.
    """
    comparison = data.comparison
    rows = report.summarise(comparison)
    report.refuse_met_at_start(rows)
    points = [_point(row, data.parts[row.method], comparison.runs(row.method)) for row in rows]
    up = comparison.metric.higher_is_better
    fronts = [
        {point.row.method for point in frontier(points, cost, higher_is_better=up)}
        for cost in (lambda point: point.message_bytes, lambda point: point.link_bytes)
    ]
    points = [
        replace(point, on_frontier=point.row.method in fronts[0], on_link_frontier=point.row.method in fronts[1])
        for point in points
    ]
    return ParetoResult(
        points=tuple(points),
        allowed=tuple(_allowed(points, comparison.metric)),
        contest={measure: _contest(points, measure) for measure in MEASURES},
    )


def _point(row: ResultRow, parts: tuple[str, ...], runs: Sequence[Sequence[Record]]) -> Point:
    ends = [run[-1] for run in runs]
    return Point(
        row=row,
        parts=parts,
        message_bytes=fmean(record.message_bytes for record in ends) if ends else None,
        link_bytes=fmean(record.link_bytes for record in ends) if ends else None,
    )


def _allowed(points: Sequence[Point], metric: RecordedMetric) -> list[Allowed]:
    """For each loss against the best dense method; none without one."""
    sign = 1.0 if metric.higher_is_better else -1.0
    dense = [point.row.final_value for point in points if not point.parts and point.competes]
    best = max((value for value in dense if value is not None), key=lambda value: sign * value, default=None)
    if best is None:
        return []
    over = next((point.message_bytes for point in points if point.row.is_baseline), None)
    unit: Unit = "factor" if metric.logarithmic and best > 0 else "points" if metric.is_share else "value"
    losses = {"factor": _FACTORS, "points": _POINTS, "value": tuple(abs(best) * share for share in _SHARES)}[unit]
    found = []
    for loss in losses:
        limit = (best / loss if metric.higher_is_better else best * loss) if unit == "factor" else best - sign * loss
        good = [point for point in points if point.competes and metric.at_least_as_good(_final(point), limit)]
        point = min(good, key=lambda each: (each.message_bytes or 0.0, -sign * _final(each)), default=None)
        ratio = over / point.message_bytes if over and point is not None and point.message_bytes else None
        found.append(Allowed(loss=loss, unit=unit, limit=limit, point=point, ratio=ratio))
    return found


def _final(point: Point) -> float:
    assert point.row.final_value is not None, "only points that compete are asked"
    return point.row.final_value


def _contest(points: Sequence[Point], measure: Measure) -> tuple[Contestant, ...]:
    subsets = [parts for number in range(len(COMBINED) + 1) for parts in combinations(COMBINED, number)]
    families = {parts: own for parts in subsets if (own := [point for point in points if point.parts == parts])}
    cheapest = {parts: _cheapest(own, measure) for parts, own in families.items()}
    best = cheapest.get(COMBINED)
    all_three = None if best is None else best.to_target(measure)
    return tuple(
        Contestant(measure=measure, parts=parts, point=point, all_three=all_three) for parts, point in cheapest.items()
    )


def _cheapest(points: Sequence[Point], measure: Measure) -> Point | None:
    """Of those that reached the target in every run; the first of equals."""
    costs = [(cost.mean, point) for point in points if (cost := point.to_target(measure)) is not None]
    return min(costs, key=itemgetter(0))[1] if costs else None
