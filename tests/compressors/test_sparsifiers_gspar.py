"""GSpar: its probabilities are optimal, its variance exact, its code as long as claimed."""

import math

import numpy as np
import pytest
import torch

from thinwire.compressors import QSGD
from thinwire.compressors.bernoulli import Bernoulli, optimal_centres
from thinwire.compressors.gspar import GSpar, density_error
from thinwire.errors import ConfigError
from thinwire.kernels.sample.probabilities import MANY, density_bounds, variance_bounds
from thinwire.layout import Segments
from thinwire.random import Key

KINDS = ("gaussian", "cauchy", "student", "constant", "sparse")


def vector(kind: str, numel: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    made = {
        "gaussian": rng.standard_normal(numel),
        "cauchy": rng.standard_cauchy(numel),
        "student": rng.standard_t(2, numel),
        "constant": np.full(numel, -2.5),
        "sparse": rng.standard_normal(numel) * (rng.random(numel) < 0.2),
    }
    return torch.from_numpy(made[kind].astype(np.float32))


def whole(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0, x.numel()])


def probabilities(x: torch.Tensor, bound: torch.Tensor) -> np.ndarray:
    found: np.ndarray = np.minimum(1.0, np.abs(x.double().numpy()) / float(bound))
    return found


def variance(x: torch.Tensor, p: np.ndarray) -> float:
    g = x.double().numpy()
    some = p > 0
    return float((g[some] ** 2 * (1 / p[some] - 1)).sum() / (g**2).sum())


def water_filling(a: np.ndarray, budget: float) -> float:
    """The level c with ``sum min(1, c a) = budget``, by bisection."""
    low, high = 0.0, 1.0
    while np.minimum(1.0, high * a).sum() < budget * (1 - 1e-12) and high < 1e30:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1.0, middle * a).sum() < budget else (low, middle)
    return high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [0.05, 0.5, 3.0])
def test_the_closed_form_has_the_variance_exactly_and_the_paper_s_bound(kind: str, eps: float) -> None:
    x = vector(kind, 2000)
    bound = variance_bounds(x, whole(x), eps)
    assert variance(x, probabilities(x, bound)) == pytest.approx(eps, rel=1e-6)
    # The paper's own way, with a sort.
    g = np.sort(np.abs(x.double().numpy()))[::-1]
    tail, squares = np.cumsum(g[::-1])[::-1], np.cumsum((g**2)[::-1])[::-1]
    allowed = eps * (g**2).sum() + squares
    k = int(np.argmax(g * tail <= allowed))
    assert float(bound) == pytest.approx(allowed[k] / tail[k], rel=1e-6)


def test_the_closed_form_solves_the_optimisation_problem() -> None:
    """Against the dual problem by bisection on its multiplier: p_i = min(1, sqrt(nu) |g_i|), constraint met."""
    rng = np.random.default_rng(1)
    for seed in range(20):
        x = vector("student", int(rng.integers(2, 40)), seed)
        eps = float(rng.uniform(0.05, 2))
        g = np.abs(x.double().numpy())
        low, high = 1e-9, 1e9
        for _ in range(200):
            middle = math.sqrt(low * high)
            p = np.minimum(1, math.sqrt(middle) * g)
            low, high = (middle, high) if (g**2 / p).sum() > (1 + eps) * (g**2).sum() else (low, middle)
        p = probabilities(x, variance_bounds(x, whole(x), eps))
        assert p.sum() == pytest.approx(np.minimum(1, math.sqrt(high) * g).sum(), rel=1e-5)
        # No feasible move along a random direction sends fewer entries.
        for _ in range(20):
            moved = np.clip(p * np.exp(0.1 * rng.standard_normal(p.size)), 1e-9, 1)
            if (g**2 / moved).sum() <= (1 + eps) * (g**2).sum():
                assert moved.sum() >= p.sum() * (1 - 1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "cauchy", "student"])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.3])
