"""The formulas against explicit sums, eigenvalues and small experiments."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch

from thinwire import theory
from thinwire.errors import ConfigError


@pytest.mark.parametrize("shift", [0.0, 1.0, 37.5, 2000.0])
@pytest.mark.parametrize("weights", ["uniform", "quadratic"])
def test_the_running_average_is_the_explicit_weighted_mean(
    weights: Literal["uniform", "quadratic"], shift: float
) -> None:
    iterates = np.random.default_rng(0).standard_normal((300, 4))
    average, mean = theory.RunningAverage(weights=weights, shift=shift), np.zeros(4)
    for step, x in enumerate(iterates):
        mean = (1 - average.rho(step)) * mean + average.rho(step) * x
        w = np.ones(step + 1) if weights == "uniform" else (shift + np.arange(step + 1)) ** 2
        # The first iterate counts nothing without a shift, but there is no other yet.
        explicit = x if w.sum() == 0 else w @ iterates[: step + 1] / w.sum()
        assert np.allclose(mean, explicit, rtol=1e-10, atol=1e-12)


def test_the_recursion_is_that_of_the_authors_code() -> None:
    for shift in (1.0, 14_000.0):
        for t in (0, 1, 5, 1000):
            published = 6 * (t + shift) ** 2 / ((1 + t) * (6 * shift**2 + t + 6 * shift * t + 2 * t**2))
            average = theory.RunningAverage(weights="quadratic", shift=shift)
            assert average.rho(t) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_the_sum_of_weights(steps: int) -> None:
    for shift in (1.0, 12.5):
        explicit = sum((shift + t) ** 2 for t in range(steps))
        assert theory.quadratic_weight_sum(shift, steps) == pytest.approx(explicit, rel=1e-12)
        assert theory.quadratic_weight_sum(shift, steps) >= steps**3 / 3


def test_step_sizes() -> None:
    rate = theory.InverseTime(mu=0.1, shift=theory.mem_sgd_shift(50, 2), numerator=theory.MEM_SGD)
    assert rate.shift == 175.0
    assert [rate.at(t) for t in (0, 175)] == pytest.approx([8 / 17.5, 8 / 35])
    assert theory.qsparse_shift(kappa=1.0, max_gap=100, gamma=1.0) == 400.0
    assert theory.qsparse_shift(kappa=100.0, max_gap=1, gamma=1.0) == 3200.0
    assert theory.local_sgd_shift(kappa=1.0, max_gap=50) == 50.0


def radius(matrix: Any) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("z", [0.0, 0.3, 1.0, 1.7])
def test_easgd_is_stable_up_to_the_limit(workers: int, z: float) -> None:
    """All from the old values: x_i - z x_i - alpha (x_i - c); c + alpha sum (x_i - c)."""

    def matrix(alpha: float) -> Any:
        found = np.diag([1.0 - z - alpha] * workers + [1.0 - workers * alpha])
        found[:workers, -1] = alpha
        found[-1, :workers] = alpha
        return found

    limit = theory.easgd_alpha_limit(z, workers)
    assert all(radius(matrix(share * limit)) <= 1.0 + 1e-9 for share in (0.01, 0.5, 0.999))
    assert radius(matrix(1.01 * limit)) > 1.0
    if workers == 1:
        assert limit == pytest.approx((4 - 2 * z) / (4 - z))


@pytest.mark.parametrize("workers", [1, 3])
def test_local_steps_before_the_pull_leave_one_limit_for_all_curvatures(workers: int) -> None:
    generator = np.random.default_rng(workers)
    for alpha, beta in generator.uniform(0.01, 2.0, (200, 2)):
        radii = []
        for u in (-1.0, -0.6, 0.0, 0.4, 0.9, 1.0):
            matrix = np.diag([(1.0 - alpha) * u] * workers + [1.0 - beta])
            matrix[:workers, -1] = alpha
            matrix[-1, :workers] = beta * u / workers
            radii.append(radius(matrix))
        if abs(alpha + beta - 2.0) > 1e-3:
            assert (max(radii) <= 1.0 + 1e-9) == theory.elastic_is_stable(alpha, beta)


KINDS_OF_MOMENTUM = [(0.0, False), (0.5, False), (0.9, False), (0.9, True)]


def elastic_training(z: float, alpha: float, beta: float, momentum: float, nesterov: bool, local_steps: int) -> Any:
    """Three workers of torch's SGD on ``z x^2 / 2`` with rate 1, tied to a centre: norms of all after each pull."""
    workers = [torch.nn.Parameter(torch.tensor([start], dtype=torch.float64)) for start in (1.0, -0.5, 2.0)]
    optimizers = [torch.optim.SGD([x], lr=1.0, momentum=momentum, nesterov=nesterov) for x in workers]
    centre, norms = 1.0, []
    for _ in range(70):
        for x, optimizer in zip(workers, optimizers, strict=True):
            for _ in range(local_steps):
                x.grad = z * x.detach()
                optimizer.step()
        before = [x.item() for x in workers]
        with torch.no_grad():
            for x in workers:
                x.add_(alpha * (centre - x))
        centre += beta * (sum(before) / 3 - centre)
        velocities = [
            float(o.state[x]["momentum_buffer"]) for x, o in zip(workers, optimizers, strict=True) if momentum
        ]
        norms.append(math.hypot(centre, *(x.item() for x in workers), *velocities))
    return norms


