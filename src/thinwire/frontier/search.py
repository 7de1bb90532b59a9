"""The least error for a number of bits, and the fewest bits for an error, over every registered compressor."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from thinwire.frontier.configurations import Configuration
from thinwire.frontier.families import all_families
from thinwire.frontier.ladders import Knob, OperatorFamily
from thinwire.frontier.points import Kind, Point, point_of, rank_by_bits, rank_by_error
from thinwire.frontier.problems import Problem

Ladder: TypeAlias = tuple[OperatorFamily, list[tuple[Knob, Point]]]
"""A family and those of its coarse knobs that can be measured."""
# Families that are refined for a budget, besides the best two of every operator: those that look best.
_NUM_REFINED = 16
_HALVINGS = 9
_GOLDEN_STEPS = 6


class Search:
    """Every family of every registered compressor on one problem.

    The first question measures each family along its coarse knobs; later ones only refine. Cost: about 5,000 to 15,000
    configurations, each one call on ``draws * n * d`` entries; num_measured tells.

    Args:
        problem: what is measured.
        families: what is searched; all by default.
        watch: is told after each family how many of how many are done.
    """

    def __init__(
        self, problem: Problem, families: Sequence[OperatorFamily] = (),
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:  # fmt: skip
        self.problem = problem
        self._points: dict[Configuration, Point | None] = {}
        self.ladders: list[Ladder] = []
        """What was measured along the coarse knobs of each family."""
        searched = families or all_families(problem)
        for number, family in enumerate(searched):
            self._climb(family)
            watch(number + 1, len(searched))

    @property
    def points(self) -> list[Point]:
        """Everything that is measured so far."""
        return [point for point in self._points.values() if point is not None and math.isfinite(point.error)]

    def has_operator(self, name: str) -> bool:
        """Whether a family of that operator is searched."""
        return any(family.operator == name for family, _ in self.ladders)

    def measure(self, configuration: Configuration) -> Point | None:
        """Any configuration, of a family or not; it is then among the points. None where the operator refuses."""
        return self._known(configuration, configuration.operator)

    def best(self, budget: float, kind: Kind = "any") -> Point | None:
        """The least error for at most ``budget`` bits an entry; none where nothing is so small."""
        per_operator = self.best_of_operators(budget, kind)
        return min(per_operator.values(), key=rank_by_error, default=None)

    def best_of_operators(self, budget: float, kind: Kind = "any") -> dict[str, Point]:
        """The least error for at most ``budget`` bits an entry, for each operator that gets there."""
        promising = []
        for number, (family, ladder) in enumerate(self.ladders):
            hope = hoped_error(ladder, budget, kind)
            if math.isfinite(hope):
                promising.append((hope, number, family, ladder))
        promising.sort(key=lambda entry: entry[:2])
        seen: dict[str, int] = {}
        for place, (_, _, family, ladder) in enumerate(promising):
            seen[family.operator] = seen.get(family.operator, 0) + 1
            if place < _NUM_REFINED or seen[family.operator] <= 2:
                self._spend(family, ladder, budget)
        best: dict[str, Point] = {}
        for point in self.points:
            if point.bits <= budget and point.is_of(kind):
                known = best.get(point.operator)
                if known is None or rank_by_error(point) < rank_by_error(known):
                    best[point.operator] = point
        return best

    def cheapest(self, error: float, kind: Kind = "any") -> Point | None:
        """The fewest bits for at most that error; none where nothing is so good."""

        def found() -> Point | None:
            good = (point for point in self.points if point.error <= error and point.is_of(kind))
            return min(good, key=rank_by_bits, default=None)

        coarse = found()
        if coarse is None:
            return None
        # What a family could still save lies between its knobs on both sides of the error.
        for family, ladder in self.ladders:
            if any(point.is_of(kind) for _, point in ladder):
                self._meet(family, ladder, error, lambda: found() or coarse)
        return found()

    def _climb(self, family: OperatorFamily) -> None:
        ladder = []
        for knob in family.knobs:
            point = self._at(family, knob)
            if point is not None:
                ladder.append((knob, point))
        self.ladders.append((family, ladder))

    def _at(self, family: OperatorFamily, knob: Knob) -> Point | None:
        configuration = family.make(knob)
        if configuration is None:
            return None
        return self._known(configuration, family.operator)

    def _known(self, configuration: Configuration, operator: str) -> Point | None:
        if configuration not in self._points:
            self._points[configuration] = point_of(self.problem, configuration, operator)
        return self._points[configuration]

    def _spend(self, family: OperatorFamily, ladder: list[tuple[Knob, Point]], budget: float) -> None:
        """Use up the budget, and look beside the best knob: more bits may mean more error (a sign for many entries)."""
        for low, high in _crossings(ladder, lambda point: point.bits <= budget):
            self._bisect(family, low, high, lambda point: point.bits <= budget)
        legal = [(knob, point) for knob, point in ladder if knob is not None and point.bits <= budget]
        if family.is_continuous and len(legal) > 2:
            place = min(range(len(legal)), key=lambda index: legal[index][1].error)
            if 0 < place < len(legal) - 1:
                self._golden(family, _number(legal[place - 1][0]), _number(legal[place + 1][0]))

    def _meet(
        self, family: OperatorFamily, ladder: list[tuple[Knob, Point]], error: float, best: Callable[[], Point]
    ) -> None:
        for low, high in _crossings(ladder, lambda point: point.error <= error):
            known = dict(ladder)
            if min(known[low].bits, known[high].bits) < best().bits:
                self._bisect(family, low, high, lambda point: point.error <= error)

    def _bisect(self, family: OperatorFamily, low: Knob, high: Knob, is_good: Callable[[Point], bool]) -> None:
        """Close in on the knob where ``is_good`` changes; it differs at ``low`` and ``high``."""
        good_low = is_good(_found(self._at(family, low)))
        for _ in range(_HALVINGS):
            middle = family.between(_number(low), _number(high))
            point = None if middle is None else self._at(family, middle)
            if point is None:
                return
            if is_good(point) == good_low:
                low = middle
            else:
                high = middle

    def _golden(self, family: OperatorFamily, low: float, high: float) -> None:
        """Narrow down the least error between two knobs."""
        low, high = math.log(low), math.log(high)
        ratio = (math.sqrt(5.0) - 1.0) / 2.0
        for _ in range(_GOLDEN_STEPS):
            inner = high - ratio * (high - low), low + ratio * (high - low)
            errors = [point.error if (point := self._at(family, math.exp(knob))) else math.inf for knob in inner]
            low, high = (low, inner[1]) if errors[0] <= errors[1] else (inner[0], high)


def hoped_error(ladder: list[tuple[Knob, Point]], budget: float, kind: Kind) -> float:
    """The error that a family may reach: on straight lines between its points, in logarithms."""
    points = sorted((p for _, p in ladder if p.is_of(kind) and math.isfinite(p.error)), key=lambda p: p.bits)
    below = [point for point in points if point.bits <= budget]
    if not below:
        return points[0].error * 2.0 if points and points[0].bits <= 2.0 * budget else math.inf
    best = min(point.error for point in below)
    above = next((point for point in points if point.bits > budget), None)
    if above is None or min(above.error, below[-1].error) <= 0.0:
        return best
    low = below[-1]
    part = math.log(budget / low.bits) / math.log(above.bits / low.bits)
    return min(best, math.exp((1.0 - part) * math.log(low.error) + part * math.log(above.error)))


def _crossings(ladder: list[tuple[Knob, Point]], is_good: Callable[[Point], bool]) -> list[tuple[Knob, Knob]]:
    """Neighbouring knobs of which one is good and the other is not."""
    return [
        (low, high) for (low, one), (high, other) in itertools.pairwise(ladder)
        if is_good(one) != is_good(other)
    ]  # fmt: skip


def _number(knob: Knob) -> float:
    assert knob is not None
    return knob


def _found(point: Point | None) -> Point:
    assert point is not None
    return point
