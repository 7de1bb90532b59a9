"""How the steps to a target fall with the number of workers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thinwire.errors import ConfigError

LINEAR_FROM = 0.8
"""A speed-up over P workers of at least this share of P is called linear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsToTarget:
    """``N(P) = a + b / P``: steps to a target with P workers, each with a batch of the same size.

    b counts the steps in which noise is averaged, of which P workers need a P-th. a counts those in which the
    compressor hands on what it held back and in which the start is forgotten, which no number of workers makes fewer.
    These are the two terms of the rates of SGD with a contraction and memory on strongly convex functions,
    ``sigma^2 / (P epsilon)`` and ``sqrt(kappa) / (gamma sqrt(epsilon))`` (Stich, Cordonnier and Jaggi 2018, Theorem
    2.4, for one worker; Basu et al. 2019 for P). The constants of theorems are far from what is measured, so that a
    and b are fitted.

    Args:
        transient_steps: a, at least 0.
        noise_steps: b, at least 0.

    Raises:
        ConfigError: one of them is below 0 or not finite, or both are 0.

    Example:
        >>> model = StepsToTarget(transient_steps=10.0, noise_steps=190.0)
        >>> model.at(1), model.at(19), model.speedup(19), model.linear_until()
        (200.0, 20.0, 10.0, 6.0)
    """

    transient_steps: float
    noise_steps: float

    def __post_init__(self) -> None:
        both = (self.transient_steps, self.noise_steps)
        if not all(0.0 <= each < math.inf for each in both) or not any(both):
            raise ConfigError(
                f"a transient of {self.transient_steps} and {self.noise_steps} steps of noise were given; both must be "
                "finite and at least 0, and one of them above 0"
            )

    def at(self, workers: float) -> float:
        """N(P)."""
        return self.transient_steps + self.noise_steps / workers

    def speedup(self, workers: float) -> float:
        """``N(1) / N(P)``: P without a transient, and never above ``1 + b / a``."""
        return self.at(1) / self.at(workers)

    def linear_until(self, share: float = LINEAR_FROM) -> float:
        """The P up to which ``N(1) / N(P) >= share P``; infinite without a transient.

        From ``(a + b) / (a P + b) >= share``: ``P <= ((a + b) / share - b) / a``.
        """
        a, b = self.transient_steps, self.noise_steps
        return math.inf if a == 0.0 else ((a + b) / share - b) / a

    def balance(self) -> float:
        """``b / a``: the P at which both terms are equal, from where more workers help less than by half."""
        return math.inf if self.transient_steps == 0.0 else self.noise_steps / self.transient_steps


def fit_steps_to_target(workers: Sequence[int], steps: Sequence[float]) -> StepsToTarget:
    """The a and b of :class:`StepsToTarget` that lie closest to what was measured.

    Non-negative least squares of the relative errors, ``min sum_i ((a + b / P_i) / N_i - 1)^2`` over ``a, b >= 0``:
    the scatter of steps to a target is a share of them, so that a point with many workers tells as much as one with
    few.

    Args:
        workers: P_i, at least two of which differ.
        steps: N_i, above 0; as many.

    Raises:
        ConfigError: too few points, not as many of the one as of the other, or a number out of range.

    Example:
        >>> model = fit_steps_to_target([1, 2, 4], [110.0, 60.0, 35.0])
        >>> round(model.transient_steps, 6), round(model.noise_steps, 6)
        (10.0, 100.0)
    """
    if len(workers) != len(steps) or len(set(workers)) < 2:
        raise ConfigError(
            f"{len(steps)} numbers of steps for the numbers of workers {list(workers)} were given; a fit takes one of "
            "each number of workers, of at least two"
        )
    if not all(each >= 1 for each in workers) or not all(0.0 < each < math.inf for each in steps):
        raise ConfigError(
            f"workers {list(workers)} and steps {list(steps)} were given; workers are at least 1, steps above 0 and "
            "finite"
        )
    transient = [1.0 / count for count in steps]
    noise = [1.0 / (size * count) for size, count in zip(workers, steps, strict=True)]
    aa, ab, bb = (_dot(*pair) for pair in ((transient, transient), (transient, noise), (noise, noise)))
    a, b, determinant = sum(transient), sum(noise), aa * bb - ab * ab
    found = (bb * a - ab * b) / determinant, (aa * b - ab * a) / determinant
    # Both columns are positive, so that where one of the two falls below 0 the other alone is above it.
    if found[0] < 0.0:
        found = 0.0, b / bb
    elif found[1] < 0.0:
        found = a / aa, 0.0
    return StepsToTarget(transient_steps=found[0], noise_steps=found[1])


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(left, right, strict=True))