@pytest.mark.parametrize(("momentum", "nesterov"), KINDS_OF_MOMENTUM)
@pytest.mark.parametrize("local_steps", [1, 4])
@pytest.mark.parametrize("z", [0.05, 0.9, 3.5])
def test_the_radius_of_a_whole_step_is_how_fast_elastic_training_grows_or_shrinks(
    z: float, local_steps: int, momentum: float, nesterov: bool
) -> None:
    for alpha, beta in ((0.3, 0.9), (0.05, 0.2), (0.9, 1.0)):
        radius = theory.elastic_radius(
            z, alpha=alpha, beta=beta, momentum=momentum, nesterov=nesterov, local_steps=local_steps
        )
        norms = elastic_training(z, alpha, beta, momentum, nesterov, local_steps)
        late = math.log(max(norms[55:])) - math.log(max(norms[20:35]))
        assert late / 35 == pytest.approx(math.log(radius), abs=0.15)
        stable = theory.elastic_is_stable(
            alpha, beta, lr_times_curvature=z, momentum=momentum, nesterov=nesterov, local_steps=local_steps
        )
        if abs(radius - 1.0) > 0.01:
            assert (late < 0.0) == stable


@pytest.mark.parametrize(("momentum", "nesterov"), KINDS_OF_MOMENTUM)
def test_local_steps_alone_are_stable_up_to_the_limit(momentum: float, nesterov: bool) -> None:
    limit = theory.local_step_limit(momentum=momentum, nesterov=nesterov)
    for share, stable in ((0.01, True), (0.5, True), (0.999, True), (1.001, False), (1.5, False)):
        found = radius(theory.local_step_map(share * limit, momentum=momentum, nesterov=nesterov))
        assert (found < 1.0) == stable


@pytest.mark.parametrize(("momentum", "nesterov"), KINDS_OF_MOMENTUM)
@pytest.mark.parametrize("local_steps", [1, 2, 4])
def test_the_limit_with_a_pull_is_where_the_radius_passes_one(
    local_steps: int, momentum: float, nesterov: bool
) -> None:
    alone = theory.local_step_limit(momentum=momentum, nesterov=nesterov)
    for alpha, beta in ((0.225, 0.9), (0.9, 0.9), (0.0125, 0.2)):
        given: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "local_steps": local_steps}
        limit = theory.elastic_limit(alpha=alpha, beta=beta, **given)
        assert 0.0 < limit <= alone
        for share in (0.2, 0.7, 0.99):
            assert theory.elastic_radius(share * limit, alpha=alpha, beta=beta, **given) <= 1.0 + 1e-9
        if limit < alone:
            assert theory.elastic_radius(limit + 1e-3, alpha=alpha, beta=beta, **given) > 1.0
        assert theory.elastic_is_stable(alpha, beta, **given) == (limit == alone)
        if momentum == 0.0:
            assert limit == alone


