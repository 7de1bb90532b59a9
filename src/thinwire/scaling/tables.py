"""The tables of a speed-up, for a terminal and for the page."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from thinwire.report import Amount, TerminalColumn, TerminalTable, print_fitted
from thinwire.report.document import name_cell, table
from thinwire.report.formats import MISSING, human_bytes, human_seconds, ratio_number, significant
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
        Column("speed-up\nin steps", lambda point: _amount(point.speedup_steps, significant)),
        Column("predicted\nsteps", lambda point: _predicted(point, lambda said: significant(said.steps))),
        Column("error", lambda point: _predicted(point, lambda said: _percent(said.steps_error))),
        Column("seconds", lambda point: _amount(point.seconds, significant)),
        Column("speed-up\nin seconds", lambda point: _amount(point.speedup_seconds, significant)),
        Column("predicted\nseconds", lambda point: _predicted(point, lambda said: significant(said.seconds))),
        Column("error in\nseconds", lambda point: _predicted(point, lambda said: _percent(said.seconds_error))),
        Column("message\nbytes", lambda point: _amount(point.message_bytes, human_bytes)),
        Column("link\nbytes", lambda point: _amount(point.link_bytes, human_bytes)),
        Column("a step", _step),
    )


def print_speedup(result: SpeedupResult, console: "Console") -> None:
    """Print the points, how far each method is linear, and what is best."""
    points = result.points
    names = [
        TerminalColumn(header="P", cells=[str(point.workers) for point in points], is_name=True),
        TerminalColumn(header="method", cells=[point.method for point in points], is_name=True),
    ]
    numbers = [TerminalColumn(header=each.header, cells=list(map(each.text, points))) for each in point_columns()]
    print_fitted(TerminalTable(columns=[*names, *numbers]), console)
    for title, heads, lines, num_names in (
        ("how far the speed-up in steps is linear (at least 80 % of P)", *_scalings(result.scalings), 1),
        ("fewest seconds to the target", *_bests(result.best), 2),
    ):
        console.print()
        cells = list(zip(*lines, strict=True)) or [()] * len(heads)
        columns = [
            TerminalColumn(header=head, cells=own, is_name=place < num_names)
            for place, (head, own) in enumerate(zip(heads, cells, strict=True))
        ]
        print_fitted(TerminalTable(columns=columns, title=title), console)
    if remark := coarse_remark(points):
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


def points_table(points: Sequence[Point], slots: dict[str, int]) -> str:
    """The points as HTML."""
    shown = point_columns()
    lines = [
        f"<tr>{name_cell(point.method, slots[point.method])}<td>{point.workers}</td>"
        + "".join(f"<td>{escape(column.text(point))}</td>" for column in shown)
        + "</tr>"
        for point in points
    ]
    return table(_head(["method", "P", *(column.header for column in shown)]), lines) + _note(
        f"{POINTS_NOTE} {coarse_remark(points)}".rstrip()
    )


def scalings_table(scalings: Sequence[Scaling], slots: dict[str, int]) -> str:
    """How far methods are linear, as HTML."""
    heads, rows = _scalings(scalings)
    lines = [f"<tr>{name_cell(row[0], slots[row[0]])}{_cells(row[1:])}</tr>" for row in rows]
    return table(_head(heads), lines) + _note(SCALINGS_NOTE)


def best_table(best: Sequence[Best], slots: dict[str, int]) -> str:
    """What is best with each number of workers, as HTML."""
    heads, rows = _bests(best)
    lines = [f"<tr>{name_cell(row[2], slots[row[2]])}{_cells((*row[:2], *row[3:]))}</tr>" for row in rows]
    return table(_head((heads[2], *heads[:2], *heads[3:])), lines) + _note(BEST_NOTE)


def _scalings(scalings: Sequence[Scaling]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
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
    return heads, rows


def _bests(best: Sequence[Best]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    heads = ("P", "family", "method", "times fewer\nbytes a step", "seconds")
    rows: list[tuple[str, ...]] = [
        (
            str(each.workers),
            each.family or "all",
            each.point.method,
            MISSING if each.point.ratio is None else ratio_number(each.point.ratio),
            _amount(each.point.seconds, significant),
        )
        for each in best
    ]
    return heads, rows


def _limit(value: float) -> str:
    return "no limit" if value == math.inf else significant(value)


def _steps(point: Point) -> str:
    if point.row.num_reached == 0 or point.row.steps_to_target is None:
        return MISSING
    if point.steps is None:
        return f"{point.row.num_reached} of {point.row.num_runs} runs"
    return _amount(point.steps, significant)


def _amount(amount: Amount | None, show: Callable[[float], str]) -> str:
    if amount is None:
        return MISSING
    return show(amount.mean) + ("" if amount.within is None else f" ±{show(amount.within)}")


def _predicted(point: Point, show: Callable[[Prediction], str]) -> str:
    return MISSING if point.prediction is None else show(point.prediction)


def _percent(share: float) -> str:
    return f"{round(100 * share):+d} %"


def _step(point: Point) -> str:
    if point.step is None:
        return MISSING
    parts = (point.step.compute_s, point.step.codec_s, point.step.communication_s)
    return f"{human_seconds(point.step.total_s)} = " + " + ".join(map(human_seconds, parts))


def _head(headers: Iterable[str]) -> str:
    return "<tr>" + "".join(f'<th scope="col">{escape(each)}</th>' for each in headers) + "</tr>"


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
