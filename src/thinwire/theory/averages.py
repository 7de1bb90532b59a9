"""Weighted averages of iterates, made as they come."""

from dataclasses import dataclass
from typing import Literal

from thinwire.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAverage:
    """``xbar_t = (1 - rho_t) xbar_{t-1} + rho_t x_t`` is the mean of x_0 ... x_t with weights w.

    ``"quadratic"``: ``w_t = (shift + t)^2``, the average of the strongly convex theorems (Mem-SGD, local SGD,
    Qsparse-local-SGD); ``"uniform"``: ``w_t = 1``.

    Args:
        weights: which w.
        shift: a of the learning rate, at least 0; without meaning for uniform weights.

    Raises:
        ConfigError: unknown weights or a negative shift.

    Example:
        >>> average, mean = RunningAverage(weights="quadratic", shift=1.0), 0.0
        >>> for step, x in enumerate([3.0, 6.0]):
        ...     mean += average.rho(step) * (x - mean)
        >>> mean == (1 * 3.0 + 4 * 6.0) / 5
        True
    """

    weights: Literal["quadratic", "uniform"]
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.weights not in ("quadratic", "uniform"):
            raise ConfigError(f"weights = {self.weights!r} were given; they are 'quadratic' or 'uniform'")
        if not self.shift >= 0.0:
            raise ConfigError(f"shift = {self.shift} was given; it must be at least 0")

    def rho(self, step: int) -> float:
        """``w_t / (w_0 + ... + w_t)``: what the newest iterate, counted from 0, counts; 1 at step 0."""
        if self.weights == "uniform" or step == 0:
            return 1.0 / (step + 1)
        return (self.shift + step) ** 2 / quadratic_weight_sum(self.shift, step + 1)


def quadratic_weight_sum(shift: float, steps: int) -> float:
    """``S_T``: the sum of ``(a + t)^2`` over t = 0 ... T - 1, ``T/6 (2T^2 + 6aT - 3T + 6a^2 - 6a + 1)``.

    Example:
        >>> quadratic_weight_sum(2.0, 3) == 2**2 + 3**2 + 4**2
        True
    """
    a = shift
    return steps / 6 * (2 * steps**2 + 6 * a * steps - 3 * steps + 6 * a**2 - 6 * a + 1)
