"""Tables of points on an integer grid that are best for rounding Gaussian numbers at random."""

import functools
import math
from statistics import NormalDist


@functools.lru_cache(maxsize=32)
def rounding_table(bits: int, granularity: int, tail: float) -> tuple[int, ...]:
    """``2^bits`` of the integers 0 to ``granularity``, both ends among them, of least variance.

    An integer r stands for ``(2 r / granularity - 1) t`` with ``P(|z| > t) = tail`` for standard Gaussian z; a number
    within is rounded at random to one of its two neighbours in the table, unbiased, with the variance
    ``(z - a) (b - z)``. The least expected variance over all tables is found exactly, point by point.

    Example:
        >>> rounding_table(1, 5, 0.1), rounding_table(2, 6, 0.1)
        ((0, 5), (0, 2, 4, 6))
    """
    points = [(2.0 * r / granularity - 1.0) * quantile(tail) for r in range(granularity + 1)]
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, -1)}]
    for _ in range(2**bits - 1):
        reached: dict[int, tuple[float, int]] = {}
        for start, (cost, _) in best[-1].items():
            for stop in range(start + 1, granularity + 1):
                total = cost + rounding_variance(points[start], points[stop])
                if stop not in reached or total < reached[stop][0]:
                    reached[stop] = (total, start)
        best.append(reached)
    table = [granularity]
    for reached in reversed(best[1:]):
        table.append(reached[table[-1]][1])
    return tuple(reversed(table))


def quantile(tail: float) -> float:
    """The t of ``P(|z| > t) = tail`` for standard Gaussian z.

    Example:
        >>> round(quantile(0.05), 3)
        1.96
    """
    return NormalDist().inv_cdf(1.0 - tail / 2.0)


def rounding_variance(a: float, b: float) -> float:
    """The integral of ``(z - a) (b - z)`` from a to b over the Gaussian density.

    Example:
        >>> round(rounding_variance(-1.0, 1.0), 4)
        0.4839
    """
    normal = NormalDist()
    mass = normal.cdf(b) - normal.cdf(a)
    low, high = normal.pdf(a), normal.pdf(b)
    first = low - high
    second = mass + a * low - b * high
    return -a * b * mass + (a + b) * first - second


def largest_bits(granularity: int) -> int:
    """How many bits a code may have: a table has no more points than the grid.

    Example:
        >>> largest_bits(30)
        4
    """
    return int(math.log2(granularity + 1))