def test_momentum_of_local_steps_counts() -> None:
    """Four workers, alpha = .9 / 4: by themselves steps of rate 3.5 on curvature 1 are stable, tied to a centre not."""
    assert theory.local_step_limit(momentum=0.9) > 3.5
    assert theory.elastic_is_stable(0.225, 0.9)
    assert not theory.elastic_is_stable(0.225, 0.9, momentum=0.9)
    assert not theory.elastic_is_stable(0.225, 0.9, momentum=0.9, lr_times_curvature=3.5)
    assert theory.elastic_is_stable(0.225, 0.9, momentum=0.9, lr_times_curvature=0.1)
    for wrong in ({"momentum": 1.0}, {"local_steps": 0}, {"lr_times_curvature": -1.0}):
        with pytest.raises(ConfigError):
            theory.elastic_is_stable(0.2, 0.9, **wrong)


@pytest.mark.parametrize("select", ["top", "random"])
def test_the_memory_of_mem_sgd_stays_below_its_bound(select: str) -> None:
    d, k, mu = 20, 1, 0.5
    generator = np.random.default_rng(1)
    rate = theory.InverseTime(mu=mu, shift=theory.mem_sgd_shift(d, k), numerator=theory.MEM_SGD)
    memory, most = np.zeros(d), 0.0
    for step in range(2000):
        gradient = generator.standard_normal(d)
        gradient /= np.linalg.norm(gradient)
        memory += rate.at(step) * gradient
        kept = int(np.abs(memory).argmax()) if select == "top" else int(generator.integers(d))
        memory[kept] = 0.0
        bound = theory.memory_bound(numel=d, k=k, lr=rate.at(step), gradient_norm=1.0)
        most = max(most, float(memory @ memory) / bound)
    assert 1e-4 < most < 1.0


def test_the_memory_of_local_steps_stays_below_its_bound() -> None:
    # The worst case of a compressor that leaves a share 1 - gamma of the squared norm, in the direction of the signal.
    for gamma in (0.02, 0.3, 0.9):
        memory = 0.0
        for _ in range(2000):
            memory = math.sqrt(1.0 - gamma) * (memory + 0.1 * 8 * 3.0)
        bound = theory.local_memory_bound(gamma=gamma, max_gap=8, lr=0.1, gradient_norm=3.0)
        assert 0.2 * bound < memory**2 <= bound
        published = 4 * 0.1**2 * (1 - gamma**2) / gamma**2 * 8**2 * 3.0**2
        assert bound <= published


def ring(workers: int) -> Any:
    eye = np.eye(workers)
    return (eye + np.roll(eye, 1, axis=1) + np.roll(eye, -1, axis=1)) / 3


def test_the_gap_of_a_topology_is_that_of_its_matrix() -> None:
    for workers in (3, 4, 8, 9):
        eigenvalues = np.sort(np.abs(np.linalg.eigvalsh(ring(workers))))
        assert theory.topology_gap("ring", workers) == pytest.approx(1.0 - eigenvalues[-2])
    for side in (3, 4, 5):
        cycle = 3 * ring(side) - np.eye(side)
        torus = (np.eye(side**2) + np.kron(cycle, np.eye(side)) + np.kron(np.eye(side), cycle)) / 5
        eigenvalues = np.sort(np.abs(np.linalg.eigvalsh(torus)))
        assert theory.topology_gap("torus", side**2) == pytest.approx(1.0 - eigenvalues[-2])
    assert theory.topology_gap("complete", 7) == 1.0


