"""What is told of a speed-up: each method with each number of workers, and how far it is linear."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from thinwire.report import Amount, ResultRow
from thinwire.theory import StepsToTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSeconds:
    """What a step takes on average, in simulated seconds.

    Args:
        compute_s: forward, backward and optimizer.
        codec_s: compressing and decoding, as charged to the slowest worker; 0 if it is free.
        communication_s: all the rest: on the links, and waiting for others.
    """

    compute_s: float
    codec_s: float
    communication_s: float

    @property
    def total_s(self) -> float:
        """All of a step."""
        return self.compute_s + self.codec_s + self.communication_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the model says of a number of workers that its fit did not see.

    Args:
        steps: to the target.
        seconds: to the target: the steps times what a step takes.
        steps_error: ``predicted / measured - 1``.
        seconds_error: the same of the seconds.
    """

    steps: float
    seconds: float
    steps_error: float
    seconds_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A method with a number of workers. Amounts are to the target, bytes per worker; None unless every run reached it.

    Args:
        row: its row of the comparison.
        step: the seconds of a step; None if none was made.
        ratio: bytes of an f32 gradient divided by the message bytes of a step; None if nothing was sent.
        evaluated_every: steps between two evaluations, by so many fewer it may have reached the target.
        speedup_steps: steps with one worker over steps with these; None if either missed the target.
        speedup_seconds: the same of the seconds.
        prediction: by a fit to all other numbers of workers; None if these are fewer than two.
    """

    method: str
    workers: int
    row: ResultRow
    step: StepSeconds | None
    ratio: float | None
    evaluated_every: int
    steps: Amount | None
    seconds: Amount | None
    message_bytes: Amount | None
    link_bytes: Amount | None
    speedup_steps: Amount | None = None
    speedup_seconds: Amount | None = None
    prediction: Prediction | None = None

    @property
    def is_coarse(self) -> bool:
        """Whether evaluations lie so far apart that they may hide a tenth of the steps."""
        return self.steps is not None and self.evaluated_every > 0.1 * self.steps.mean

    def to_json(self) -> dict[str, Any]:
        """Plain values for a line."""
        setting = self.row.setting
        taken = {"optimizer": None, "options": None, "lr": None} if setting is None else asdict(setting)
        parts = {
            "step": self.step, "steps": self.steps, "seconds": self.seconds, "message_bytes": self.message_bytes,
            "link_bytes": self.link_bytes, "speedup_steps": self.speedup_steps,
            "speedup_seconds": self.speedup_seconds, "prediction": self.prediction,
        }  # fmt: skip
        return {
            "kind": "point", "method": self.method, "workers": self.workers, **taken, "num_runs": self.row.num_runs,
            "num_reached": self.row.num_reached, "ratio": self.ratio,
            "evaluated_every": self.evaluated_every,
            **{name: None if part is None else asdict(part) for name, part in parts.items()},
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How far a method's speed-up in steps is linear.

    Args:
        method: a method string.
        largest: the largest number of workers that was measured.
        linear_until: the largest one whose speed-up is at least 80 % of it; None if one worker missed the target.
        model: fitted to all numbers of workers but the largest; None if fewer than two of them reached the target.
    """

    method: str
    largest: int
    linear_until: int | None
    model: StepsToTarget | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a line; what is infinite is null."""
        model, more = self.model, {}
        if model is not None:
            limits = {"predicted_linear_until": model.linear_until(), "predicted_balance": model.balance()}
            more = {**asdict(model), **{name: value if value < math.inf else None for name, value in limits.items()}}
        return {"kind": "scaling", "method": self.method, "linear_until": self.linear_until, **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The method with the fewest seconds to the target.

    Args:
        workers: with so many workers.
        family: among the methods of that name, which differ in options; empty for all methods.
        point: of the method.
    """

    workers: int
    family: str
    point: Point

    def to_json(self) -> dict[str, Any]:
        """Plain values for a line."""
        seconds = None if self.point.seconds is None else self.point.seconds.mean
        return {
            "kind": "best", "workers": self.workers, "family": self.family, "method": self.point.method,
            "ratio": self.point.ratio, "seconds": seconds,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedupResult:
    """All that is told: points by method and then workers, one scaling for each method, the best for each P."""

    points: tuple[Point, ...]
    scalings: tuple[Scaling, ...]
    best: tuple[Best, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, a line for each of them."""
        return [
            *(point.to_json() for point in self.points),
            *(scaling.to_json() for scaling in self.scalings),
            *(best.to_json() for best in self.best),
        ]
