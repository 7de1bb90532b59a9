"""Operators made of two others: which two are worth a search."""

import math
from collections.abc import Iterable

from thinwire.frontier.climb import Aim, Climb
from thinwire.frontier.configurations import Configuration, compressor_classes, fields_of
from thinwire.frontier.ladders import Shape
from thinwire.frontier.moves import coordinates
from thinwire.frontier.points import Kind, Point
from thinwire.frontier.search import Ladder, Search, hoped_error

_NUM_FIRST_FAMILIES = 5
_NUM_SECONDS = 8
_NUM_PER_OPERATOR = 2
_LEAST_SHARE, _MOST_SHARE = 0.02, 0.9
_NUM_FITTED = 6
_MOST_OVER = 1.5
_TRIES_OF_A_FIT = 12


def composed(search: Search, budget: float, kind: Kind) -> list[Point]:
    """The most promising pairs of operators that fit into ``budget`` bits an entry, measured: a few, best first.

    The first is a sparsifier, from a few entries in full to many in short; the second is what seems best, on the whole
    vector, for the bits that are left. What joins them is every operator of two others that is searched: none of them,
    none found.
    """
    aim = Aim(budget, of_bits=True, kind=kind)
    joins = [cls for cls in compressor_classes() if _joins_two(cls) and search.has_operator(cls.__name__)]
    tried: list[Point] = []
    for first in _firsts(search, budget) if joins else ():
        for second in _seconds(search, budget - first.bits, kind):
            for cls in joins:
                joined = cls(first.configuration.compressor, second.configuration.compressor)
                point = search.measure(Configuration(joined))
                if point is not None and point.is_of(kind) and point.bits <= _MOST_OVER * budget:
                    tried.append(point)
    # What is over the budget will lose about as much when it is made to fit.
    ranked = sorted(dict.fromkeys(tried), key=lambda point: point.error * max(1.0, point.bits / budget) ** 2)
    found = []
    for point in ranked[:_NUM_FITTED]:
        fitting = Climb(search, aim, point, _TRIES_OF_A_FIT)
        compressor = point.configuration.compressor
        slot = Shape.of(type(compressor)).nested[1]
        for at in coordinates(compressor):
            if at.path[0] == slot:
                fitting.fit(compressor, at, point)
        if aim.admits(fitting.best):
            found.append(fitting.best)
    return sorted(found, key=lambda point: point.error)


def _joins_two(cls: type) -> bool:
    """Whether it is made of two operators and nothing else."""
    shape = Shape.of(cls)
    return len(shape.nested) == 2 and len(fields_of(cls)) == 2


def _firsts(search: Search, budget: float) -> list[Point]:
    """Members of the sparsifier that is best for the budget, with values from the exact to the shortest."""
    own: dict[str, list[Ladder]] = {}
    for family, ladder in search.ladders:
        if family.is_sparse:
            own.setdefault(family.operator, []).append((family, ladder))
    if not own:
        return []
    best = min(own, key=lambda name: min((hoped_error(ladder, budget, "any") for _, ladder in own[name]), default=0.0))
    families = own[best]
    last, steps = len(families) - 1, _NUM_FIRST_FAMILIES - 1
    chosen = [families[number * last // steps] for number in range(_NUM_FIRST_FAMILIES)]
    points = (point for _, ladder in chosen for _, point in ladder)
    shares = (_LEAST_SHARE * budget, _MOST_SHARE * budget)
    return list(dict.fromkeys(point for point in points if shares[0] <= point.bits <= shares[1]))


def _seconds(search: Search, budget: float, kind: Kind) -> list[Point]:
    """Of the families that seem best for the bits that are left the member that comes nearest to them."""
    wanted: Kind = "unbiased" if kind == "unbiased" else "any"
    hopes = []
    for number, (family, ladder) in enumerate(search.ladders):
        if all(point.configuration.chunk is None for _, point in ladder):
            hope = hoped_error(ladder, budget, wanted)
            if math.isfinite(hope):
                hopes.append((hope, number, family.operator, ladder))
    hopes.sort(key=lambda entry: entry[:2])
    counts: dict[str, int] = {}
    found: list[Point] = []
    for _, _, operator, ladder in hopes if budget > 0.0 else ():
        counts[operator] = counts.get(operator, 0) + 1
        if counts[operator] <= _NUM_PER_OPERATOR and not _joins_two(type(ladder[0][1].configuration.compressor)):
            found.append(_nearest((point for _, point in ladder if point.is_of(wanted)), budget))
        if len(found) == _NUM_SECONDS:
            break
    return found


def _nearest(points: Iterable[Point], budget: float) -> Point:
    return min(points, key=lambda point: abs(math.log(point.bits / budget)))
