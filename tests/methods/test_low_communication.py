"""Methods with tens of local steps, against their papers' pseudo-code in plain numpy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from thinwire.compressors import Apart, Bins, SharedSeedRandK, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Gather, PowerIteration
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.methods import Method, parse_method
from thinwire.optimizers import Muon
from thinwire.simulator import Simulation
from thinwire.worker import Worker

Array = NDArray[np.float64]
SHAPE = (4, 6)


class Bowl(nn.Module):
    """A quadratic of a matrix, whose gradient is ``h (w - target)``; each worker has targets of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(SHAPE, dtype=torch.float32))


class Crew:
    """Workers on quadratics, the same in f32 as :meth:`gradient` says in f64."""

    def __init__(self, method: Method | str, size: int, optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
        generator = np.random.default_rng(7)
        self.size = size
        self.curvature = generator.uniform(0.5, 2.0, SHAPE)
        self.targets = generator.standard_normal((size, 1000, *SHAPE))
        models = [Bowl() for _ in range(size)]
        method = parse_method(method) if isinstance(method, str) else method
        self.workers = [
            Worker(method, model, optimizer(model.parameters()), rank=rank, size=size, seed=0)
            for rank, model in enumerate(models)
        ]
        self.simulation = Simulation(size)

    def gradient(self, rank: int, step: int, w: Array) -> Array:
        gradient: Array = self.curvature * (w - self.targets[rank, step])
        return gradient

    def step(self) -> None:
        for worker in self.workers:
            (w,) = worker.model.parameters()
            w.grad = torch.from_numpy(self.gradient(worker.rank, worker.num_steps, w.detach().double().numpy())).float()
        self.simulation.run([worker.step() for worker in self.workers])

    def models(self) -> Array:
        return np.stack([next(worker.model.parameters()).detach().double().numpy() for worker in self.workers])

    def common(self) -> Array:
        shared: Array = self.workers[0].shared_parameters()["w"].double().numpy()
        return shared


def two_bits(x: Array) -> Array:
    """Four bins of 1.5 standard deviations around the mean, each value replaced by its bin's mean."""
    shift, spread = x.mean(), x.std(ddof=1)
    codes = np.clip(np.round((x - shift) / (6 * spread / 4) + 2), 0, 3)
    out = np.zeros_like(x)
    for code in range(4):
        out[codes == code] = x[codes == code].mean() if (codes == code).any() else 0.0
    return out


@pytest.mark.parametrize("options", ["", ",bits=2"])
def test_muloco_is_local_muon_and_outer_nesterov_with_error_feedback(options: str) -> None:
    size, every, lr = 3, 5, 0.05
    crew = Crew(f"muloco:every={every}{options}", size, lambda params: Muon(params, lr=lr))
    twins = [nn.Parameter(torch.zeros(SHAPE)) for _ in range(size)]
    steppers = [torch.optim.Muon([twin], lr=lr, adjust_lr_fn="match_rms_adamw") for twin in twins]
    common, velocity, errors = np.zeros(SHAPE), np.zeros(SHAPE), np.zeros((size, *SHAPE))
    for step in range(60):
        for rank, (twin, stepper) in enumerate(zip(twins, steppers, strict=True)):
            twin.grad = torch.from_numpy(crew.gradient(rank, step, twin.detach().double().numpy())).float()
            stepper.step()
        crew.step()
        if (step + 1) % every == 0:
            sent = []
            for rank, twin in enumerate(twins):
                intended = 0.9 * errors[rank] + common - twin.detach().double().numpy()
                sent.append(two_bits(intended) if options else intended)
                errors[rank] = intended - sent[rank]
            mean = np.mean(sent, axis=0)
            velocity = 0.8 * velocity + mean
            common = common - 0.9 * (mean + 0.8 * velocity)
            assert np.abs(crew.common() - common).max() < 1e-6
            # Muon rounds to bf16, which would make much of a last bit: both go on from the same one.
            for twin in twins:
                twin.data.copy_(crew.workers[0].shared_parameters()["w"])
            common = crew.common()
            assert all(np.array_equal(model, common) for model in crew.models())
    assert np.linalg.norm(common) > 0.1


def test_sparta_averages_the_same_random_entries_and_leaves_the_others() -> None:
    size, lr = 3, 0.1
    crew = Crew("sparta:density=25%", size, lambda params: torch.optim.SGD(params, lr=lr))
    models, common, counts = np.zeros((size, *SHAPE)), np.zeros(SHAPE), np.zeros(SHAPE)
    for step in range(100):
        for rank in range(size):
            models[rank] -= lr * crew.gradient(rank, step, models[rank])
        before = crew.common()
        crew.step()
        met = crew.common() != before
        assert met.sum() == SHAPE[0] * SHAPE[1] // 4
        counts += met
        models[:, met] = models[:, met].mean(axis=0)
        common[met] = models[0][met]
        assert np.abs(crew.models() - models).max() < 1e-6
        assert np.abs(crew.common() - common).max() < 1e-6
    # Binomial with mean 25 and deviation 4.3: each entry's turn comes.
    assert counts.min() > 8
    assert counts.max() < 42


def test_what_sparta_cannot_average_is_refused() -> None:
    sparta = parse_method("sparta")
    for wrong in (
        {"compressor": TopK(density=0.1), "exchange": Gather()},
        {"memory": ErrorFeedback()},
        {"delay": 2},
        {"exchange": Gather()},
    ):
        with pytest.raises(ConfigError, match=r"Partial\(\)"):
            replace(sparta, **wrong)


def sixteen_bins(x: Array) -> Array:
    """Bins of 6/16 of a standard deviation around the mean, each value replaced by its bin's mean."""
    shift, spread = x.mean(), x.std(ddof=1)
    codes = np.clip(np.round((x - shift) / (6 * spread / 16) + 8), 0, 15)
    return np.array([x[codes == code].mean() for code in codes])


def test_cocktailsgd_sends_four_bits_of_the_largest_of_random_entries_and_owes_the_rest() -> None:
    size, lr, every = 3, 0.05, 2
    crew = Crew("cocktailsgd:random=50%,density=50%,every=2", size, lambda params: torch.optim.SGD(params, lr=lr))
    models, common, errors = np.zeros((size, *SHAPE)), np.zeros(SHAPE), np.zeros((size, *SHAPE))
    for step in range(60):
        for rank in range(size):
            models[rank] -= lr * crew.gradient(rank, step, models[rank])
        crew.step()
        if (step + 1) % every:
            continue
        sent = np.zeros_like(errors)
        for rank, worker in enumerate(crew.workers):
            intended = (errors[rank] + common - models[rank]).reshape(-1)
            key = worker.channels[0].key.fold("exchange", worker.num_exchanges - 1, "rank", rank)
            drawn = SharedSeedRandK(density=0.5).compress(torch.ones(24), key, Segments.whole(24)).to_dense().numpy()
            (places,) = drawn.nonzero()
            assert len(places) == 12
            largest = places[np.sort(np.argsort(-np.abs(intended[places]))[:6])]
            sent[rank].reshape(-1)[largest] = sixteen_bins(intended[largest])
            errors[rank] = intended.reshape(SHAPE) - sent[rank]
        common = common - sent.mean(axis=0)
        models[:] = common
        assert np.abs(crew.models() - models).max() < 2e-6
        # A value at the edge of a bin may fall to either side of it in f32: both go on from the same numbers.
        common = crew.common()
        models[:] = common
        for rank, worker in enumerate(crew.workers):
            errors[rank] = worker.state_dict()["tensors"]["memory.residual.w"].double().numpy()


@pytest.mark.parametrize("overlap", ["late", "eager"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_outer_gradients_are_one_period_late_but_eagerly_a_workers_own(overlap: str, nesterov: bool) -> None:
    """Kale et al. 2025: ``theta = OuterSGD(theta, own / P + (late mean - own late / P))``; late: the late mean."""
    size, every, lr, outer_lr, mu = 4, 3, 0.02, 0.7, 0.9
    options = f"every={every},overlap={overlap},nesterov={'yes' if nesterov else 'no'}"
    crew = Crew(f"diloco:{options}", size, lambda params: torch.optim.SGD(params, lr=lr))
    start, velocity, late = np.zeros((size, *SHAPE)), np.zeros((size, *SHAPE)), np.zeros((size, *SHAPE))
    models = start.copy()
    for step in range(90):
        for rank in range(size):
            models[rank] -= lr * crew.gradient(rank, step, models[rank])
        crew.step()
        if (step + 1) % every == 0:
            moved = start - models
            outer = np.broadcast_to(late.mean(axis=0), late.shape)
            if overlap == "eager":
                outer = moved / size + late.mean(axis=0) - late / size
            velocity = mu * velocity + outer
            start = start - outer_lr * (outer + mu * velocity if nesterov else velocity)
            late, models = moved, start.copy()
            # The mean of where the workers begin is the common point.
            assert np.abs(crew.common() - start.mean(axis=0)).max() < 5e-6
            spread = np.abs(crew.models() - crew.models()[0]).max()
            assert (spread > 1e-4) == (overlap == "eager")
        assert np.abs(crew.models() - models).max() < 5e-6


def test_a_late_mean_with_a_delay_or_a_mix_is_refused() -> None:
    for options, named in (("delay=2", "leave out the delay of 2 steps"), ("mix=0.5", "mix=0.5 has no effect")):
        with pytest.raises(ConfigError, match=named):
            parse_method(f"diloco:overlap=eager,{options}")


@pytest.mark.parametrize(("options", "has_weights", "max_norm"), [
    ("weights=norm", True, np.inf), ("max_norm=0.05", False, 0.05), ("weights=norm,max_norm=0.05", True, 0.05),
])  # fmt: skip
def test_outer_gradients_are_weighted_by_their_norm_and_their_mean_is_clipped(
    options: str, has_weights: bool, max_norm: float
) -> None:
    """The penalty of EDiT (Cheng et al. 2025) in plain numpy; one worker's data lie far from the others'."""
    size, every, lr = 3, 2, 0.02
    crew = Crew(f"diloco:every={every},{options}", size, lambda params: torch.optim.SGD(params, lr=lr))
    crew.targets[0] *= 20
    models, common, velocity = np.zeros((size, *SHAPE)), np.zeros(SHAPE), np.zeros(SHAPE)
    for step in range(60):
        for rank in range(size):
            models[rank] -= lr * crew.gradient(rank, step, models[rank])
        crew.step()
        if (step + 1) % every == 0:
            moved = common - models
            norms = np.linalg.norm(moved.reshape(size, -1), axis=1)
            weights = np.exp(-norms) / np.exp(-norms).sum() if has_weights else np.full(size, 1 / size)
            assert (weights[0] < 0.25) == has_weights
            mean = np.tensordot(weights, moved, axes=1)
            assert np.linalg.norm(mean) > 0.05
            mean *= min(1.0, max_norm / np.linalg.norm(mean))
            velocity = 0.9 * velocity + mean
            common = common - 0.7 * (mean + 0.9 * velocity)
            models[:] = common
        assert np.abs(crew.models() - models).max() < 1e-5


def test_weights_and_norms_that_cannot_be_are_refused() -> None:
    for given in ({"max_norm": 0.0}, {"weights": "norm", "mean": "contributors"}):
        with pytest.raises(ConfigError, match=r"above 0|leave out mean=contributors"):
            Gather(**given)


def test_dilocox_sends_factors_in_four_bits_whose_product_counts_one_period_later() -> None:
    size, every, lr = 3, 2, 0.02
    method = replace(parse_method("dilocox:every=2"), exchange=PowerIteration(rank=1, factors=Apart(Bins(4))))
    crew = Crew(method, size, lambda params: torch.optim.SGD(params, lr=lr))
    states = [worker.channels[0] for worker in crew.workers]
    direction = states[0].exchange["directions.w"][0].double().numpy()
    models, errors = np.zeros((size, *SHAPE)), np.zeros((size, *SHAPE))
    common, late, velocity = np.zeros(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE)
    for step in range(60):
        for rank in range(size):
            models[rank] -= lr * crew.gradient(rank, step, models[rank])
        crew.step()
        if (step + 1) % every:
            continue
        intended = errors + common - models
        left = np.mean([sixteen_bins(each @ direction) for each in intended], axis=0)
        left /= np.linalg.norm(left)
        rights = np.stack([sixteen_bins(each.T @ left) for each in intended])
        errors = intended - left[:, None] * rights[:, None, :]
        velocity = 0.9 * velocity + late
        common = common - 0.7 * (late + 0.9 * velocity)
        late = np.outer(left, rights.mean(axis=0))
        assert np.abs(crew.common() - common).max() < 5e-6
        assert np.abs(states[0].update["waiting"].numpy().reshape(SHAPE) - late).max() < 5e-6
        residuals = np.stack([each.memory["residual"].double().numpy().reshape(SHAPE) for each in states])
        assert np.abs(residuals - errors).max() < 5e-6
        # A value at the edge of a bin may fall to either side of it in f32: both go on from the same numbers.
        errors, models = residuals, crew.models()
        common, late, velocity = (
            states[0].update[name].double().numpy().reshape(SHAPE) for name in ("reference", "waiting", "velocity")
        )
        direction = states[0].exchange["directions.w"][0].double().numpy()
    assert crew.workers[0].memory_norm() > 0.01
