"""The theorems about methods that send changes, on quadratics whose constants are known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exchange_cases import Party
from numpy.typing import NDArray

from thinwire.methods import parse_method

NUMEL, SIZE = 12, 4
GENERATOR = np.random.default_rng(5)
CURVATURES = GENERATOR.uniform(0.2, 2.0, (SIZE, NUMEL))
CENTRES = GENERATOR.normal(size=(SIZE, NUMEL))
MEAN = CURVATURES.mean(axis=0)
BEST = (CURVATURES * CENTRES).mean(axis=0) / MEAN
START = np.full(NUMEL, 2.0)
Vector = NDArray[np.float64]


def gradients(x: Vector) -> Vector:
    """Of the workers' quadratics ``[P, d]``."""
    return CURVATURES * (x - CENTRES)


def gap(x: Vector) -> float:
    """``f(x) - f(best)``."""
    return float(0.5 * (MEAN * np.square(x - BEST)).sum())


def descend(text: str, lr: float, steps: int, seed: int, look: Callable[[Vector, Party], float]) -> list[float]:
    """What ``look`` sees before every step and after the last one."""
    crew, x, seen = Party(parse_method(text), SIZE, NUMEL, seed), START, []
    for _ in range(steps):
        seen.append(look(x, crew))
        number = crew.num_exchanges
        programs = []
        for channel, g in zip(crew.channels, gradients(x), strict=True):
            handed, _ = channel.gather([torch.tensor(g, dtype=torch.float32)])
            programs.append(channel.run(handed, crew.method.compressor_at(number), True, number))
        outcomes = crew.simulation.run(programs)
        for channel, outcome in zip(crew.channels, outcomes, strict=True):
            channel.accept(outcome)
        crew.num_exchanges += 1
        x = x - lr * outcomes[0].aggregate.mean.double().numpy()
    return [*seen, look(x, crew)]


def square_of_gradient(x: Vector, crew: Party) -> float:
    """``||grad f(x)||^2``."""
    return float(np.square(gradients(x).mean(axis=0)).sum())


@pytest.mark.parametrize("k", [2, 4])
def test_diana_converges_linearly_at_its_rate(k: int) -> None:
    """``E V_t <= max(1 - lr mu, 1 - alpha / 2)^t V_0``, V of the iterate and of the shifts; QSGD has no such limit."""
    omega, smooth = NUMEL / k - 1, float(CURVATURES.max())
    alpha = 1 / (1 + omega)
    lr = 1 / (smooth * (1 + 6 * omega / SIZE))
    weight = 4 * omega / (SIZE * alpha) * lr**2
    at_best = gradients(BEST)

    def lyapunov(x: Vector, crew: Party) -> float:
        shifts = np.stack([channel.memory["estimate"].double().numpy() for channel in crew.channels])
        return float(np.square(x - BEST).sum() + weight * np.square(shifts - at_best).sum(axis=1).mean())

    steps = 80
    runs = np.array([descend(f"diana:k={k}", lr, steps, seed, lyapunov) for seed in range(24)])
    mean, spread = runs.mean(axis=0), runs.std(axis=0) / math.sqrt(len(runs))
    bound = runs[0, 0] * max(1 - lr * float(MEAN.min()), 1 - alpha / 2) ** np.arange(steps + 1)
    assert bool((mean <= bound * (1 + 1e-12) + 3 * spread).all())
    assert mean[-1] < 0.01 * mean[0]


@pytest.mark.parametrize("k", [2, 6])
def test_marina_keeps_its_bound(k: int) -> None:
    """``mean E||grad f(x_t)||^2 <= 2 (f_0 - f*) / (lr T)`` at ``lr = 1 / (L (1 + sqrt((1 - p) omega / (p P))))``."""
    omega, p = NUMEL / k - 1, k / NUMEL
    smooth = math.sqrt(float(np.square(CURVATURES.max(axis=1)).mean()))
    lr = 1 / (smooth * (1 + math.sqrt((1 - p) * omega / (p * SIZE))))
    steps = 60
    runs = np.array([descend(f"marina:k={k}", lr, steps, seed, square_of_gradient)[:-1] for seed in range(20)])
    averages = runs.mean(axis=1)
    bound = 2 * gap(START) / (lr * steps)
    assert averages.mean() <= bound + 3 * averages.std() / math.sqrt(len(averages))
    # The bound is of the right size: it is not kept by orders of magnitude.
    assert averages.mean() > bound / 50


@pytest.mark.parametrize(("k", "momentum"), [(1, 0.5), (3, 0.5), (3, 0.9), (3, 0.0)])
def test_ef21_with_momentum_keeps_its_bound(k: int, momentum: float) -> None:
    """The paper's argument with its constants carried along, for gradients without noise; eta = 1 - momentum.

    With R the squared step, ``G+ <= (1 - theta) G + 2 beta eta^2 (L~^2 R + P)`` for the estimates' errors,
    ``P+ <= (1 - eta) P + (1 - eta)^2 / eta L^2 R`` for the running means' (0 at first), and the descent lemma: for
    ``lr <= 1 / (L + sqrt(2 K))``, ``K = 2 beta / theta (eta^2 + (1 - eta)^2) L~^2 + ((1 - eta) / eta)^2 L^2``, the mean
    of ``||grad f||^2`` is at most ``2 (f_0 - f*) / (lr T) + 2 G_0 / (theta T)``.
    """
    eta, alpha = 1 - momentum, k / NUMEL
    theta = 1 - math.sqrt(1 - alpha)
    beta = (1 - alpha) / theta
    smooth, smooth_each = float(MEAN.max()), math.sqrt(float(np.square(CURVATURES.max(axis=1)).mean()))
    k_sum = 2 * beta / theta * (eta**2 + (1 - eta) ** 2) * smooth_each**2 + ((1 - eta) / eta * smooth) ** 2
    lr, steps = 1 / (smooth + math.sqrt(2 * k_sum)), 150
    off = []

    def look(x: Vector, crew: Party) -> float:
        if crew.num_exchanges == 1:
            first = gradients(START)
            known = np.stack([channel.memory["estimate"].double().numpy() for channel in crew.channels])
            off.append(float(np.square(known - first).sum(axis=1).mean()))
        return square_of_gradient(x, crew)

    squares = descend(f"ef21-sgdm:k={k},momentum={momentum}", lr, steps, 0, look)[:-1]
    bound = 2 * gap(START) / (lr * steps) + 2 * off[0] / (theta * steps)
    assert np.mean(squares) <= bound
    assert squares[-1] < 0.5 * squares[0]
