"""What a message takes on a link, as a curve through what was measured."""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from thinwire.errors import ConfigError


class Way(StrEnum):
    """What processes do together on a link; every exchange is made of these."""

    TORCH_SUM = "torch's all-reduce"
    GATHER = "thinwire's gather"
    SUM = "thinwire's sum"


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds against bytes: straight lines between the points, the last one going on, and level before the first.

    Seconds never fall with bytes: what noise made fall is lifted to what came before it.

    Args:
        points: bytes, ascending, and seconds.

    Raises:
        ConfigError: no point, bytes that do not ascend, or seconds that are negative or not finite.

    Example:
        >>> curve = Curve(((0.0, 0.25), (1000.0, 0.5), (2000.0, 1.5)))
        >>> curve.seconds(500), curve.seconds(3000)
        (0.375, 2.5)
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.points]
        seconds = [each for _, each in self.points]
        if not sizes or sizes != sorted(set(sizes)) or not all(0 <= each < math.inf for each in seconds):
            raise ConfigError(
                f"a curve through {self.points} was asked for; give at least one point, bytes that ascend, and seconds "
                "from 0 on"
            )
        lifted, most = [], 0.0
        for size, each in self.points:
            most = max(most, each)
            lifted.append((size, most))
        object.__setattr__(self, "points", tuple(lifted))

    @property
    def fixed_s(self) -> float:
        """Seconds of the shortest message: latencies, and what a call takes."""
        return self.points[0][1]

    def seconds(self, num_bytes: float) -> float:
        """Seconds of a message of so many bytes."""
        if len(self.points) == 1 or num_bytes <= self.points[0][0]:
            return self.fixed_s
        place = min(bisect.bisect_left([size for size, _ in self.points], num_bytes), len(self.points) - 1)
        (first, first_s), (last, last_s) = self.points[place - 1 : place + 1]
        return first_s + (last_s - first_s) * (num_bytes - first) / (last - first)


@dataclass(frozen=True, slots=True)
class LinkCurves:
    """What each way of communicating takes, after the link was idle for a while.

    TCP begins slowly again on a connection that was idle for longer than its retransmission timeout, so that a message
    after many local steps takes longer than one after a single step.

    Args:
        curves: of each way, by the seconds that the link was idle before, ascending.

    Example:
        >>> warm, cold = Curve(((0.0, 1.0),)), Curve(((0.0, 3.0),))
        >>> link = LinkCurves({Way.GATHER: ((0.0, warm), (1.0, cold))})
        >>> link.seconds(Way.GATHER, 100, idle_s=0.5), link.seconds(Way.GATHER, 100, idle_s=9.0)
        (2.0, 3.0)
    """

    curves: Mapping[Way, tuple[tuple[float, Curve], ...]]

    def at(self, way: Way, idle_s: float) -> Curve:
        """The curve after so many idle seconds: between two measured ones in proportion, else the nearest.

        Raises:
            ConfigError: that way was not measured.
        """
        known = self.curves.get(way, ())
        if not known:
            raise ConfigError(f"{way.value} was not measured on this link; measured: {', '.join(self.curves) or '-'}")
        place = bisect.bisect_left([idle for idle, _ in known], idle_s)
        if place == 0 or place == len(known):
            return known[min(place, len(known) - 1)][1]
        (before, first), (after, last) = known[place - 1 : place + 1]
        share = (idle_s - before) / (after - before)
        return _between(first, last, share)

    def seconds(self, way: Way, num_bytes: float, idle_s: float = 0.0) -> float:
        """Seconds of a message of so many bytes."""
        return self.at(way, idle_s).seconds(num_bytes)


def _between(first: Curve, last: Curve, share: float) -> Curve:
    sizes = sorted({size for curve in (first, last) for size, _ in curve.points})
    return Curve(
        tuple((size, (1 - share) * first.seconds(size) + share * last.seconds(size)) for size in sizes)
    )  # fmt: skip


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which about so large a share of them lies, on a straight line between neighbours.

    Example:
        >>> quantile([3.0, 1.0, 2.0], 0.5), quantile([1.0, 2.0], 0.25)
        (2.0, 1.25)
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def around_mean(values: Sequence[float], share: float) -> float:
    """The mean, moved by as much as that quantile lies from the median.

    Long training takes the mean of its steps. Of processors that run at two speeds in turn, the median is one of them.

    Example:
        >>> around_mean([1.0, 1.0, 4.0], 0.5), around_mean([1.0, 2.0, 3.0], 1.0)
        (2.0, 3.0)
    """
    return fmean(values) + quantile(values, share) - quantile(values, 0.5)
