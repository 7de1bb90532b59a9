"""0/1 Adam against its algorithm in numpy, and the laws of what it is made of."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from method_cases import Crew, backward, bits, flat, saved, shared, small_model

from thinwire.compressors import Identity
from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges import Gather
from thinwire.memory import NoMemory
from thinwire.methods import (
    DoublingGaps,
    DoublingSteps,
    Every,
    Method,
    ModelAveraging,
    Staggered,
    ZeroOneAdam,
    parse_method,
)
from thinwire.simulator import Simulation
from thinwire.steps import Steps
from thinwire.worker import Worker

Array = npt.NDArray[np.float64]
LR, BETA1, BETA2, EPS, SIZE = 0.01, 0.9, 0.99, 1e-6, 3


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=LR)


def rate(step: int) -> float:
    """It falls, and is 0 at a few steps."""
    return 0.0 if step in (4, 5) else LR * 0.97**step


def set_rate(crew: Crew, step: int) -> None:
    for worker in crew.workers:
        worker.optimizer.param_groups[0]["lr"] = rate(step)


def gradients(crew: Crew, step: int) -> Array:
    """Of each worker, where its own model is."""
    found = []
    for rank, model in enumerate(crew.models):
        backward(model, rank, step)
        found.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
    return torch.stack(found).double().numpy()


def signs(x: Array) -> Array:
    """One bit an entry and the mean magnitude of each tensor."""
    bounds = np.cumsum([0, *(param.numel() for param in small_model().parameters())])
    found = np.empty_like(x)
    for start, stop in pairwise(bounds.tolist()):
        piece = x[..., start:stop]
        found[..., start:stop] = np.where(piece < 0, -1.0, 1.0) * np.abs(piece).mean(axis=-1, keepdims=True)
    return found


def over_root(m: Array, v: Array) -> Array:
    """``m / sqrt(v + eps)``; where v is 0 nothing."""
    found: Array = np.where(v == 0.0, 0.0, m / np.sqrt(v + EPS))
    return found


def method(route: str, schedule: DoublingSteps, freeze: int | None) -> Method:
    product = parse_method(f"01-adam:exchange={route}")
    assert isinstance(product, ModelAveraging)
    update = ZeroOneAdam(beta1=BETA1, beta2=BETA2, eps=EPS, variance=DoublingGaps(4), freeze=freeze)
    return replace(product, schedule=schedule, update=update)


@pytest.mark.parametrize("freeze", [None, 12])
@pytest.mark.parametrize("route", ["owners", "gather"])
def test_it_is_the_algorithm(route: str, freeze: int | None) -> None:
    """50 steps in float64: local steps of up to 4, variances learnt among them, rates that change."""
    schedule = DoublingSteps(switch=8, period=6, most=4)
    crew = Crew(method(route, schedule, freeze), SIZE, sgd)
    start = flat(crew.models[0]).double().numpy()
    x, common = np.stack([start] * SIZE), start
    m, u, errors = (np.zeros((SIZE, 47)) for _ in range(3))
    v, owner, rates, num_synced, num_learnt = np.zeros(47), np.zeros(47), 0.0, 0, 0
    for step in range(50):
        set_rate(crew, step)
        g = gradients(crew, step)
        m = BETA1 * m + (1 - BETA1) * g
        x = x - rate(step) * over_root(m, v)
        u, rates = u + rate(step) * m, rates + rate(step)
        if schedule.due(step + 1, 0):
            intended = u + errors
            sent = signs(intended)
            errors, mean = intended - sent, sent.mean(axis=0)
            if route == "owners":
                owner = owner + mean
                mean = signs(owner)
                owner = owner - mean
            m = np.stack([mean / rates] * SIZE) if rates else m
            common = common - over_root(mean, v)
            x, u, rates = np.stack([common] * SIZE), np.zeros((SIZE, 47)), 0.0
            num_synced += 1
        if DoublingGaps(4).due(step + 1, 0) and (freeze is None or step < freeze):
            v = BETA2 * v + (1 - BETA2) * g.mean(axis=0) ** 2
            num_learnt += 1
        crew.step()
        for rank, (worker, model) in enumerate(zip(crew.workers, crew.models, strict=True)):
            np.testing.assert_allclose(flat(model).numpy(), x[rank], rtol=0, atol=1e-6)
            np.testing.assert_allclose(shared(worker).numpy(), common, rtol=0, atol=1e-6)
            np.testing.assert_allclose(saved(worker, "update.variance"), v, rtol=1e-5, atol=1e-9)
            np.testing.assert_allclose(saved(worker, "update.momentum"), m[rank], rtol=1e-4, atol=1e-6)
    assert [worker.num_exchanges for worker in crew.workers] == [num_synced] * SIZE
    assert num_synced < 30
    assert num_learnt == (15 if freeze is None else 8)
    assert np.abs(common - start).max() > 0.01


def test_what_is_sent_is_signs_and_now_and_then_gradients() -> None:
    crew = Crew(method("gather", DoublingSteps(switch=4, period=4, most=4), 6), SIZE, sgd)
    for step in range(24):
        before = crew.workers[0].message_bytes
        due = crew.workers[0].method.schedule.due(step + 1, 0)  # type: ignore[union-attr]
        crew.step()
        grew = crew.workers[0].message_bytes - before
        learns = step < 6 and DoublingGaps(4).due(step + 1, 0)
        assert (grew >= 4 * 47) == learns
        assert (0 < grew - 4 * 47 * learns < 60) == due


def test_exact_messages_after_every_step_are_adam() -> None:
    """Without compression all workers have the same m: Adam's on the mean gradient, with the v of the step before."""
    update = ZeroOneAdam(beta1=BETA1, beta2=BETA2, eps=EPS, variance=Every(1))
    exact = ModelAveraging(update=update, compressor=Identity(), memory=NoMemory(), exchange=Gather())
    crew = Crew(exact, SIZE, sgd)
    x, m, v = flat(crew.models[0]).double().numpy(), np.zeros(47), np.zeros(47)
    for step in range(40):
        g = gradients(crew, step).mean(axis=0)
        m = BETA1 * m + (1 - BETA1) * g
        x, v = x - LR * over_root(m, v), BETA2 * v + (1 - BETA2) * g**2
        crew.step()
        assert len({bits(flat(model)) for model in crew.models}) == 1
        np.testing.assert_allclose(flat(crew.models[0]).numpy(), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("place", ["local", "variance"])
def test_nan_is_told_to_all(place: str) -> None:
    """In a local step by the next exchange; where gradients are all-reduced at once."""
    freeze = 1 if place == "local" else None
    crew = Crew(method("owners", DoublingSteps(period=1, most=4), freeze), SIZE, sgd).run(8)
    while place == "variance" and not DoublingGaps(4).due(crew.num_steps + 1, 0):
        crew.step()
    for rank, model in enumerate(crew.models):
        backward(model, rank, crew.num_steps)
    guilty = dict(crew.models[1].named_parameters())["2.weight"]
    assert guilty.grad is not None
    guilty.grad[1, 2] = math.nan

    def until_told(worker: Worker) -> Steps[NumericsError | None]:
        for again in range(5):
            try:
                yield from worker.step()
            except NumericsError as error:
                return error
            backward(worker.model, worker.rank, crew.num_steps + again + 1)
        return None

    for error in crew.simulation.run([until_told(worker) for worker in crew.workers]):
        assert isinstance(error, NumericsError)
        assert place == "local" or "'2.weight'" in str(error)


def test_a_step_that_a_loss_scale_skips_leaves_the_momentum() -> None:
    crew = Crew(method("owners", DoublingSteps(period=1, most=4), 1), 1, sgd).run(9)
    (worker,), (model,) = crew.workers, crew.models
    backward(model, 0, 9)
    grad = next(model.parameters()).grad
    assert grad is not None
    grad[0, 0] = math.inf
    before = {name: bits(each) for name, each in worker.state_dict()["tensors"].items()}
    Simulation(1).run([worker.before_step(skips=True)])
    assert math.isinf(float(grad[0, 0]))
    assert {name: bits(each) for name, each in worker.state_dict()["tensors"].items()} == before


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
        lambda params: torch.optim.SGD(params, lr=0.1, weight_decay=0.1),
        lambda params: torch.optim.Adam(params, lr=0.1),
        lambda params: torch.optim.SGD([{"params": [each], "lr": 0.1 * (i + 1)} for i, each in enumerate(params)]),
    ],
)
def test_a_second_optimizer_is_refused(optimizer: Any) -> None:
    model = small_model()
    with pytest.raises(ConfigError, match=r"take torch\.optim\.SGD with one learning rate"):
        Worker(parse_method("01-adam"), model, optimizer(model.parameters()), rank=0, size=1, seed=0)


