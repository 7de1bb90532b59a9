import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thinwire.compressors import Identity
from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges import AllReduce, Gather, ParameterServer
from thinwire.methods import CATALOG, Every, GradientAveraging, Method, ModelAveraging, Outer, parse_method
from thinwire.simulator import Simulation
from thinwire.steps import Steps
from thinwire.worker import Worker

CATALOGUE = [
    *(row.name for row in CATALOG),
    "topk:density=20%,every=3",
    "signtopk:density=20%,every=3,granularity=tensor",
    "qsparse:select=random,density=20%,every=2",
    "qsparse:density=20%,values=signs,exchange=gather",
    "mem-sgd:select=random,k=0.5",
    "mem-sgd:density=10%,memory=none,exchange=server",
    "qsgd:bits=2,granularity=tensor,exchange=server",
    "ef-signsgd:every=2,exchange=server",
]
EXCHANGES = (AllReduce(), Gather(), ParameterServer())

Optimizer = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "plain": lambda params: torch.optim.SGD(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "nesterov and decay": lambda params: torch.optim.SGD(
        params, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
}


class Crew:
    """Workers in a simulation on least squares through a small network; the batch depends on rank and step alone."""

    def __init__(
        self,
        method: Method,
        size: int,
        optimizer: Optimizer = OPTIMIZERS["plain"],
        model: Callable[[], nn.Module] | None = None,
    ) -> None:
        self.models = [(model or small_model)() for _ in range(size)]
        self.workers = [
            Worker(method, model, optimizer(model.parameters()), rank=rank, size=size, seed=5)
            for rank, model in enumerate(self.models)
        ]
        self.simulation = Simulation(size)

    def step(self) -> None:
        for rank, worker in enumerate(self.workers):
            backward(self.models[rank], rank, worker.num_steps)
        self.simulation.run([worker.step() for worker in self.workers])

    def run(self, num_steps: int) -> "Crew":
        for _ in range(num_steps):
            self.step()
        return self


def small_model() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.5)
    return model


def backward(model: nn.Module, rank: int, step: int) -> None:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    x, noise = torch.randn(8, 6, generator=generator), torch.randn(8, 2, generator=generator)
    model.zero_grad()
    ((model(x) - x[:, :2].sin() - 0.1 * noise) ** 2).mean().backward()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([param.detach().reshape(-1) for param in model.parameters()])


def shared(worker: Worker) -> Tensor:
    return torch.cat([each.reshape(-1) for each in worker.shared_parameters().values()])


def saved(worker: Worker, part: str) -> Tensor:
    tensors = worker.state_dict()["tensors"]
    return torch.cat([each.reshape(-1) for name, each in tensors.items() if name.startswith(part)])


def bits(x: Tensor) -> bytes:
    return x.numpy().tobytes()


def data_parallel(size: int, num_steps: int, optimizer: Optimizer, model: nn.Module | None = None) -> Tensor:
    """Plain data-parallel training: one model, gradients summed in rank order over P."""
    model = model or small_model()
    stepper = optimizer(model.parameters())
    for step in range(num_steps):
        totals: list[Tensor] = []
        for rank in range(size):
            backward(model, rank, step)
            grads = [param.grad.clone() for param in model.parameters() if param.grad is not None]
            totals = [a + b for a, b in zip(totals, grads, strict=True)] if totals else grads
        for param, total in zip(model.parameters(), totals, strict=True):
            param.grad = total / size
        stepper.step()
    return flat(model)


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
    method = replace(parse_method(text), compressor=Identity(), exchange=exchange)
    for name in OPTIMIZERS:
        (worker,) = Crew(method, 1, OPTIMIZERS[name]).run(6).workers
        serial = data_parallel(1, 6, OPTIMIZERS[name])
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
    crew = Crew(parse_method(text), size)
    for _ in range(6):
        before = [worker.num_exchanges for worker in crew.workers]
        crew.step()
        assert len({bits(shared(worker)) for worker in crew.workers}) == 1
        exchanged = crew.workers[0].num_exchanges > before[0]
        if exchanged or isinstance(crew.workers[0].method, GradientAveraging):
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


def guarded(program: Steps[None]) -> Steps[Exception | None]:
    try:
        yield from program
    except NumericsError as error:
        return error
    return None


POISONED = ["sgd", "local-sgd:every=1", "qsgd", "qsgd:exchange=server", "topk:k=1", "topk:k=1,exchange=server",
            "mem-sgd:select=random,k=0.01", "ef-signsgd", "qsparse", "signtopk:granularity=tensor"]  # fmt: skip


@pytest.mark.parametrize("culprit", [0, 3])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("text", POISONED)
def test_a_number_that_is_none_stops_every_worker_at_the_same_step(text: str, poison: float, culprit: int) -> None:
    crew = Crew(parse_method(text), 4).run(2)
    before = [bits(shared(worker)) for worker in crew.workers]
    exchanges = [worker.num_exchanges for worker in crew.workers]
    for rank, model in enumerate(crew.models):
        backward(model, rank, 2)
    guilty = dict(crew.models[culprit].named_parameters())["2.weight"]
    assert guilty.grad is not None
    guilty.grad[1, 2] = poison
    told = crew.simulation.run([guarded(worker.step()) for worker in crew.workers])
    for error in told:
        assert isinstance(error, NumericsError)
        assert "'2.weight'" in str(error)
        assert "step 3" in str(error)
    assert [bits(shared(worker)) for worker in crew.workers] == before
    assert [worker.num_exchanges for worker in crew.workers] == exchanges


