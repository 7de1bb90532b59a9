"""What the strongly convex theorems bound, measured on logistic regression of which every constant is computed."""

import dataclasses
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from thinwire.compressors import segment_traits
from thinwire.experiments.sharding import make_batches
from thinwire.experiments.tasks.logreg import LogisticRegression, logreg
from thinwire.experiments.theorems import max_gap
from thinwire.experiments.training import make_crew, one_torch_thread, take_gradient
from thinwire.layout import Segments
from thinwire.methods import parse_method
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.theory import (
    LOCAL_SGD,
    MEM_SGD,
    QSPARSE_LOCAL_SGD,
    InverseTime,
    RunningAverage,
    StronglyConvex,
    Suboptimality,
    decaying_memory_bound,
    local_sgd_shift,
    local_sgd_suboptimality,
    mem_sgd_shift,
    mem_sgd_suboptimality,
    memory_bound,
    qsparse_shift,
    qsparse_suboptimality,
)

DIMENSION, BATCH, STEPS, EVERY = 20, 2, 400, 25
TASK: LogisticRegression = dataclasses.replace(logreg(400, DIMENSION), regularisation=0.1)
"""With more of a regulariser than ``logreg`` has, hundreds of steps come near the optimum."""
MU = TASK.regularisation
SMOOTHNESS = 0.25 * float(TASK.signed_rows.double().square().sum(1).max()) + MU
KAPPA = SMOOTHNESS / MU


@dataclass
class Course:
    """What was measured on the way.

    Args:
        values: of the objective at the weighted average, by steps made.
        memories: mean squares over workers of the residuals' norms, by steps made.
        gradient_norm: G of the models that were passed.
        noise: sigma of them, for one example.
    """

    values: dict[int, float] = field(default_factory=dict)
    memories: dict[int, float] = field(default_factory=dict)
    gradient_norm: float = 0.0
    noise: float = 0.0

    def problem(self) -> StronglyConvex:
        return StronglyConvex(
            smoothness=SMOOTHNESS, mu=MU, gradient_norm=self.gradient_norm, noise=self.noise,
            distance=float(TASK.optimum.weights.norm()),
        )  # fmt: skip

    def pass_by(self, weights: Tensor) -> None:
        rows = TASK.signed_rows
        each = MU * weights - torch.sigmoid(-(rows @ weights)).unsqueeze(1) * rows
        self.gradient_norm = max(self.gradient_norm, math.sqrt(float(each.square().sum(1).mean())))
        self.noise = max(self.noise, math.sqrt(float((each - each.mean(0)).square().sum(1).mean())))


def objective(weights: Tensor) -> float:
    margins = TASK.signed_rows.double() @ weights
    return float(torch.nn.functional.softplus(-margins).mean() + MU / 2 * weights.square().sum())


def train(method_text: str, workers: int, rates: InverseTime, steps: int = STEPS) -> Course:
    """With the step sizes of a theorem, and its average over workers and steps."""
    method, key, course = parse_method(method_text), Key(0), Course()
    crew = make_crew(TASK, method, "sgd", 1.0, range(workers), workers, 0)
    batches = make_batches(TASK.labels, workers, "random", BATCH, key)
    simulation = Simulation(workers)
    average, mean = RunningAverage(weights="quadratic", shift=rates.shift), torch.zeros(DIMENSION, dtype=torch.float64)
    with one_torch_thread():
        for step in range(steps):
            models = [worker.parameters()["weight"].detach().flatten().clone() for worker in crew]
            mean.lerp_(torch.stack(models).double().mean(0), average.rho(step))
            programs = []
            for worker, model in zip(crew, models, strict=True):
                course.pass_by(model)
                take_gradient(TASK, worker, batches[worker.rank], key, step)
                for group in worker.optimizer.param_groups:
                    group["lr"] = rates.at(step)
                programs.append(worker.step())
            simulation.run(programs)
            if (step + 1) % EVERY == 0:
                course.values[step + 1] = objective(mean) - TASK.optimum.value
                course.memories[step + 1] = sum(worker.memory_norm() ** 2 for worker in crew) / workers
    return course


