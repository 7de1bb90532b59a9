"""The model of steps to a target: what it fits, and where it stops being linear."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import nnls

from thinwire.errors import ConfigError
from thinwire.theory import LINEAR_FROM, StepsToTarget, fit_steps_to_target

WORKERS = (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize(("a", "b"), [(10.0, 500.0), (0.0, 700.0), (300.0, 0.0), (1e-3, 1e6), (5e5, 2.0)])
@pytest.mark.parametrize("workers", [WORKERS, (1, 2), (1, 3, 100)], ids=str)
def test_made_up_numbers_are_fitted_exactly(a: float, b: float, workers: Sequence[int]) -> None:
    model = fit_steps_to_target(workers, [a + b / count for count in workers])
    assert model.transient_steps == pytest.approx(a, abs=1e-7 * (a + b))
    assert model.noise_steps == pytest.approx(b, abs=1e-7 * (a + b))


@pytest.mark.parametrize("seed", range(40))
def test_a_fit_is_the_non_negative_least_squares_of_relative_errors(seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = random.uniform(10.0, 1000.0, len(WORKERS))  # in any order, so that either part is often cut off at 0
    columns = np.stack([1.0 / steps, 1.0 / (steps * np.array(WORKERS))], axis=1)
    expected, _ = nnls(columns, np.ones(len(WORKERS)))
    model = fit_steps_to_target(WORKERS, list(steps))
    assert [model.transient_steps, model.noise_steps] == pytest.approx(list(expected), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(10.0, 500.0), (300.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("share", [LINEAR_FROM, 0.5, 0.99])
def test_at_the_limit_the_speedup_is_that_share(a: float, b: float, share: float) -> None:
    model = StepsToTarget(transient_steps=a, noise_steps=b)
    limit = model.linear_until(share)
    assert model.speedup(limit) == pytest.approx(share * limit)
    assert model.speedup(2 * limit) < share * 2 * limit
    assert model.balance() == b / a
    assert model.speedup(1e12) <= 1 + b / a


def test_without_a_transient_there_is_no_limit() -> None:
    model = StepsToTarget(transient_steps=0.0, noise_steps=8.0)
    assert model.speedup(64) == 64
    assert model.linear_until() == model.balance() == math.inf


@pytest.mark.parametrize(
    ("workers", "steps", "part"),
    [
        ((1,), (5.0,), "of at least two"),
        ((2, 2), (5.0, 6.0), "of at least two"),
        ((1, 2), (5.0,), "1 numbers of steps"),
        ((0, 2), (5.0, 6.0), "at least 1"),
        ((1, 2), (5.0, 0.0), "above 0"),
        ((1, 2), (5.0, math.nan), "finite"),
    ],
    ids=str,
)
def test_what_cannot_be_fitted_is_refused(workers: Sequence[int], steps: Sequence[float], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        fit_steps_to_target(workers, steps)


@pytest.mark.parametrize(("a", "b"), [(-1.0, 2.0), (0.0, 0.0), (math.inf, 1.0), (1.0, math.nan)])
def test_a_model_that_cannot_be_is_refused(a: float, b: float) -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        StepsToTarget(transient_steps=a, noise_steps=b)
