from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import (
    CATALOGUE,
    EXCHANGES,
    OPTIMIZERS,
    Crew,
    backward,
    bits,
    data_parallel,
    ends_with_one_model,
    flat,
    saved,
    shared,
    small_model,
    suited,
)
from torch import nn

from thinwire.compressors import Identity
from thinwire.methods import Every, Follow, GradientAveraging, ModelAveraging, Outer, parse_method
from thinwire.worker import needs_server


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradient_averaging_is_data_parallel_training_bit_for_bit(name: str, size: int) -> None:
    expected = data_parallel(size, 6, OPTIMIZERS[name])
    crew = Crew(parse_method("sgd"), size, OPTIMIZERS[name]).run(6)
    assert all(bits(flat(model)) == bits(expected) for model in crew.models)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_the_route_of_exact_gradients_does_not_change_a_bit(exchange: Any, size: int) -> None:
    # A gathered sum begins with 0.0 + g, which is g.
    expected = data_parallel(size, 5, OPTIMIZERS["momentum"])
    crew = Crew(GradientAveraging(exchange=exchange), size, OPTIMIZERS["momentum"]).run(5)
    assert all(bits(flat(model)) == bits(expected) for model in crew.models)


class Slopes(nn.Module):
    """A linear function: its gradient is the data, so that small integers and powers of two stay exact."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.arange(-4.0, 4.0))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
@pytest.mark.parametrize("kind", [GradientAveraging, ModelAveraging])
def test_without_compression_every_method_is_sgd_where_arithmetic_is_exact(
    kind: Any, exchange: Any, momentum: float, size: int
) -> None:
    def optimizer(params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.25, momentum=momentum)

    crew = Crew(kind(exchange=exchange), size, optimizer, Slopes)
    w, velocity = np.arange(-4.0, 4.0), np.zeros(8)
    generator = np.random.default_rng(size)
    for _ in range(5):
        slopes = generator.integers(-8, 9, (size, 8)).astype(np.float32)
        for worker, slope in zip(crew.workers, slopes, strict=True):
            (worker.model.w * torch.from_numpy(slope)).sum().backward()  # type: ignore[operator]
        crew.simulation.run([worker.step() for worker in crew.workers])
        for worker in crew.workers:
            worker.optimizer.zero_grad()
        velocity = momentum * velocity + slopes.astype(np.float64).mean(axis=0)
        w = w - 0.25 * velocity
        assert all(np.array_equal(flat(model).double().numpy(), w) for model in crew.models)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ["plain", "momentum"])
def test_without_compression_averaging_models_every_step_is_data_parallel_sgd(name: str, size: int) -> None:
    # SGD's step is linear in the gradients, also with momentum: the mean of the models follows the mean gradient.
    expected = data_parallel(size, 8, OPTIMIZERS[name])
    crew = Crew(ModelAveraging(), size, OPTIMIZERS[name]).run(8)
    assert all(torch.allclose(flat(model), expected, rtol=1e-6, atol=1e-6) for model in crew.models)


@pytest.mark.parametrize("text", CATALOGUE)
@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_one_worker_without_compression_is_serial_training(text: str, exchange: Any) -> None:
    method = parse_method(text)
    if isinstance(method, ModelAveraging) and method.update not in (Outer(), Follow()):
        pytest.skip("an update that does more than to average does so with one worker too")
    method = replace(method, compressor=Identity(), warm_up=None)
    if not method.memory.keeps_only_losses:
        pytest.skip("a memory of more than what messages leave out is there without compression, too")
    if not needs_server(method) and method.exchange.workers_agree:
        method = replace(method, exchange=exchange)
    for name in OPTIMIZERS:
        (worker,) = Crew(method, 1, OPTIMIZERS[name]).run(6).workers
        # It goes on until a server tells it to pause, which is after its next exchange.
        serial = data_parallel(1, worker.num_steps, suited(method, OPTIMIZERS[name]))
        assert torch.allclose(flat(worker.model), serial, rtol=1e-6, atol=1e-6)
        assert worker.memory_norm() == 0.0
        if isinstance(method, GradientAveraging):
            assert bits(flat(worker.model)) == bits(serial)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("every", [1, 3, 8])
@pytest.mark.parametrize("name", ["plain", "momentum", "adam"])
def test_local_sgd_averages_models_that_train_alone(name: str, every: int, size: int) -> None:
    crew = Crew(parse_method(f"local-sgd:every={every}"), size, OPTIMIZERS[name])
    models = [small_model() for _ in range(size)]
    steppers = [OPTIMIZERS[name](model.parameters()) for model in models]
    mean = flat(models[0])
    for step in range(10):
        crew.step()
        for rank, (model, stepper) in enumerate(zip(models, steppers, strict=True)):
            backward(model, rank, step)
            stepper.step()
        if (step + 1) % every == 0:
            mean = torch.stack([flat(model) for model in models]).mean(dim=0)
            for model in models:
                nn.utils.vector_to_parameters(mean.clone(), model.parameters())
        for worker, model in zip(crew.workers, models, strict=True):
            assert torch.allclose(flat(worker.model), flat(model), rtol=1e-5, atol=2e-6)
            assert torch.allclose(shared(worker), mean, rtol=1e-5, atol=2e-6)
    assert [worker.num_exchanges for worker in crew.workers] == [10 // every] * size


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_outer_step_is_sgd_on_the_mean_displacement(nesterov: bool) -> None:
    method = ModelAveraging(schedule=Every(2), update=Outer(lr=0.7, momentum=0.9, nesterov=nesterov))
    crew = Crew(method, 3)
    models = [small_model() for _ in range(3)]
    steppers = [OPTIMIZERS["plain"](model.parameters()) for model in models]
    outer = nn.Parameter(flat(models[0]))
    outer_stepper = torch.optim.SGD([outer], lr=0.7, momentum=0.9, nesterov=nesterov)
    for step in range(8):
        crew.step()
        for rank, (model, stepper) in enumerate(zip(models, steppers, strict=True)):
            backward(model, rank, step)
            stepper.step()
        if step % 2 == 1:
            outer.grad = outer.detach() - torch.stack([flat(model) for model in models]).mean(dim=0)
            outer_stepper.step()
            for model in models:
                nn.utils.vector_to_parameters(outer.detach().clone(), model.parameters())
        assert torch.allclose(shared(crew.workers[0]), outer.detach(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("text", CATALOGUE)
@pytest.mark.parametrize("size", [2, 3])
def test_all_workers_hold_the_same_bits_after_every_exchange(text: str, size: int) -> None:
    method = parse_method(text)
    if not method.exchange.workers_agree:
        pytest.skip("each worker has a model of its own")
    crew = Crew(method, size)
    for _ in range(6):
        before = [worker.num_exchanges for worker in crew.workers]
        crew.step()
        assert len({bits(shared(worker)) for worker in crew.workers}) == 1
        exchanged = crew.workers[0].num_exchanges > before[0]
        if ends_with_one_model(method) and (exchanged or isinstance(method, GradientAveraging)):
            assert len({bits(flat(model)) for model in crew.models}) == 1
    traffic = crew.simulation.traffic
    assert sum(link.bytes_sent for link in traffic) == sum(link.bytes_received for link in traffic)
    assert len({worker.num_exchanges for worker in crew.workers}) == 1


QSPARSE = [
    "qsparse:density=20%,levels=3",
    "qsparse:density=20%,levels=3,exchange=gather,granularity=tensor",
    "qsparse:select=random,density=20%",
    "signtopk:density=20%",
    "topk:k=3",
    "ef-signsgd",
]


@pytest.mark.parametrize("every", [1, 3, 8])
@pytest.mark.parametrize("text", QSPARSE)
def test_the_mean_model_is_the_virtual_iterate_and_the_mean_memory(text: str, every: int) -> None:
    """mean_r xhat - virtual = mean_r m, where the virtual iterate takes the mean gradient at every step."""
    size, lr = 4, 0.1
    crew = Crew(parse_method(text + ("," if ":" in text else ":") + f"every={every}"), size)
    virtual = flat(crew.models[0]).double()
    for step in range(17):
        gradients = []
        for rank, model in enumerate(crew.models):
            backward(model, rank, step)
            gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
        virtual -= lr * torch.stack(gradients).double().mean(dim=0)
        crew.step()
        models = torch.stack([flat(model) for model in crew.models]).double().mean(dim=0)
        memory = torch.stack([saved(worker, "memory.residual") for worker in crew.workers]).double().mean(dim=0)
        scale = float(virtual.norm())
        assert float((models - virtual - memory).norm()) <= 1e-6 * scale
        if step >= every:
            assert float(memory.norm()) > 1e-3 * lr  # the identity is not that of an empty memory


@pytest.mark.parametrize("text", ["mem-sgd:k=1", "mem-sgd:select=random,k=2", "mem-sgd:k=0.5"])
def test_the_model_of_mem_sgd_is_the_virtual_iterate_and_the_memory(text: str) -> None:
    """x_t - x~_t = m_t, also when the learning rate changes: it enters the memory with the gradient."""
    crew = Crew(parse_method(text), 1)
    (worker,), (model,) = crew.workers, crew.models
    virtual = flat(model).double()
    for step in range(30):
        lr = 2.0 / (10 + step)
        worker.optimizer.param_groups[0]["lr"] = lr
        backward(model, 0, step)
        virtual -= lr * torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]).double()
        crew.step()
        memory = saved(worker, "memory.residual").double()
        assert float((flat(model).double() - virtual - memory).norm()) <= 1e-6 * float(virtual.norm())
        assert worker.memory_norm() == pytest.approx(float(memory.norm()), rel=1e-6)
