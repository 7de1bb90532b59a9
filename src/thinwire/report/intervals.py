"""How far a mean over seeds may lie from the true one: intervals of Student's t."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, stdev

from thinwire.report.formats import MISSING

_QUANTILES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip
"""Of Student's t at 97.5 %, for 1 to 20 degrees of freedom."""


def half_width(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of Student's t around the mean of ``values``; None of fewer than two.

    ``t(0.975, n - 1) s / sqrt(n)`` with ``s`` the standard deviation (n - 1).

    Example:
        >>> round(half_width([0.88, 0.89, 0.90]), 4)       # 4.303 * 0.01 / sqrt(3)
        0.0248
    """
    count = len(values)
    return None if count < 2 else student_t(count - 1) * stdev(values) / math.sqrt(count)


def student_t(freedom: int) -> float:
    """The quantile at 97.5 % of Student's t, to four digits.

    Beyond 20 degrees of freedom by its expansion in ``1 / freedom`` (Abramowitz and Stegun 26.7.5).

    Example:
        >>> student_t(2), round(student_t(60), 4)
        (4.3027, 2.0003)
    """
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return z + first + second


@dataclass(frozen=True, slots=True)
class Amount:
    """A mean over seeds and half of its 95 % interval; None of fewer than two seeds."""

    mean: float
    within: float | None = None

    def over(self, other: "Amount") -> "Amount":
        """The ratio of the means; its interval has the relative halves of both, added in squares.

        Example:
            >>> Amount(100.0, 3.0).over(Amount(50.0, 2.0))
            Amount(mean=2.0, within=0.1)
        """
        mean = self.mean / other.mean
        if self.within is None or other.within is None:
            return Amount(mean)
        return Amount(mean, mean * math.hypot(self.within / self.mean, other.within / other.mean))


def amount_text(amount: Amount | None, show: Callable[[float], str]) -> str:
    """A mean and half of its interval as people read them, by ``show``.

    Example:
        >>> amount_text(Amount(2.0, 0.25), "{:.2f}".format), amount_text(Amount(2.0), "{:g}".format)
        ('2.00 ±0.25', '2')
    """
    if amount is None:
        return MISSING
    return show(amount.mean) + ("" if amount.within is None else f" ±{show(amount.within)}")
