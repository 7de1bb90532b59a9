"""What is told of a family: each configuration, the best for each loss, and the combination against its parts."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from thinwire.pareto.parts import parts_name
from thinwire.report import Amount, ResultRow

Measure: TypeAlias = Literal["message", "link", "seconds"]
Unit: TypeAlias = Literal["factor", "points", "value"]
MEASURES: dict[Measure, str] = {"message": "message bytes", "link": "link bytes", "seconds": "seconds"}
"""What a target is paid with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A configuration: what a whole run costs, and what it ends with.

    Args:
        row: its row of the comparison.
        parts: what it is made of.
        message_bytes: of a whole run, per worker; mean over runs, None if there was none.
        link_bytes: sent plus received.
        on_frontier: no other one ends at least as well with fewer message bytes, or better with as many.
        on_link_frontier: the same of the link bytes.
    """

    row: ResultRow
    parts: tuple[str, ...]
    message_bytes: float | None
    link_bytes: float | None
    on_frontier: bool = False
    on_link_frontier: bool = False

    @property
    def name(self) -> str:
        """What configurations of these parts are called."""
        return parts_name(self.parts)

    @property
    def competes(self) -> bool:
        """Whether it ran, and no run diverged."""
        return self.row.final_value is not None and not self.row.num_diverged and self.message_bytes is not None

    def to_target(self, measure: Measure) -> Amount | None:
        """What the target cost; None unless every run reached it."""
        row = self.row
        mean, within = {
            "message": (row.message_bytes_to_target, row.message_bytes_to_target_within),
            "link": (row.link_bytes_to_target, row.link_bytes_to_target_within),
            "seconds": (row.seconds_to_target, row.seconds_to_target_within),
        }[measure]
        return None if mean is None or not row.reliable else Amount(mean, within)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a line."""
        return {
            "kind": "point", **self.row.to_json(), "parts": self.name, "message_bytes": self.message_bytes,
            "link_bytes": self.link_bytes, "on_frontier": self.on_frontier, "on_link_frontier": self.on_link_frontier,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The configuration with the fewest message bytes that ends at most so much worse than the best dense method.

    Args:
        loss: how much worse, in the metric's units, or as a factor.
        unit: ``factor`` where the metric is logarithmic, ``points`` (told in hundredths) of a share, else ``value``.
        limit: the worst final value that is allowed.
        point: the configuration; None if none ends so well.
        ratio: how many times fewer message bytes than the dense method that gains are over; None without one.
    """

    loss: float
    unit: Unit
    limit: float
    point: Point | None
    ratio: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a line."""
        point = self.point
        return {
            "kind": "allowed", "loss": self.loss, "unit": self.unit, "limit": self.limit,
            "method": None if point is None else point.row.method, "parts": None if point is None else point.name,
            "message_bytes": None if point is None else point.message_bytes, "ratio": self.ratio,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """The cheapest configuration of some parts to the target, against the cheapest of all three.

    Args:
        measure: by what it is the cheapest.
        parts: what it is made of.
        point: the configuration; None if none of these parts reached the target in every run.
        all_three: what the target cost the cheapest of all three; None if none reached it.
    """

    measure: Measure
    parts: tuple[str, ...]
    point: Point | None
    all_three: Amount | None

    @property
    def cost(self) -> Amount | None:
        """What the target cost."""
        return None if self.point is None else self.point.to_target(self.measure)

    @property
    def ratio(self) -> Amount | None:
        """Its cost divided by that of all three: how many times more; None if either missed the target or paid 0."""
        if not self.cost or not self.all_three or not self.cost.mean or not self.all_three.mean:
            return None
        return self.cost.over(self.all_three)

    @property
    def verdict(self) -> Literal["beaten", "even", "ahead", "missed", "unknown"]:
        """What all three do to it: ``even`` where the interval of the ratio holds 1 (of one seed, where it is 1).

        Where either paid 0, as who reaches the target before the first message, the means alone decide.
        """
        if self.cost is None:
            return "missed"
        if self.all_three is None:
            return "unknown"
        ratio, half = self.ratio, 0.0 if self.ratio is None else self.ratio.within or 0.0
        over = self.cost.mean - self.all_three.mean if ratio is None else ratio.mean - 1.0
        if over > half:
            return "beaten"
        return "ahead" if over < -half else "even"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a line."""
        return {
            "kind": "contestant", "measure": self.measure, "parts": parts_name(self.parts),
            "method": None if self.point is None else self.point.row.method,
            "cost": None if self.cost is None else asdict(self.cost),
            "ratio": None if self.ratio is None else asdict(self.ratio), "verdict": self.verdict,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoResult:
    """All that is told: points in the order of the methods, what is best for each loss, all three against their parts.

    Args:
        contest: by measure: dense, the parts alone, in pairs, and last all three; of those that there are.
    """

    points: tuple[Point, ...]
    allowed: tuple[Allowed, ...]
    contest: dict[Measure, tuple[Contestant, ...]]

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, a line for each of them."""
        return [
            *(point.to_json() for point in self.points),
            *(each.to_json() for each in self.allowed),
            *(each.to_json() for own in self.contest.values() for each in own),
        ]


def frontier(points: Iterable[Point], cost: Callable[[Point], float | None], *, higher_is_better: bool) -> list[Point]:
    """The points that no other one beats in cost and final value, by ascending cost; equals are all kept."""
    sign = -1.0 if higher_is_better else 1.0
    ranked = sorted(
        (paid, sign * point.row.final_value, place, point)
        for place, point in enumerate(points)
        if point.competes and point.row.final_value is not None and (paid := cost(point)) is not None
    )
    front: list[Point] = []
    best: tuple[float, float] | None = None
    for paid, value, _, point in ranked:
        if best is None or value < best[1] or (paid, value) == best:
            front.append(point)
            best = paid, value
    return front
