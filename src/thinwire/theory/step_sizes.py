"""Learning rates that fall like ``1/t``, with the constants of the strongly convex theorems."""

from dataclasses import dataclass

from thinwire.errors import ConfigError

MEM_SGD = 8.0
"""Numerator of Mem-SGD's theorem: ``eta_t = 8 / (mu (a + t))``; its experiments take 2."""
LOCAL_SGD = 4.0
"""Numerator of local SGD's theorem: ``eta_t = 4 / (mu (a + t))``."""
QSPARSE_LOCAL_SGD = 8.0
"""Numerator of Qsparse-local-SGD's theorem (strongly convex, synchronous)."""
CHOCO = 4.0
"""Numerator of CHOCO-SGD's theorem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseTime:
    """``eta_t = numerator / (mu (shift + t))``, t = 0, 1, 2, ...

    Args:
        mu: strong convexity; the factor of L2 regularisation is a lower bound of it.
        shift: a, above 0. Too small a shift lets the first steps, and what the memory keeps of them, be huge.
        numerator: 8 or 4 in the theorems, see the constants of this module; 2 in Mem-SGD's experiments.

    Raises:
        ConfigError: a number that is not above 0.

    Example:
        >>> rate = InverseTime(mu=0.5, shift=8.0, numerator=MEM_SGD)
        >>> rate.at(0), rate.at(8), rate.first
        (2.0, 1.0, 2.0)
    """

    mu: float
    shift: float
    numerator: float

    def __post_init__(self) -> None:
        if not all(number > 0.0 for number in (self.mu, self.shift, self.numerator)):
            raise ConfigError(f"{self} was asked for; mu, shift and numerator must be above 0")

    def at(self, step: int) -> float:
        """The learning rate of step ``step``, counted from 0."""
        return self.numerator / (self.mu * (self.shift + step))

    @property
    def first(self) -> float:
        """``eta_0``: what to give as learning rate where the schedule is a factor ``shift / (shift + t)``."""
        return self.at(0)


def mem_sgd_shift(numel: int, k: float, alpha: float = 5.0) -> float:
    """The shift a of Mem-SGD's theorem for keeping k of d entries: ``(alpha + 2) d / k``, which always suffices.

    The paper's simple choice is ``alpha = 5``: ``7 d / k``; its experiments take ``d / k`` or ``10 d / k``.

    Args:
        numel: d.
        k: kept entries, above 0, at most d (below 1: one entry with that probability).
        alpha: above 4.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> mem_sgd_shift(2000, 1)
        14000.0
    """
    check_kept(numel, k, alpha)
    return (alpha + 2.0) * numel / k


def local_sgd_shift(kappa: float, max_gap: int) -> float:
    """``max(16 kappa, H)``: the shift of local SGD must be above it (Stich 2018).

    Example:
        >>> local_sgd_shift(kappa=10.0, max_gap=8)
        160.0
    """
    _check(kappa, max_gap, 1.0)
    return max(16.0 * kappa, float(max_gap))


def least_shift(gamma: float, max_gap: int) -> float:
    """``4 H / gamma``: with a smaller shift the memory is not known to stay in proportion to the learning rate.

    It is the part of :func:`qsparse_shift` that needs no constant of the objective.

    Args:
        gamma: contraction of the compressor, in (0, 1].
        max_gap: H.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> least_shift(0.01, 2)
        800.0
    """
    _check(1.0, max_gap, gamma)
    return 4.0 * max_gap / gamma


def qsparse_shift(kappa: float, max_gap: int, gamma: float) -> float:
    """``max(4 H / gamma, 32 kappa, H)``: the shift of Qsparse-local-SGD must be above it (Basu et al. 2019, Thm 2).

    Args:
        kappa: condition number L / mu, at least 1.
        max_gap: H.
        gamma: contraction of the compressor, in (0, 1]: 1 minus its error constant.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> qsparse_shift(kappa=10.0, max_gap=8, gamma=0.01)
        3200.0
    """
    _check(kappa, max_gap, gamma)
    return max(least_shift(gamma, max_gap), 32.0 * kappa, float(max_gap))


def check_kept(numel: int, k: float, alpha: float) -> None:
    """Raise :class:`ConfigError` where Mem-SGD's theorem says nothing of k kept entries of d."""
    if not (0.0 < k <= numel and alpha > 4.0):
        raise ConfigError(
            f"d = {numel}, k = {k}, alpha = {alpha} were given; k is above 0 and at most d, alpha above 4"
        )


def _check(kappa: float, max_gap: int, gamma: float) -> None:
    if not (kappa >= 1.0 and max_gap >= 1 and 0.0 < gamma <= 1.0):
        raise ConfigError(
            f"kappa = {kappa}, H = {max_gap}, gamma = {gamma} were given; kappa and H are at least 1, gamma is above 0 "
            "and at most 1"
        )
