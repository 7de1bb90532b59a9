"""How far from the optimum the strongly convex theorems let a weighted average of iterates be."""

import math
from dataclasses import dataclass

from thinwire.errors import ConfigError
from thinwire.theory.averages import quadratic_weight_sum
from thinwire.theory.step_sizes import local_sgd_shift, qsparse_shift


@dataclass(frozen=True, slots=True, kw_only=True)
class StronglyConvex:
    """The constants of an objective, and of where training begins.

    Args:
        smoothness: L, of every example's function.
        mu: strong convexity.
        gradient_norm: G, with ``E ||g||^2 <= G^2`` for the gradient of one batch of one worker.
        noise: sigma, with ``E ||g - grad f||^2 <= sigma^2`` for the same.
        distance: ``||x_0 - x*||``.

    Raises:
        ConfigError: a number out of range.
    """

    smoothness: float
    mu: float
    gradient_norm: float
    noise: float
    distance: float

    def __post_init__(self) -> None:
        if not 0.0 < self.mu <= self.smoothness < math.inf:
            raise ConfigError(f"mu = {self.mu}, L = {self.smoothness} were given; mu is above 0 and at most L")
        if not min(self.gradient_norm, self.noise, self.distance) >= 0.0:
            raise ConfigError(f"{self} was asked about; norms are at least 0")

    @property
    def kappa(self) -> float:
        """The condition number ``L / mu``."""
        return self.smoothness / self.mu


@dataclass(frozen=True, slots=True)
class Suboptimality:
    """A bound of ``E f(xbar_T) - f*`` as the sum of its three causes.

    Args:
        start: what is left of the distance at the beginning.
        noise: of the gradients; the part that more workers make smaller.
        compression: of what memories hold and of local models that drift apart.
    """

    start: float
    noise: float
    compression: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.start + self.noise + self.compression


def mem_sgd_suboptimality(problem: StronglyConvex, *, steps: int, shift: float, gamma: float) -> Suboptimality:
    """Mem-SGD on one worker, ``eta_t = 8 / (mu (a + t))``, weights ``(a + t)^2`` (Stich et al. 2018, Theorem 2.4).

    ``mu a^3 D^2 / (8 S) + 4 T (T + 2a) G^2 / (mu S) + 64 T (1 + 2L/mu) / (mu S) * M`` with
    ``M = 4 alpha / (alpha - 4) * G^2 / gamma^2``, of the memory; the shift suffices for
    ``alpha = a gamma - 2``.

    Args:
        problem: the constants.
        steps: T.
        shift: a, above ``6 / gamma``.
        gamma: contraction of the compressor, k/d for k of d entries.

    Raises:
        ConfigError: the shift is too small, or a number is out of range.

    Example:
        >>> easy = StronglyConvex(smoothness=1.0, mu=1.0, gradient_norm=1.0, noise=0.0, distance=1.0)
        >>> round(mem_sgd_suboptimality(easy, steps=10_000, shift=7.0, gamma=1.0).total, 6)
        0.001314
    """
    _check(steps, gamma)
    alpha = shift * gamma - 2.0
    if not alpha > 4.0:
        raise ConfigError(f"a shift of {shift} was given; for gamma = {gamma} it must be above {6.0 / gamma:g}")
    total = quadratic_weight_sum(shift, steps)
    mu, square = problem.mu, problem.gradient_norm**2
    memory = 4.0 * alpha / (alpha - 4.0) * square / gamma**2
    return Suboptimality(
        start=mu * shift**3 * problem.distance**2 / (8.0 * total),
        noise=4.0 * steps * (steps + 2.0 * shift) * square / (mu * total),
        compression=64.0 * steps * (1.0 + 2.0 * problem.kappa) / (mu * total) * memory,
    )