def test_two_greedy_rounds_miss_the_density_by_less_than_one_percent(kind: str, density: float) -> None:
    x = vector(kind, 10_000)
    p = probabilities(x, density_bounds(x, whole(x), torch.zeros(1), density, 2))
    assert density * 0.99 < p.sum() / x.numel() <= density * (1 + 1e-5)


@pytest.mark.parametrize(("density", "unused"), [(0.5, 0.031), (0.9, 0.139)])
def test_two_greedy_rounds_miss_a_large_density_by_more_and_ten_do_not(density: float, unused: float) -> None:
    x = vector("cauchy", 10_000)
    found = {}
    for rounds in (2, 10):
        p = probabilities(x, density_bounds(x, whole(x), torch.zeros(1), density, rounds))
        found[rounds] = 1.0 - p.sum() / x.numel() / density
    assert found[2] == pytest.approx(unused, abs=0.005)
    assert found[10] < 0.01
    said = " ".join((GSpar.__doc__ or "").split())
    assert f"{100 * unused:.0f} % of {density:g}".replace("0.", ".") in said


@pytest.mark.parametrize("kind", ["gaussian", "cauchy", "student", "constant"])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.6])
def test_optimal_probabilities_are_those_of_water_filling(kind: str, density: float) -> None:
    x = vector(kind, 3000)
    bound = density_bounds(x, whole(x), torch.zeros(1), density, MANY)
    level = water_filling(np.abs(x.double().numpy()), density * x.numel())
    assert 1 / float(bound) == pytest.approx(level, rel=2e-6)
    a = np.abs(x.double().numpy())
    if level * a.max() <= 1:
        expected = (a.sum() ** 2 / (density * a.size) - (a**2).sum()) / (a**2).sum()
        assert variance(x, probabilities(x, bound)) == pytest.approx(expected, rel=1e-5)


def test_published_variances() -> None:
    """One draw of 10,000 entries each: 62.4 and 5.34 on Gaussian entries, 3.32 and 0.232 on Student-t2."""
    found = {}
    for kind in ("gaussian", "student"):
        for density in (0.01, 0.1):
            each = []
            for seed in range(9):
                x = vector(kind, 10_000, seed)
                bound = density_bounds(x, whole(x), torch.zeros(1), density, 2)
                each.append(variance(x, probabilities(x, bound)))
            found[kind, density] = each
    assert np.median(found["gaussian", 0.01]) == pytest.approx(62.4, rel=0.05)
    assert np.median(found["gaussian", 0.1]) == pytest.approx(5.34, rel=0.05)
    # With infinite variance one draw says little: 3.32 and 0.232 are of a draw that one in forty is like. A typical
    # one has six times that; what does not depend on the draw is the ratio of the two.
    ratios = np.array(found["student", 0.01]) / np.array(found["student", 0.1])
    assert (np.abs(ratios / (3.32 / 0.232) - 1) < 0.15).all()
    assert 10 < np.median(found["student", 0.01]) < 30


def test_the_bound_for_a_density_holds_and_uniform_sampling_is_not_always_worse() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        numel = int(rng.integers(2, 60))
        x = torch.from_numpy((rng.standard_normal(numel) * np.exp(2 * rng.standard_normal(numel))).astype(np.float32))
        density, rounds = float(rng.uniform(0.05, 0.99)), int(rng.integers(0, 4))
        p = probabilities(x, density_bounds(x, whole(x), torch.zeros(1), density, rounds))
        assert variance(x, p) <= density_error(density) * (1 + 1e-5)
    # One entry in twenty is 5.5, the rest such that the mean is 1: without a round that is worse than uniform sampling.
    x = torch.full((1000,), (1 - 0.05 * 5.5) / 0.95)
    x[:50] = 5.5
    p = probabilities(x, density_bounds(x, whole(x), torch.zeros(1), 1 / 1.1, 0))
    assert 0.1 < variance(x, p) <= density_error(1 / 1.1)
    same = torch.ones(100)
    equal = variance(same, probabilities(same, density_bounds(same, whole(same), torch.zeros(1), 0.25, 2)))
    assert equal == pytest.approx(density_error(0.25), rel=1e-5)