def test_choco_gossip_is_as_fast_as_proven_and_keeps_the_mean() -> None:
    workers, d, k = 8, 20, 4
    weights = ring(workers)
    delta, omega = theory.topology_gap("ring", workers), k / d
    beta = float(np.linalg.norm(np.eye(workers) - weights, 2))
    step = theory.choco_consensus_step(delta, beta, omega)
    assert theory.choco_consensus_step(delta, beta, 0.1) == pytest.approx(3.5e-4, rel=0.02)
    x = np.random.default_rng(0).standard_normal((workers, d))
    public, mean = np.zeros_like(x), x.mean(axis=0)
    first = ((x - mean) ** 2).sum() + ((x - public) ** 2).sum()
    for t in range(1, 3001):
        difference = x - public
        kept = np.abs(difference).argsort(axis=1)[:, -k:]
        np.put_along_axis(public, kept, np.take_along_axis(x, kept, 1), 1)
        x = x + step * (weights - np.eye(workers)) @ public
        error = ((x - mean) ** 2).sum() + ((x - public) ** 2).sum()
        assert error <= theory.choco_gossip_factor(delta, omega) ** t * first
    assert np.allclose(x.mean(axis=0), mean, atol=1e-12)


def test_free_local_steps_follow_the_corollaries() -> None:
    plain: dict[str, Any] = {"steps": 10_000, "workers": 8, "batch_size": 2}
    for convex, asynchronous, in_steps, in_batches, in_gamma in (
        (False, False, 0.25, -0.75, 1.0), (True, False, 0.5, -0.5, 1.0),
        (False, True, 0.125, -0.375, 0.5), (True, True, 0.25, -0.25, 0.5),
    ):  # fmt: skip
        kind = {**plain, "convex": convex, "asynchronous": asynchronous}
        base = theory.max_local_steps(**kind, gamma=0.5)
        assert base == pytest.approx(10_000**in_steps * 16**in_batches * 0.5**in_gamma)
        assert theory.max_local_steps(**kind, gamma=0.5, constant=3.0) == pytest.approx(3.0 * base)
        assert theory.max_local_steps(**{**kind, "workers": 16}, gamma=0.5) == pytest.approx(base * 2.0**in_batches)


@pytest.mark.parametrize(
    "call",
    [
        lambda: theory.InverseTime(mu=0.0, shift=1.0, numerator=8.0),
        lambda: theory.InverseTime(mu=1.0, shift=math.nan, numerator=8.0),
        lambda: theory.mem_sgd_shift(10, 11),
        lambda: theory.mem_sgd_shift(10, 1, alpha=4.0),
        lambda: theory.qsparse_shift(kappa=1.0, max_gap=1, gamma=0.0),
        lambda: theory.local_sgd_shift(kappa=0.5, max_gap=1),
        lambda: theory.RunningAverage(weights="quadratic", shift=-1.0),
        lambda: theory.RunningAverage(weights="cubic"),  # type: ignore[arg-type]
        lambda: theory.easgd_alpha_limit(2.1, 1),
        lambda: theory.easgd_alpha_limit(1.0, 0),
        lambda: theory.elastic_is_stable(0.0, 1.0),
        lambda: theory.max_local_steps(steps=0, workers=1, batch_size=1),
        lambda: theory.memory_bound(numel=10, k=0, lr=1.0, gradient_norm=1.0),
        lambda: theory.memory_bound(numel=10, k=1, lr=-1.0, gradient_norm=1.0),
        lambda: theory.local_memory_bound(gamma=1.5, max_gap=1, lr=1.0, gradient_norm=1.0),
        lambda: theory.decaying_memory_bound(gamma=0.5, max_gap=0, shift=1.0, lr=1.0, gradient_norm=1.0),
        lambda: theory.decaying_memory_bound(gamma=0.5, max_gap=1, shift=0.0, lr=1.0, gradient_norm=1.0),
        lambda: theory.least_shift(0.0, 1),
        lambda: theory.choco_consensus_step(0.0, 1.0, 1.0),
        lambda: theory.choco_consensus_step(0.5, 3.0, 1.0),
        lambda: theory.choco_shift(0.5, 0.5, 0.0),
        lambda: theory.topology_gap("torus", 8),
        lambda: theory.topology_gap("ring", 2),
    ],
)
def test_numbers_out_of_range_are_refused(call: Any) -> None:
    with pytest.raises(ConfigError):
        call()