def test_poison_of_opposite_signs_does_not_cancel() -> None:
    crew = Crew(parse_method("sgd"), 2)
    for rank, model in enumerate(crew.models):
        backward(model, rank, 0)
        grad = next(iter(model.parameters())).grad
        assert grad is not None
        grad[0, 0] = float("inf") if rank else float("-inf")
    told = crew.simulation.run([guarded(worker.step()) for worker in crew.workers])
    assert all(isinstance(error, NumericsError) and "'0.weight'" in str(error) for error in told)


def checkpoint(crew: Crew) -> list[bytes]:
    files = []
    for worker in crew.workers:
        file = io.BytesIO()
        parts = {"w": worker.state_dict(), "m": worker.model.state_dict(), "o": worker.optimizer.state_dict()}
        torch.save(parts, file)
        files.append(file.getvalue())
    return files


def resume(crew: Crew, files: Sequence[bytes]) -> Crew:
    for worker, file in zip(crew.workers, files, strict=True):
        parts = torch.load(io.BytesIO(file), weights_only=True)
        worker.model.load_state_dict(parts["m"])
        worker.optimizer.load_state_dict(parts["o"])
        worker.load_state_dict(parts["w"])
    return crew


def everything(crew: Crew) -> list[Any]:
    return [
        (bits(flat(w.model)), w.state_dict()["counters"], [(n, bits(t)) for n, t in w.state_dict()["tensors"].items()])
        for w in crew.workers
    ]


OUTER = ModelAveraging(schedule=Every(2), update=Outer(lr=0.7, momentum=0.9, nesterov=True))


@pytest.mark.parametrize("method", [*map(parse_method, CATALOGUE), OUTER], ids=[*CATALOGUE, "outer"])
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_what_is_resumed_is_what_was_not_interrupted(method: Method, name: str) -> None:
    crew = Crew(method, 3, OPTIMIZERS[name]).run(4)
    files = checkpoint(crew)
    crew.run(5)
    resumed = resume(Crew(method, 3, OPTIMIZERS[name]), files).run(5)
    assert everything(resumed) == everything(crew)


def worker_of(text: str, rank: int = 0, size: int = 2, seed: int = 5, model: nn.Module | None = None) -> Worker:
    model = model or small_model()
    return Worker(parse_method(text), model, OPTIMIZERS["plain"](model.parameters()), rank=rank, size=size, seed=seed)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: worker_of("topk", rank=1), ["rank 0", "rank 1"]),
        (lambda: worker_of("topk", size=3), ["size 2", "size 3"]),
        (lambda: worker_of("topk", seed=6), ["seed 5", "seed 6"]),
        (lambda: worker_of("topk:memory=none"), ["of method ModelAveraging(", "ErrorFeedback", "NoMemory"]),
        (lambda: worker_of("sgd"), ["of method ModelAveraging(", "GradientAveraging("]),
        (lambda: worker_of("topk:density=2%"), ["density=0.01", "density=0.02"]),
        (lambda: worker_of("topk:exchange=server"), ["Gather()", "ParameterServer(server=0)"]),
        (lambda: worker_of("topk", model=nn.Sequential(nn.Linear(6, 5))), ["another model", "2.bias"]),
        (lambda: worker_of("topk", model=nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))), ["2.weight"]),
    ],
)
def test_the_state_of_another_worker_is_refused_and_changes_nothing(
    other: Callable[[], Worker], named: list[str]
) -> None:
    crew = Crew(parse_method("topk"), 2).run(3)
    state, worker = crew.workers[0].state_dict(), other()
    before = [bits(each) for each in worker.state_dict()["tensors"].values()], worker.state_dict()["counters"]
    with pytest.raises(ConfigError) as refused:
        worker.load_state_dict(state)
    assert all(part in str(refused.value) for part in named), str(refused.value)
    after = [bits(each) for each in worker.state_dict()["tensors"].values()], worker.state_dict()["counters"]
    assert after == before


def test_parameters_that_are_not_of_the_model_are_refused() -> None:
    model, foreign = small_model(), nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([*model.parameters(), foreign], lr=0.1)
    with pytest.raises(ConfigError, match=r"1 of the optimizer's 5 parameters are not parameters of the model"):
        Worker(parse_method("sgd"), model, optimizer, rank=0, size=1, seed=0)


def test_what_the_optimizer_does_not_train_is_not_exchanged() -> None:
    model = small_model()
    frozen = model[0].weight.detach().clone()  # type: ignore[index, operator]
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)  # type: ignore[index, operator]
    worker = Worker(parse_method("topk:k=2"), model, optimizer, rank=0, size=1, seed=0)
    assert worker.layout.names == ("2.weight", "2.bias")
    backward(model, 0, 0)
    Simulation(1).run([worker.step()])
    assert torch.equal(model[0].weight, frozen)  # type: ignore[index, arg-type]


@pytest.mark.parametrize("text", CATALOGUE)
def test_the_bytes_of_a_method_are_those_of_its_messages(text: str) -> None:
    size = 3
    crew = Crew(parse_method(text), size).run(6)
    lengths = [worker.message_bytes + 8 * worker.num_exchanges for worker in crew.workers]
    sent = [link.bytes_sent for link in crew.simulation.traffic]
    method = crew.workers[0].method
    if isinstance(method.exchange, Gather):
        assert sent == [(size - 1) * each for each in lengths]
    elif isinstance(method.exchange, ParameterServer):
        assert sent[1:] == lengths[1:]
    else:
        dense = 4 * crew.workers[0].layout.numel * crew.workers[0].num_exchanges
        assert [worker.message_bytes for worker in crew.workers] == [dense] * size
        assert sum(sent) == 2 * (size - 1) * dense