def check(course: Course, bounds: dict[int, Suboptimality]) -> None:
    assert course.values.keys() == bounds.keys()
    for steps, value in course.values.items():
        assert 0.0 <= value <= bounds[steps].total
    # It is no bound on something that stands still.
    assert course.values[STEPS] < 0.2 * (math.log(2.0) - TASK.optimum.value)


def gamma_of(method: str) -> float:
    return segment_traits(parse_method(method).compressor, Segments.whole(DIMENSION)).gamma


@pytest.mark.parametrize(("method", "workers"), [("sgd", 1), ("local-sgd:every=1", 4), ("local-sgd:every=4", 4)])
def test_sgd_and_local_sgd(method: str, workers: int) -> None:
    every = max_gap(parse_method(method))
    rates = InverseTime(mu=MU, shift=1.01 * local_sgd_shift(KAPPA, every), numerator=LOCAL_SGD)
    course = train(method, workers, rates)
    problem = course.problem()
    check(course, {
        steps: local_sgd_suboptimality(problem, steps=steps, shift=rates.shift, workers=workers, max_gap=every)
        for steps in course.values
    })  # fmt: skip
    assert set(course.memories.values()) == {0.0}


@pytest.mark.parametrize("select", ["top", "random"])
@pytest.mark.parametrize("k", [1, 4, 10])
def test_mem_sgd(k: int, select: str) -> None:
    rates = InverseTime(mu=MU, shift=mem_sgd_shift(DIMENSION, k), numerator=MEM_SGD)
    course = train(f"mem-sgd:select={select},k={k}", 1, rates)
    gamma, problem = k / DIMENSION, course.problem()
    check(course, {
        steps: mem_sgd_suboptimality(problem, steps=steps, shift=rates.shift, gamma=gamma) for steps in course.values
    })  # fmt: skip
    for steps, square in course.memories.items():
        norm = problem.gradient_norm
        assert 0.0 < square <= memory_bound(numel=DIMENSION, k=k, lr=rates.at(steps), gradient_norm=norm)
        assert square <= decaying_memory_bound(
            gamma=gamma, max_gap=1, shift=rates.shift, lr=rates.at(steps), gradient_norm=norm
        )


@pytest.mark.parametrize("density", ["10%", "25%", "50%"])
def test_qsparse_local_sgd(density: str) -> None:
    method = f"qsparse:density={density},levels=15,every=4"
    gamma, every = gamma_of(method), max_gap(parse_method(method))
    rates = InverseTime(mu=MU, shift=1.01 * qsparse_shift(KAPPA, every, gamma), numerator=QSPARSE_LOCAL_SGD)
    course = train(method, 4, rates)
    problem = course.problem()
    check(course, {
        steps: qsparse_suboptimality(
            problem, steps=steps, shift=rates.shift, workers=4, gamma=gamma, max_gap=every
        )
        for steps in course.values
    })  # fmt: skip
    for steps, square in course.memories.items():
        begun = rates.at(max(0, steps - every + 1))
        assert (
            0.0
            < square
            <= decaying_memory_bound(
                gamma=gamma, max_gap=every, shift=rates.shift, lr=begun, gradient_norm=problem.gradient_norm
            )
        )


def test_a_shift_too_small_breaks_what_is_bounded() -> None:
    """The same measurements, where the theorem's assumption does not hold."""
    k = 1
    rates = InverseTime(mu=MU, shift=1.0, numerator=MEM_SGD)
    course = train(f"mem-sgd:select=random,k={k}", 1, rates)
    at_start = Course()
    at_start.pass_by(torch.zeros(DIMENSION))
    bounds = {
        steps: memory_bound(numel=DIMENSION, k=k, lr=rates.at(steps), gradient_norm=at_start.gradient_norm)
        for steps in course.memories
    }
    assert any(square > bounds[steps] for steps, square in course.memories.items())
