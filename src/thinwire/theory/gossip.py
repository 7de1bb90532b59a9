"""Rates of compressed gossip."""

import math
from collections.abc import Iterable
from typing import Literal

from thinwire.errors import ConfigError


def choco_consensus_step(delta: float, beta: float, omega: float) -> float:
    """CHOCO's proven consensus step gamma (Koloskova et al. 2019, Thm 2).

    ``gamma = delta^2 omega / (16 delta + delta^2 + 4 beta^2 + 2 delta beta^2 - 8 delta omega)``

    Proven, and tiny: 3.5e-4 on a ring of 8 with the top 10 %, where .05 to .2 work and .4 diverges. Tune it.

    Args:
        delta: spectral gap ``1 - |lambda_2(W)|`` of the mixing matrix, in (0, 1].
        beta: ``||I - W||_2``, 0 to 2.
        omega: contraction of the compressor, in (0, 1].

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> choco_consensus_step(delta=1.0, beta=1.0, omega=1.0)
        0.06666666666666667
    """
    _check(delta, omega)
    if not 0.0 <= beta <= 2.0:
        raise ConfigError(f"beta = {beta} was given; ||I - W|| is 0 to 2")
    return delta**2 * omega / (16 * delta + delta**2 + 4 * beta**2 + 2 * delta * beta**2 - 8 * delta * omega)


def choco_gossip_factor(delta: float, omega: float) -> float:
    """``1 - delta^2 omega / 82``: what a round of CHOCO-Gossip leaves of the error, with the proven consensus step.

    Example:
        >>> choco_gossip_factor(delta=1.0, omega=0.82)
        0.99
    """
    _check(delta, omega)
    return 1.0 - delta**2 * omega / 82.0


def choco_shift(delta: float, omega: float, kappa: float) -> float:
    """``max(410 / (delta^2 omega), 16 kappa)``: the least shift of CHOCO-SGD's ``eta_t = 4 / (mu (a + t))``.

    Example:
        >>> choco_shift(delta=1.0, omega=0.1, kappa=10.0)
        4100.0
    """
    _check(delta, omega)
    if not kappa >= 1.0:
        raise ConfigError(f"kappa = {kappa} was given; a condition number is at least 1")
    return max(410.0 / (delta**2 * omega), 16.0 * kappa)


def topology_gap(topology: Literal["ring", "torus", "complete"], workers: int) -> float:
    """The spectral gap of uniform mixing: ring (weights 1/3), square torus (1/5), complete (1/P).

    Args:
        topology: which graph.
        workers: P; at least 3 on a ring, the square of at least 3 on a torus.

    Raises:
        ConfigError: an unknown topology, or a number of workers that it does not have.

    Example:
        >>> round(topology_gap("ring", 8), 3)
        0.195
    """
    side = math.isqrt(max(workers, 0))
    if topology == "complete" and workers >= 1:
        return 1.0
    if topology == "ring" and workers >= 3:
        return _gap((1 + 2 * math.cos(2 * math.pi * j / workers)) / 3 for j in range(1, workers))
    if topology == "torus" and side >= 3 and side**2 == workers:
        waves = [2 * math.cos(2 * math.pi * j / side) for j in range(side)]
        return _gap((1 + waves[i] + waves[j]) / 5 for i in range(side) for j in range(side) if i or j)
    raise ConfigError(
        f"a {topology} of {workers} workers was given; a ring has 3 or more, a torus 9, 16, 25, ..., a complete graph "
        "1 or more"
    )


def _gap(others: Iterable[float]) -> float:
    """1 minus the second largest magnitude of the eigenvalues."""
    return 1.0 - max(abs(value) for value in others)


def _check(delta: float, omega: float) -> None:
    if not (0.0 < delta <= 1.0 and 0.0 < omega <= 1.0):
        raise ConfigError(f"delta = {delta}, omega = {omega} were given; both are above 0 and at most 1")
