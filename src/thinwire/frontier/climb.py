"""A search from a configuration uphill: one number at a time, another one making up for what it costs."""

import math
from dataclasses import dataclass, field

from thinwire.compressors import Compressor
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.moves import Coordinate, coordinates, moved, switched
from thinwire.frontier.points import Kind, Point
from thinwire.frontier.search import Search

_FACTORS = (2.0, 1.3, 1.08, 1.02)
_LEAST_GAIN = 1e-4
_NUM_TRIES = 4
_NEAR = 0.99


@dataclass(frozen=True, slots=True)
class Aim:
    """What is wanted: the least error for a number of bits, or the fewest bits for an error.

    Args:
        limit: the most bits an entry, or the largest error.
        of_bits: whether the limit is of bits.
        kind: which operators may be chosen.
    """

    limit: float
    of_bits: bool
    kind: Kind

    def goal(self, point: Point) -> float:
        """What is to be small."""
        return point.error if self.of_bits else point.bits

    def held(self, point: Point) -> float:
        """What must not be above the limit."""
        return point.bits if self.of_bits else point.error

    def admits(self, point: Point) -> bool:
        """Whether it may be chosen."""
        return self.held(point) <= self.limit and point.is_of(self.kind) and math.isfinite(point.error)


@dataclass(slots=True)
class Climb:
    """Goes from ``best`` to better configurations, up to ``most`` measurements.

    Every number is made larger and smaller, in steps that become finer; what that costs or saves is made up for by each
    of the other numbers in turn, so that the limit is used up. Switches and named choices are tried too.

    Args:
        search: what measures.
        aim: what is wanted.
        best: where it begins.
        most: configurations that are tried.
    """

    search: Search
    aim: Aim
    best: Point
    most: int
    _num_tried: int = field(init=False, default=0)

    def run(self) -> Point:
        """The best that was found."""
        for factor in _FACTORS:
            while self._step(factor) and self._num_tried < self.most:
                pass
        return self.best

    def fit(self, compressor: Compressor, at: Coordinate, point: Point) -> bool:
        """Change one number until the limit is just met; whether that gave a better configuration.

        Args:
            compressor: what is changed.
            at: its number, as it is.
            point: what is known of it.
        """
        value, held, power = at.value, self.aim.held(point), 1.0
        found = False
        for _ in range(_NUM_TRIES):
            if not 0.0 < held < math.inf:
                break
            ratio = min(8.0, max(0.125, (0.5 * (1.0 + _NEAR) * self.aim.limit / held) ** (1.0 / power)))
            following = Coordinate(at.path, value).times(ratio)
            other = moved(compressor, at.path, following)
            if other is None or following <= 0 or (tried := self._measured(other)) is None:
                break
            found |= self._take(tried)
            now = self.aim.held(tried)
            if _NEAR * self.aim.limit <= now <= self.aim.limit or not 0.0 < now < math.inf:
                break
            slope = math.log(now / held) / math.log(following / value)
            if abs(slope) < 0.02:
                break
            value, held, power = following, now, math.copysign(min(4.0, max(0.1, abs(slope))), slope)
        return found

    def _step(self, factor: float) -> bool:
        """Try everything around the best; whether something was better."""
        begin = self.best
        compressor = begin.configuration.compressor
        if factor == _FACTORS[0] and any(self._reach(other, ()) for other in switched(compressor)):
            return True
        for at in coordinates(compressor):
            for each in (factor, 1.0 / factor):
                other = moved(compressor, at.path, at.times(each))
                if other is not None and self._reach(other, at.path):
                    return True
        return False

    def _reach(self, compressor: Compressor, changed: tuple[str, ...]) -> bool:
        """Try a configuration, and with it every other number fitted to the limit."""
        point = self._measured(compressor)
        if point is None or not point.is_of(self.aim.kind):
            return False
        if self._take(point):
            return True
        return any(self.fit(compressor, at, point) for at in coordinates(compressor) if at.path != changed)

    def _measured(self, compressor: Compressor) -> Point | None:
        if self._num_tried >= self.most:
            return None
        self._num_tried += 1
        return self.search.measure(Configuration(compressor, self.best.configuration.chunk))

    def _take(self, point: Point) -> bool:
        aim = self.aim
        if not aim.admits(point):
            return False
        is_better = not aim.admits(self.best) or aim.goal(point) < (1.0 - _LEAST_GAIN) * aim.goal(self.best)
        if is_better:
            self.best = point
        return is_better
