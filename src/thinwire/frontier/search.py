"""The least error for a number of bits, and the fewest bits for an error, over every registered compressor."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from thinwire.compressors import QSGD, Compressor, Identity, Sign, TopK
from thinwire.frontier.configurations import Configuration, compressor_classes, describe
from thinwire.frontier.ladders import Family, Knob, inner_families, nested_families, nested_instances, plain_families
from thinwire.frontier.problems import Problem
from thinwire.layout import Segments
from thinwire.random import Key

Kind: TypeAlias = Literal["any", "unbiased", "contraction"]
KINDS: tuple[Kind, ...] = ("any", "unbiased", "contraction")
# Families that are refined for a budget, besides the best two of every operator: those that look best.
_NUM_REFINED = 16
_HALVINGS = 9
_GOLDEN_STEPS = 6


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration, measured.

    Args:
        operator: name of the outermost compressor.
        configuration: the compressor and the cut.
        bits: of the message for each entry, frame and all.
        error: ``||C(x) - x||^2 / ||x||^2``, mean over draws: omega of what is unbiased, else ``1 - gamma``.
        unbiased: so it is proven.
        contraction: its error is proven to be below 1 for every vector, so that error feedback is safe.
    """

    operator: str
    configuration: Configuration
    bits: float
    error: float
    unbiased: bool
    contraction: bool

    def is_of(self, kind: Kind) -> bool:
        """Whether it may be chosen where that kind is asked for."""
        return kind == "any" or (self.unbiased if kind == "unbiased" else self.contraction)


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats in bits and in error, by ascending bits.

    Example:
        >>> from thinwire.frontier.configurations import Configuration
        >>> one = Configuration(Sign())
        >>> made = [Point("Sign", one, bits, error, False, True) for bits, error in ((1, 0.5), (2, 0.5), (3, 0.1))]
        >>> [point.bits for point in pareto(made)]
        [1, 3]
    """
    front: list[Point] = []
    for point in sorted(points, key=_rank_by_bits):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


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
        self, problem: Problem, families: Sequence[Family] = (),
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:  # fmt: skip
        self.problem = problem
        self._points: dict[Configuration, Point | None] = {}
        self._ladders: list[tuple[Family, list[tuple[Knob, Point]]]] = []
        searched = families or all_families(problem)
        for number, family in enumerate(searched):
            self._climb(family)
            watch(number + 1, len(searched))

    @property
    def points(self) -> list[Point]:
        """Everything that is measured so far."""
        return [point for point in self._points.values() if point is not None and math.isfinite(point.error)]

    def best(self, budget: float, kind: Kind = "any") -> Point | None:
        """The least error for at most ``budget`` bits an entry; none where nothing is so small."""
        per_operator = self.best_of_operators(budget, kind)
        return min(per_operator.values(), key=_rank_by_error, default=None)

    def best_of_operators(self, budget: float, kind: Kind = "any") -> dict[str, Point]:
        """The least error for at most ``budget`` bits an entry, for each operator that gets there."""
        promising = []
        for number, (family, ladder) in enumerate(self._ladders):
            hope = _interpolated(ladder, budget, kind)
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
                if known is None or _rank_by_error(point) < _rank_by_error(known):
                    best[point.operator] = point
        return best

    def cheapest(self, error: float, kind: Kind = "any") -> Point | None:
        """The fewest bits for at most that error; none where nothing is so good."""

        def found() -> Point | None:
            good = (point for point in self.points if point.error <= error and point.is_of(kind))
            return min(good, key=_rank_by_bits, default=None)

        coarse = found()
        if coarse is None:
            return None
        # What a family could still save lies between its knobs on both sides of the error.
        for family, ladder in self._ladders:
            if any(point.is_of(kind) for _, point in ladder):
                self._meet(family, ladder, error, lambda: found() or coarse)
        return found()

    def _climb(self, family: Family) -> None:
        ladder = []
        for knob in family.knobs:
            point = self._at(family, knob)
            if point is not None:
                ladder.append((knob, point))
        self._ladders.append((family, ladder))

    def _at(self, family: Family, knob: Knob) -> Point | None:
        configuration = family.make(knob)
        if configuration is None:
            return None
        if configuration not in self._points:
            self._points[configuration] = self._point(family.operator, configuration)
        return self._points[configuration]

    def _point(self, operator: str, configuration: Configuration) -> Point | None:
        measured = self.problem.measure(configuration)
        if measured is None:
            return None
        traits = configuration.traits(self.problem.numel)
        # Of rare large errors the draws show none; what cannot be measured is not chosen.
        error = measured.error if measured.is_typical or not traits.unbiased else math.inf
        return Point(
            operator=operator, configuration=configuration, bits=measured.bits, error=error,
            unbiased=traits.unbiased, contraction=traits.error < 1.0,
        )  # fmt: skip

    def _spend(self, family: Family, ladder: list[tuple[Knob, Point]], budget: float) -> None:
        """Use up the budget, and look beside the best knob: more bits may mean more error (a sign for many entries)."""
        for low, high in _crossings(ladder, lambda point: point.bits <= budget):
            self._bisect(family, low, high, lambda point: point.bits <= budget)
        legal = [(knob, point) for knob, point in ladder if knob is not None and point.bits <= budget]
        if family.is_continuous and len(legal) > 2:
            place = min(range(len(legal)), key=lambda index: legal[index][1].error)
            if 0 < place < len(legal) - 1:
                self._golden(family, _number(legal[place - 1][0]), _number(legal[place + 1][0]))

    def _meet(self, family: Family, ladder: list[tuple[Knob, Point]], error: float, best: Callable[[], Point]) -> None:
        for low, high in _crossings(ladder, lambda point: point.error <= error):
            known = dict(ladder)
            if min(known[low].bits, known[high].bits) < best().bits:
                self._bisect(family, low, high, lambda point: point.error <= error)

    def _bisect(self, family: Family, low: Knob, high: Knob, is_good: Callable[[Point], bool]) -> None:
        """Close in on the knob where ``is_good`` changes; it differs at ``low`` and ``high``."""
        good_low = is_good(_known(self._at(family, low)))
        for _ in range(_HALVINGS):
            middle = family.between(_number(low), _number(high))
            point = None if middle is None else self._at(family, middle)
            if point is None:
                return
            if is_good(point) == good_low:
                low = middle
            else:
                high = middle

    def _golden(self, family: Family, low: float, high: float) -> None:
        """Narrow down the least error between two knobs."""
        low, high = math.log(low), math.log(high)
        ratio = (math.sqrt(5.0) - 1.0) / 2.0
        for _ in range(_GOLDEN_STEPS):
            inner = high - ratio * (high - low), low + ratio * (high - low)
            errors = [point.error if (point := self._at(family, math.exp(knob))) else math.inf for knob in inner]
            low, high = (low, inner[1]) if errors[0] <= errors[1] else (inner[0], high)


def all_families(problem: Problem) -> list[Family]:
    """Every family of every registered compressor, with what is worth nesting on these vectors."""
    classes = compressor_classes()
    plain = [family for cls in classes for family in plain_families(cls)]
    values = _nested_values(problem, [one for cls in classes for one in nested_instances(cls)])
    inner = [family for cls in classes for family in inner_families(cls)]
    return plain + [family for cls in classes for family in nested_families(cls, values, inner)]


def _nested_values(problem: Problem, known: list[Compressor]) -> list[Compressor]:
    """The quantizers that are worth nesting: on the front of the vectors, or of their largest 10 % or 1 %."""
    chosen: dict[str, Compressor] = {describe(one): one for one in (Identity(), Sign(), QSGD(levels=7, norm="max"))}
    bits: dict[str, float] = {}
    for share in (1.0, 0.1, 0.01):
        kept = [_largest(vector, share) for vector in problem.vectors]
        part = Problem([vector.unsqueeze(0) for vector in kept], draws=2)
        points = []
        for compressor in known:
            measured = part.measure(Configuration(compressor))
            if measured is not None and math.isfinite(measured.error):
                traits = compressor.traits(part.numel)
                bits.setdefault(describe(compressor), measured.bits)
                points.append(
                    Point(
                        "", Configuration(compressor), measured.bits, measured.error, traits.unbiased, traits.error < 1
                    )
                )
        for kind in KINDS:
            front = pareto(point for point in points if point.is_of(kind))
            chosen.update((describe(point.configuration.compressor), point.configuration.compressor) for point in front)
    plain, found = list(chosen)[:3], list(chosen)[3:]
    return [chosen[name] for name in (*plain, *sorted(found, key=lambda name: (bits[name], name)))]


def _largest(vector: Tensor, share: float) -> Tensor:
    if share == 1.0:
        return vector
    kept = TopK(density=share).compress(vector, Key(0), Segments.whole(vector.numel()))
    return kept.values.to_dense()


def _interpolated(ladder: list[tuple[Knob, Point]], budget: float, kind: Kind) -> float:
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


def _rank_by_bits(point: Point) -> tuple[float, float, str]:
    return point.bits, point.error, str(point.configuration)


def _rank_by_error(point: Point) -> tuple[float, float, str]:
    return point.error, point.bits, str(point.configuration)


def _number(knob: Knob) -> float:
    assert knob is not None
    return knob


def _known(point: Point | None) -> Point:
    assert point is not None
    return point