def local_sgd_suboptimality(
    problem: StronglyConvex, *, steps: int, shift: float, workers: int, max_gap: int = 1
) -> Suboptimality:
    """Local SGD, ``eta_t = 4 / (mu (a + t))``, weights ``(a + t)^2``, averaged over workers (Stich 2018, Theorem 2.2).

    ``mu a^3 D^2 / (2 S) + 4 T (T + 2a) sigma^2 / (mu K S) + 256 T G^2 H^2 L / (mu^2 S)``; SGD on K workers is
    ``H = 1``.

    Args:
        problem: the constants.
        steps: T.
        shift: a, above ``max(16 kappa, H)``.
        workers: K.
        max_gap: H.

    Raises:
        ConfigError: the shift is too small, or a number is out of range.

    Example:
        >>> easy = StronglyConvex(smoothness=1.0, mu=1.0, gradient_norm=0.0, noise=1.0, distance=0.0)
        >>> one, four = (local_sgd_suboptimality(easy, steps=9, shift=17.0, workers=w).total for w in (1, 4))
        >>> one / four
        4.0
    """
    _check(steps, 1.0)
    _check_shift(shift, local_sgd_shift(problem.kappa, max_gap))
    total = quadratic_weight_sum(shift, steps)
    mu = problem.mu
    return Suboptimality(
        start=mu * shift**3 * problem.distance**2 / (2.0 * total),
        noise=4.0 * steps * (steps + 2.0 * shift) * problem.noise**2 / (mu * workers * total),
        compression=256.0 * steps * (problem.gradient_norm * max_gap) ** 2 * problem.smoothness / (mu**2 * total),
    )


def qsparse_suboptimality(
    problem: StronglyConvex, *, steps: int, shift: float, workers: int, gamma: float, max_gap: int = 1
) -> Suboptimality:
    """Qsparse-local-SGD, ``eta_t = 8 / (mu (a + t))``, weights ``(a + t)^2`` (Basu et al. 2019, Theorem 2).

    ``L a^3 D^2 / (4 S) + 8 L T (T + 2a) A / (mu^2 S) + 128 L T B / (mu^3 S)`` with ``A = sigma^2 / R``,
    ``B = 4 ((3 mu / 2 + 3 L) C G^2 H^2 / gamma^2 + 3 L^2 G^2 H^2)``,
    ``C = 4 a gamma (1 - gamma^2) / (a gamma - 4 H)``.

    Args:
        problem: the constants.
        steps: T.
        shift: a, above ``max(4 H / gamma, 32 kappa, H)``.
        workers: R.
        gamma: contraction of the compressor, in (0, 1].
        max_gap: H.

    Raises:
        ConfigError: the shift is too small, or a number is out of range.

    Example:
        >>> easy = StronglyConvex(smoothness=1.0, mu=1.0, gradient_norm=0.0, noise=1.0, distance=0.0)
        >>> one, four = (qsparse_suboptimality(easy, steps=9, shift=65.0, workers=w, gamma=0.5).total for w in (1, 4))
        >>> one / four
        4.0
    """
    _check(steps, gamma)
    _check_shift(shift, qsparse_shift(problem.kappa, max_gap, gamma))
    total = quadratic_weight_sum(shift, steps)
    mu, smooth = problem.mu, problem.smoothness
    square = (problem.gradient_norm * max_gap) ** 2
    memory = 4.0 * shift * gamma * (1.0 - gamma**2) / (shift * gamma - 4.0 * max_gap)
    both = 4.0 * ((1.5 * mu + 3.0 * smooth) * memory * square / gamma**2 + 3.0 * smooth**2 * square)
    return Suboptimality(
        start=smooth * shift**3 * problem.distance**2 / (4.0 * total),
        noise=8.0 * smooth * steps * (steps + 2.0 * shift) * problem.noise**2 / (mu**2 * workers * total),
        compression=128.0 * smooth * steps * both / (mu**3 * total),
    )


def _check(steps: int, gamma: float) -> None:
    if steps < 1 or not 0.0 < gamma <= 1.0:
        raise ConfigError(f"T = {steps}, gamma = {gamma} were given; T is at least 1, gamma above 0 and at most 1")


def _check_shift(shift: float, least: float) -> None:
    if not shift > least:
        raise ConfigError(f"a shift of {shift} was given; the theorem needs one above {least:g}")
