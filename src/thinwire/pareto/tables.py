"""The tables of a family, for a terminal, for the page and for LaTeX, and what they say in a sentence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinwire.pareto.parts import COMBINED, parts_name
from thinwire.pareto.points import MEASURES, Allowed, Contestant, Measure, ParetoResult, Point
from thinwire.report.columns import columns, target_text
from thinwire.report.exports import latex_lines
from thinwire.report.formats import MISSING, TIMES, human_bytes, metric_value, ratio_number, significant
from thinwire.report.grids import Grid, print_grid
from thinwire.report.intervals import amount_text

if TYPE_CHECKING:
    from rich.console import Console

POINTS_NOTE = (
    "Bytes of a run are those of all its steps, per worker; ± is half of the 95 % interval over seeds, by Student's t. "
    "On the frontier: no other configuration ends at least as well with fewer bytes. Means are compared, so that "
    "neighbours closer than their intervals may change places with other seeds."
)
CONTEST_NOTE = (
    "Of the configurations of each kind the one that paid least until the target in every run. The ratio is what it "
    "paid over what the cheapest of all three paid; its interval adds the relative halves of both in squares. Beaten: "
    "the whole interval lies above 1."
)
_SHOWN = ("setting", "final", "against_dense", "steps", "message_bytes", "link_bytes", "seconds")
"""Columns of a comparison, by key."""
_VERDICTS = {
    "beaten": "beaten", "even": "as good as", "ahead": "better than all three", "missed": "missed the target",
    "unknown": "all three missed the target",
}  # fmt: skip


def print_pareto(result: ParetoResult, console: "Console") -> None:
    """Print the points, the best for each loss, and by message bytes all three against their parts."""
    points, contest = result.points, result.contest["message"]
    print_grid(points_grid(points), console, bold=frozenset(_places_on_frontier(points)))
    if result.allowed:
        console.print()
        print_grid(allowed_grid(result.allowed), console, "fewest message bytes that end at most so much worse")
    if any(each.cost is not None for each in contest):
        console.print()
        title = f"{MEASURES['message']} to {target_text(points[0].row)}: all three against their parts"
        print_grid(contest_grid(contest), console, title)
    console.print()
    for line in sentences(result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _places_on_frontier(points: Sequence[Point]) -> list[int]:
    return [place for place, point in enumerate(points) if point.on_frontier]


def points_grid(points: Sequence[Point]) -> Grid:
    """What is told of each configuration."""
    known = {column.key: column for column in columns([point.row for point in points])}
    shown = [known[key] for key in _SHOWN if key in known]
    heads = (
        "parts", "configuration", "on the\nfrontier", "message bytes\nof a run", "link bytes\nof a run",
        *(column.short_header for column in shown),
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [
        (
            point.name, point.row.method, _where(point),
            *(MISSING if each is None else human_bytes(each) for each in (point.message_bytes, point.link_bytes)),
            *(column.text(point.row) for column in shown),
        )
        for point in points
    ]  # fmt: skip
    return Grid(heads=heads, rows=rows, num_names=2)


def allowed_grid(allowed: Sequence[Allowed]) -> Grid:
    """The best configuration for each loss."""
    heads = ("at most\nworse", "parts", "configuration", "message bytes\nof a run", "times fewer\nthan dense", "final")
    rows: list[tuple[str, ...]] = []
    for each in allowed:
        point = each.point
        told = (MISSING,) * 5
        if point is not None:
            told = (
                point.name, point.row.method, human_bytes(point.message_bytes or 0.0),
                MISSING if each.ratio is None else ratio_number(each.ratio) + TIMES,
                metric_value(point.row.final_value or 0.0),
            )  # fmt: skip
        rows.append((loss_text(each), *told))
    return Grid(heads=heads, rows=rows, num_names=3)


def loss_text(allowed: Allowed) -> str:
    """How much worse than dense, as people say it."""
    match allowed.unit:
        case "factor":
            return f"{allowed.loss:g}{TIMES}"
        case "points":
            return f"{100 * allowed.loss:g} points"
    return metric_value(allowed.loss)


def contest_grid(contest: Sequence[Contestant]) -> Grid:
    """All three against their parts and pairs, by one measure."""
    measure: Measure = contest[0].measure
    heads = ("parts", "cheapest configuration", MEASURES[measure], "times as much\nas all three", "verdict")
    rows: list[tuple[str, ...]] = [
        (
            parts_name(each.parts),
            MISSING if each.point is None else each.point.row.method,
            amount_text(each.cost, significant if measure == "seconds" else human_bytes),
            MISSING if each.parts == COMBINED else amount_text(each.ratio, ratio_number),
            "" if each.parts == COMBINED and each.cost is not None else _VERDICTS[each.verdict],
        )
        for each in contest
    ]  # fmt: skip
    return Grid(heads=heads, rows=rows, num_names=2)


def sentences(result: ParetoResult) -> list[str]:
    """Whether all three beat their parts and pairs: by message bytes in full, by the other measures in short."""
    return [line for contest in result.contest.values() if (line := _sentence(contest, result.points[0]))]


def _sentence(contest: Sequence[Contestant], first: Point) -> str:
    combined = next((each for each in contest if each.parts == COMBINED), None)
    others = [each for each in contest if each.parts and each.parts != COMBINED]
    if combined is None or not others or first.row.target is None:
        return ""
    what, goal = MEASURES[combined.measure], target_text(first.row)
    if combined.cost is None or combined.point is None:
        return f"In {what} to {goal} no configuration of all three can be told: none reached it in every run."
    told = {
        verdict: [parts_name(each.parts) for each in others if each.verdict == verdict]
        for verdict in ("ahead", "even", "missed")
    }
    exceptions = [
        f"{', '.join(told[verdict])} {what_is_said}"
        for verdict, what_is_said in (
            ("ahead", "cost less"), ("even", "cannot be told apart by these seeds"), ("missed", "missed it"),
        )
        if told[verdict]
    ]  # fmt: skip
    lead = f"In {what} to {goal} all three"
    if not told["ahead"] and not told["even"]:
        missed = f" ({exceptions[0]})" if exceptions else ""
        return f"{lead} beat each part and each pair{missed}; cheapest: {combined.point.row.method}."
    return f"{lead} do not beat each part and pair: {'; '.join(exceptions)}; cheapest: {combined.point.row.method}."


def latex_points(points: Sequence[Point]) -> str:
    """The points as a LaTeX ``tabular``, those on the frontier bold."""
    grid = points_grid(points)
    order = (1, 0, *range(2, len(grid.heads)))
    cells = [[row[place] for place in order] for row in grid.rows]
    bold = {(line, 1) for line in _places_on_frontier(points)}
    return latex_lines([grid.heads[place].replace("\n", " ") for place in order], cells, bold)


def _where(point: Point) -> str:
    if point.on_frontier and point.on_link_frontier:
        return "both"
    return "message" if point.on_frontier else "link" if point.on_link_frontier else ""