def test_an_approximately_sparse_vector_is_sent_in_few_entries() -> None:
    """If ``||g_rest||_1 <= rho ||g_S||_1`` with ``|S| = s``, variance rho needs at most ``(1 + rho) s`` entries."""
    rng = np.random.default_rng(4)
    for _ in range(1000):
        numel = int(rng.integers(2, 50))
        x = torch.from_numpy((rng.standard_normal(numel) * np.exp(2 * rng.standard_normal(numel))).astype(np.float32))
        a = np.sort(np.abs(x.double().numpy()))[::-1]
        s = int(rng.integers(1, numel))
        rho = a[s:].sum() / a[:s].sum()
        p = probabilities(x, variance_bounds(x, whole(x), float(rho)))
        assert p.sum() <= (1 + rho) * s * (1 + 1e-5)
        # The hybrid code, 32 bits a value, against its bound.
        index = math.ceil(math.log2(numel))
        sent = (p == 1).sum() * (32 + index) + p[p < 1].sum() * (1 + index) + 32
        assert sent <= (1 + rho) * s * (33 + index) + 32 + 1e-3


def test_qsgd_with_one_level_is_the_same_family() -> None:
    x = vector("gaussian", 500)
    p = probabilities(x, x.norm())
    omega = float(x.abs().sum() / x.norm() - 1)
    assert variance(x, p) == pytest.approx(omega, rel=1e-5)
    assert QSGD(levels=1).traits(500).error >= omega
    same = probabilities(x, variance_bounds(x, whole(x), omega))
    assert same.sum() == pytest.approx(p.sum(), rel=1e-5)


@pytest.mark.parametrize("operator", [GSpar(density=0.1), GSpar(variance=2.0)])
def test_what_is_sent_is_sign_over_lambda_or_exact_and_right_on_average(operator: GSpar) -> None:
    x = vector("student", 200)
    count = 3000
    payload = operator.compress(x.repeat(count), Key(5), Segments.uniform(200 * count, 200))
    sent = payload.to_dense().view(count, 200).double().numpy()
    rule = density_bounds(x, whole(x), torch.zeros(1), 0.1, 2)
    bound = rule if operator.density else variance_bounds(x, whole(x), 2.0)
    p = probabilities(x, bound)
    g = x.double().numpy()
    assert (sent[:, p == 1] == g[p == 1]).all()
    drawn = sent[:, p < 1]
    assert set(np.abs(drawn).ravel()) <= {0.0, float(bound)}
    frequency = (drawn != 0).mean(0)
    spread = np.sqrt(p[p < 1] * (1 - p[p < 1]) / count)
    assert (np.abs(frequency - p[p < 1]) <= 5.5 * spread + 1e-9).all()
    errors = ((sent - g) ** 2).sum(1) / (g**2).sum()
    assert abs(errors.mean() - variance(x, p)) < 6 * errors.std() / math.sqrt(count)


def test_turns_of_probabilities_and_centre_lower_the_variance() -> None:
    for seed in range(10):
        x = vector("student", 400, seed) + 3
        last, centres = math.inf, x.mean()[None]
        for turns in range(12):
            centre, bound = optimal_centres(x, whole(x), centres, 0.1, turns)
            deviation = x.double().numpy() - float(centre)
            p = np.minimum(1.0, np.abs(deviation) / float(bound))
            now = float((deviation**2 * (1 / np.maximum(p, 1e-300) - 1)).sum())
            assert now <= last * (1 + 1e-6)
            last = now
        assert abs(float(centre) - float(x.median())) <= abs(float(x.mean()) - float(x.median())) + 1e-6


def test_refusals() -> None:
    for wrong in (
        {},
        {"density": 0.1, "variance": 1.0},
        {"density": 0.0},
        {"variance": 0.0},
        {"density": 0.1, "rounds": -1},
    ):
        with pytest.raises(ConfigError):
            GSpar(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'zero' or 'mean' or 'optimal'"):
        Bernoulli(density=0.1, center="median")  # type: ignore[arg-type]
