"""The tables of a speed-up, for a terminal and for the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thinwire.report.document import note
from thinwire.report.formats import MISSING, human_bytes, human_seconds, ratio_number, significant
from thinwire.report.grids import Grid, html_grid, print_grid
from thinwire.report.intervals import amount_text
from thinwire.report.styles import swatch
from thinwire.scaling.points import Best, Point, Prediction, Scaling, SpeedupResult

if TYPE_CHECKING:
    from rich.console import Console

POINTS_NOTE = (
    "Steps, seconds and bytes are those to the target, per worker, means over seeds. ± is half of the 95 % interval by "
    "Student's t; that of a speed-up adds the relative halves of both numbers in squares. Speed-ups are over one "
    "worker of the same method. Predictions are of a + b / P fitted to all other numbers of workers, so that for the "
    "largest it goes beyond what the fit saw; seconds are the predicted steps times what a step takes. The error is "
    "predicted / measured - 1. What a step takes is read from the records: compute + codec + communication."
)
SCALINGS_NOTE = (
    "Linear: a speed-up in steps of at least 80 % of P; ≥ where it is so up to the largest P. The model a + b / P "
    "is fitted to all numbers of workers but the largest: a steps that no worker makes fewer, b that P workers share. "
    "Both terms are equal at P = b / a."
)
BEST_NOTE = (
    "The method with the fewest seconds to the target, of all and of each family of methods that differ in options. "
    "The ratio is the bytes of an f32 gradient over the message bytes of a step."
)


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, with its lines in a terminal, and what a cell says of a point."""

    header: str
    text: Callable[[Point], str]


def point_columns() -> tuple[Column, ...]:
    """What is told of each method and number of workers."""
    return (
        Column("lr", lambda point: MISSING if point.row.setting is None else f"{point.row.setting.lr:g}"),
        Column("steps", _steps),
        Column("speed-up\nin steps", lambda point: amount_text(point.speedup_steps, significant)),
        Column("predicted\nsteps", lambda point: _predicted(point, lambda said: significant(said.steps))),
        Column("error", lambda point: _predicted(point, lambda said: _percent(said.steps_error))),
        Column("seconds", lambda point: amount_text(point.seconds, significant)),
        Column("speed-up\nin seconds", lambda point: amount_text(point.speedup_seconds, significant)),
        Column("predicted\nseconds", lambda point: _predicted(point, lambda said: significant(said.seconds))),
        Column("error in\nseconds", lambda point: _predicted(point, lambda said: _percent(said.seconds_error))),
        Column("message\nbytes", lambda point: amount_text(point.message_bytes, human_bytes)),
        Column("link\nbytes", lambda point: amount_text(point.link_bytes, human_bytes)),
        Column("a step", _step),
    )


def print_speedup(result: SpeedupResult, console: "Console") -> None:
    """Print the points, how far each method is linear, and what is best."""
    print_grid(_points(result.points), console)
    for title, grid in (
        ("how far the speed-up in steps is linear (at least 80 % of P)", _scalings(result.scalings)),
        ("fewest seconds to the target", _bests(result.best)),
    ):
        console.print()
        print_grid(grid, console, title)
    if remark := coarse_remark(result.points):
        console.print()
        console.print(remark, markup=False, highlight=False, soft_wrap=True)


def coarse_remark(points: Sequence[Point]) -> str:
    """What to do about evaluations that lie too far apart; empty if none do."""
    workers = dict.fromkeys(point.workers for point in points if point.is_coarse)
    if not workers:
        return ""
    return (
        f"With {', '.join(map(str, sorted(workers)))} workers evaluations lie further apart than a tenth of some steps "
        "to the target, which are told at an evaluation: give --evaluate-every less there."
    )


def points_table(points: Sequence[Point], slots: Mapping[str, int]) -> str:
    """The points as HTML."""
    return _html(_points(points), 1, slots) + note(f"{POINTS_NOTE} {coarse_remark(points)}".rstrip())


def scalings_table(scalings: Sequence[Scaling], slots: Mapping[str, int]) -> str:
    """How far methods are linear, as HTML."""
    return _html(_scalings(scalings), 0, slots) + note(SCALINGS_NOTE)


def best_table(best: Sequence[Best], slots: Mapping[str, int]) -> str:
    """What is best with each number of workers, as HTML."""
    return _html(_bests(best), 2, slots) + note(BEST_NOTE)


def _html(grid: Grid, method: int, slots: Mapping[str, int]) -> str:
    """The grid, whose methods are at that place."""
    return html_grid(grid, [swatch(slots[row[method]]) for row in grid.rows], method)


def _points(points: Sequence[Point]) -> Grid:
    shown = point_columns()
    rows = [(str(point.workers), point.method, *(column.text(point) for column in shown)) for point in points]
    return Grid(heads=("P", "method", *(column.header for column in shown)), rows=rows, num_names=2)


def _scalings(scalings: Sequence[Scaling]) -> Grid:
    heads = ("method", "linear to\nP, measured", "predicted", "a", "b", "equal at\nP = b / a")
    rows: list[tuple[str, ...]] = []
    for each in scalings:
        measured = MISSING
        if each.linear_until is not None:
            measured = f"{'≥ ' if each.linear_until == each.largest else ''}{each.linear_until}"
        said = (MISSING,) * 4
        if each.model is not None:
            limit, balance = each.model.linear_until(), each.model.balance()
            said = (
                _limit(limit), significant(each.model.transient_steps), significant(each.model.noise_steps),
                _limit(balance),
            )  # fmt: skip
        rows.append((each.method, measured, *said))
    return Grid(heads=heads, rows=rows)


def _bests(best: Sequence[Best]) -> Grid:
    heads = ("P", "family", "method", "times fewer\nbytes a step", "seconds")
    rows: list[tuple[str, ...]] = [
        (
            str(each.workers),
            each.family or "all",
            each.point.method,
            MISSING if each.point.ratio is None else ratio_number(each.point.ratio),
            amount_text(each.point.seconds, significant),
        )
        for each in best
    ]
    return Grid(heads=heads, rows=rows, num_names=2)


def _limit(value: float) -> str:
    return "no limit" if value == math.inf else significant(value)


def _steps(point: Point) -> str:
    if point.row.num_reached == 0 or point.row.steps_to_target is None:
        return MISSING
    if point.steps is None:
        return f"{point.row.num_reached} of {point.row.num_runs} runs"
    return amount_text(point.steps, significant)


def _predicted(point: Point, show: Callable[[Prediction], str]) -> str:
    return MISSING if point.prediction is None else show(point.prediction)


def _percent(share: float) -> str:
    return f"{round(100 * share):+d} %"


def _step(point: Point) -> str:
    if point.step is None:
        return MISSING
    parts = (point.step.compute_s, point.step.codec_s, point.step.communication_s)
    return f"{human_seconds(point.step.total_s)} = " + " + ".join(map(human_seconds, parts))
