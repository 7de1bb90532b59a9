"""The choice among what a search has found, on draws that the search has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from thinwire.frontier.climb import Aim, Climb
from thinwire.frontier.compositions import composed
from thinwire.frontier.points import Point, point_of, rank_by_bits, rank_by_error
from thinwire.frontier.problems import Measured, Problem
from thinwire.frontier.search import Search

NUM_CHOOSING, NUM_REPORTED = 16, 64
"""Draws on which finalists are compared, and on which the winner's numbers are measured."""
_NUM_FINALISTS, _MOST_COMPARED = 12, 60
_LEAST_STEP = 3e-3
_NUM_CLIMBED, _NUM_CLIMBED_FAR = 8, 3
_TRIES, _TRIES_FAR = 60, 200
_NINETY_FIVE = 1.96


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A point with its bits and its error on fresh draws.

    Args:
        point: bits and error are those of the fresh draws.
        low: lower end of the 95 % interval of the error.
        high: its upper end.
    """

    point: Point
    low: float
    high: float


def refined(search: Search, aim: Aim) -> Point | None:
    """The best of a search for what is wanted, after compositions and climbs from the best of every operator."""
    found = search.best(aim.limit, aim.kind) if aim.of_bits else search.cheapest(aim.limit, aim.kind)
    if found is None:
        return None
    seeds = composed(search, aim.limit if aim.of_bits else found.bits, aim.kind)
    seeds += _best_of_operators(search, aim)[:_NUM_CLIMBED]
    climbed = [Climb(search, aim, seed, _TRIES).run() for seed in seeds]
    admitted = sorted((point for point in (*climbed, found) if aim.admits(point)), key=aim.goal)
    far = [Climb(search, aim, seed, _TRIES_FAR).run() for seed in admitted[:_NUM_CLIMBED_FAR]]
    return min((*admitted, *far), key=aim.goal)


def confirmed(search: Search, aim: Aim, vectors: Sequence[Tensor]) -> Confirmed | None:
    """The best of a search for what is wanted, chosen and then measured on draws of their own.

    What was best of thousands on a few draws owes some of that to the draws. So the best dozen are compared on others,
    and the numbers of the one that is taken are measured on others again; on both it keeps within the limit.
    """
    cases = [vector.unsqueeze(0) for vector in vectors]
    choosing = Problem(cases, NUM_CHOOSING, "choosing")
    finalists: list[Point] = []
    for point in _ranked(search, aim):
        again = _again(choosing, point)
        if again is not None and aim.admits(again):
            finalists.append(again)
        if len(finalists) == _NUM_FINALISTS:
            break
    others = (_again(choosing, point) for point in _best_of_operators(search, aim)[:_NUM_FINALISTS])
    finalists += [point for point in others if point is not None and aim.admits(point)]
    reporting = Problem(cases, NUM_REPORTED, "reporting")
    for point in sorted(dict.fromkeys(finalists), key=aim.goal):
        measured, again = reporting.measure(point.configuration), _again(reporting, point)
        if measured is not None and again is not None and aim.admits(again):
            return Confirmed(again, *interval(measured))
    return None


def interval(measured: Measured) -> tuple[float, float]:
    """Where the error lies in 95 of 100 cases, as far as the spread of the draws tells.

    Example:
        >>> interval(Measured(1.0, 0.5, 1.0, error_deviation=0.1))
        (0.304, 0.696)
    """
    width = _NINETY_FIVE * measured.error_deviation
    return max(0.0, measured.error - width), measured.error + width


def _again(problem: Problem, point: Point) -> Point | None:
    return point_of(problem, point.configuration, point.operator)


def _best_of_operators(search: Search, aim: Aim) -> list[Point]:
    best: dict[str, Point] = {}
    for point in search.points:
        if aim.admits(point) and (point.operator not in best or aim.goal(point) < aim.goal(best[point.operator])):
            best[point.operator] = point
    return sorted(best.values(), key=aim.goal)


def _ranked(search: Search, aim: Aim) -> list[Point]:
    """Those that may be chosen, best first; of what is nearly equal three at most."""
    rank = rank_by_error if aim.of_bits else rank_by_bits
    found: list[Point] = []
    for point in sorted((point for point in search.points if aim.admits(point)), key=rank):
        if len(found) < 3 or aim.goal(point) > (1.0 + _LEAST_STEP) * aim.goal(found[-1]):
            found.append(point)
        if len(found) == _MOST_COMPARED:
            break
    return found
