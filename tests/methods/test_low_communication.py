"""Methods with tens of local steps, against their papers' pseudo-code in plain numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from thinwire.methods import parse_method
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

    def __init__(self, method: str, size: int, optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
        generator = np.random.default_rng(7)
        self.size = size
        self.curvature = generator.uniform(0.5, 2.0, SHAPE)
        self.targets = generator.standard_normal((size, 1000, *SHAPE))
        models = [Bowl() for _ in range(size)]
        self.workers = [
            Worker(parse_method(method), model, optimizer(model.parameters()), rank=rank, size=size, seed=0)
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
