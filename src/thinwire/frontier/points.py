"""A configuration with its bits and its error."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from thinwire.frontier.configurations import Configuration
from thinwire.frontier.problems import Problem

Kind: TypeAlias = Literal["any", "unbiased", "contraction"]
KINDS: tuple[Kind, ...] = ("any", "unbiased", "contraction")


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration, measured.

    Args:
        operator: name of the outermost compressor.
        configuration: the compressor and the segments.
        bits: of the message for each entry, frame and all.
        error: ``||C(x) - x||^2 / ||x||^2``, mean over draws: omega of what is unbiased, else ``1 - gamma``.
        unbiased: so its traits say.
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


def point_of(problem: Problem, configuration: Configuration, operator: str) -> Point | None:
    """What a problem says of a configuration; none where the operator refuses its vectors.

    The error is infinite where the draws do not show it: of rare large errors they show none, and what cannot be
    measured is not chosen.
    """
    measured = problem.measure(configuration)
    if measured is None:
        return None
    each = [configuration.traits(numel) for numel in problem.numels]
    is_unbiased = all(traits.unbiased for traits in each)
    return Point(
        operator=operator, configuration=configuration, bits=measured.bits,
        error=measured.error if measured.is_typical or not is_unbiased else math.inf,
        unbiased=is_unbiased, contraction=all(traits.error < 1.0 for traits in each),
    )  # fmt: skip


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats in bits and in error, by ascending bits.

    Example:
        >>> from thinwire.compressors import Sign
        >>> one = Configuration(Sign())
        >>> made = [Point("Sign", one, bits, error, False, True) for bits, error in ((1, 0.5), (2, 0.5), (3, 0.1))]
        >>> [point.bits for point in pareto(made)]
        [1, 3]
    """
    front: list[Point] = []
    for point in sorted(points, key=rank_by_bits):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def rank_by_bits(point: Point) -> tuple[float, float, str]:
    """The fewest bits first."""
    return point.bits, point.error, str(point.configuration)


def rank_by_error(point: Point) -> tuple[float, float, str]:
    """The least error first."""
    return point.error, point.bits, str(point.configuration)