@pytest.mark.parametrize("given", [{"fragments": 2}, {"delay": 1}])
def test_parts_of_the_model_have_no_common_exchange(given: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="leave out fragments, delay and states"):
        ModelAveraging(update=ZeroOneAdam(), **given)  # type: ignore[arg-type]


def test_constants_that_are_none_are_refused() -> None:
    for constants, told in (({"beta1": 1.0}, "mean"), ({"eps": 0.0}, "above 0"), ({"freeze": 0}, "at least 1")):
        with pytest.raises(ConfigError, match=told):
            ZeroOneAdam(**constants)
    with pytest.raises(ConfigError, match="its own steps"):
        ZeroOneAdam(variance=Staggered(4))


@pytest.mark.parametrize("count", [1, 3, 16])
def test_gaps_double_after_so_many(count: int) -> None:
    steps = [step for step in range(1, 1000) if DoublingGaps(count).due(step, 0)]
    gaps = [after - before for before, after in pairwise(steps)]
    assert steps[0] == 1
    assert gaps == [2 ** (j // count) for j in range(len(gaps))]


@pytest.mark.parametrize(("switch", "period", "most"), [(0, 1, 16), (5, 7, 8), (3, 40, 3), (10, 2, 1)])
def test_no_gap_is_longer_than_the_present_one(switch: int, period: int, most: int) -> None:
    schedule = DoublingSteps(switch=switch, period=period, most=most)
    steps = [step for step in range(1, 400) if schedule.due(step, 0)]
    assert steps[: switch + period] == list(range(1, switch + period + 1))
    for before, after in pairwise(steps):
        allowed = min(most, 2 ** min(10, max(0, after - switch - 1) // period))
        assert after - before <= allowed
    assert steps[-1] - steps[-2] == most
    with pytest.raises(ConfigError, match="period"):
        DoublingSteps(period=0)
    with pytest.raises(ConfigError, match="switch"):
        DoublingSteps(switch=-1)
