"""Non-finite numbers, checkpoints, and what a worker holds."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from method_cases import CATALOGUE, OPTIMIZERS, Crew, backward, bits, flat, shared, small_model, suited
from torch import nn

from thinwire.compressors import Identity
from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges import (
    Accumulating,
    AllReduce,
    AsynchronousServer,
    BetterEstimate,
    Directed,
    Gather,
    ParameterServer,
    SignOf,
)
from thinwire.methods import Every, Method, ModelAveraging, Outer, parse_method
from thinwire.simulator import Simulation
from thinwire.steps import Steps
from thinwire.worker import Worker


def tensors_of(worker: Worker) -> dict[str, bytes]:
    return {name: bits(tensor) for name, tensor in worker.state_dict()["tensors"].items()}


def guarded(program: Steps[None]) -> Steps[Exception | None]:
    try:
        yield from program
    except NumericsError as error:
        return error
    return None


POISONED = ["sgd", "local-sgd:every=1", "qsgd", "qsgd:exchange=server", "topk:k=1", "topk:k=1,exchange=server",
            "mem-sgd:select=random,k=0.01", "ef-signsgd", "qsparse", "signtopk:granularity=tensor",
            "dgc", "signsgd", "signum:exchange=gather", "terngrad", "terngrad:granularity=whole,exchange=server",
            "gspar", "1bit-sgd", "1bit-sgd:granularity=whole", "ef21", "powersgd", "powersgd:rank=1,warm=no",
            "demo", "diana:density=10%", "ef21-plus", "ef21-plus:exchange=server", "ef21-sgdm", "ef21-bc",
            "econtrol", "marina:restart=1", "dasha", "intsgd", "thc", "scalecom"]  # fmt: skip


@pytest.mark.parametrize("culprit", [0, 3])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("text", POISONED)
def test_nan_or_infinity_stops_every_worker_at_the_same_step(text: str, poison: float, culprit: int) -> None:
    crew = Crew(parse_method(text), 4).run(2)
    before = [bits(shared(worker)) for worker in crew.workers]
    exchanges = [worker.num_exchanges for worker in crew.workers]
    memories = [tensors_of(worker) for worker in crew.workers]
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
    assert [tensors_of(worker) for worker in crew.workers] == memories


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
    if crew.server is not None:
        file = io.BytesIO()
        torch.save({"server": crew.server.state_dict(), "clocks": crew.simulation.state_dict()}, file)
        files.append(file.getvalue())
    return files


def resume(crew: Crew, files: Sequence[bytes]) -> Crew:
    if crew.server is not None:
        parts = torch.load(io.BytesIO(files[-1]), weights_only=True)
        crew.server.load_state_dict(parts["server"])
        crew.simulation.load_state_dict(parts["clocks"])
    for worker, file in zip(crew.workers, files, strict=crew.server is None):
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
    resumed = resume(Crew(method, 3, OPTIMIZERS[name]), files)
    resumed.num_steps = 4
    resumed.run(5)
    assert everything(resumed) == everything(crew)


def worker_of(text: str, rank: int = 0, size: int = 2, seed: int = 5, model: nn.Module | None = None) -> Worker:
    model, method = model or small_model(), parse_method(text)
    optimizer = suited(method, OPTIMIZERS["plain"])(model.parameters())
    return Worker(method, model, optimizer, rank=rank, size=size, seed=seed)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: worker_of("topk", rank=1), ["rank 0", "rank 1"]),
        (lambda: worker_of("topk", size=3), ["size 2", "size 3"]),
        (lambda: worker_of("topk", seed=6), ["seed 5", "seed 6"]),
        (lambda: worker_of("topk:memory=none"), ["of method ModelAveraging(", "ErrorFeedback", "NoMemory"]),
        (lambda: worker_of("sgd"), ["of method ModelAveraging(", "GradientAveraging("]),
        (lambda: worker_of("topk:density=2%"), ["density=0.01", "density=0.02"]),
        (lambda: worker_of("topk:exchange=server"), ["Gather(", "ParameterServer("]),
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
    frozen = model.get_parameter("0.weight").detach().clone()
    optimizer = torch.optim.SGD(model.get_submodule("2").parameters(), lr=0.1)
    worker = Worker(parse_method("topk:k=2"), model, optimizer, rank=0, size=1, seed=0)
    assert worker.layout.names == ("2.weight", "2.bias")
    backward(model, 0, 0)
    Simulation(1).run([worker.step()])
    assert torch.equal(model.get_parameter("0.weight"), frozen)


@pytest.mark.parametrize("text", CATALOGUE)
def test_the_bytes_of_a_method_are_those_of_its_messages(text: str) -> None:
    size = 3
    crew = Crew(parse_method(text), size).run(6)
    lengths = [worker.message_bytes + 8 * worker.num_exchanges for worker in crew.workers]
    sent = [link.bytes_sent for link in crew.simulation.traffic]
    method = crew.workers[0].method
    route = method.exchange
    if isinstance(route, Accumulating | Directed | SignOf):
        route = route.exchange
    if isinstance(route, BetterEstimate):
        route = Gather() if route.route == "gather" else ParameterServer()
    if isinstance(route, Gather):
        assert sent == [(size - 1) * each for each in lengths]
    elif isinstance(route, AsynchronousServer):
        assert sent[:size] == lengths
    elif isinstance(route, ParameterServer):
        assert sent[1:] == lengths[1:]
    elif isinstance(route, AllReduce):
        lead = crew.workers[0]
        sizes = [channel.layout.numel for channel in lead.channels]
        dense = (4 if route.format == "f32" else 2) * sum(
            sizes[number % len(sizes)] for number in range(lead.num_exchanges)
        )
        if isinstance(method, ModelAveraging):  # in f32, whatever the exchange's format
            dense += 4 * sum(sizes) * sum(state.due(step) for state in method.states for step in range(1, 7))
        is_dense = isinstance(method.compressor, Identity)
        assert [worker.message_bytes for worker in crew.workers] == [dense if is_dense else lead.message_bytes] * size
        assert lead.message_bytes <= dense
        assert sum(sent) == 2 * (size - 1) * lead.message_bytes


def test_a_state_of_before_classes_were_renamed_is_loaded() -> None:
    crew = Crew(parse_method("ok-topk"), 2).run(2)
    state = crew.workers[0].state_dict()
    now = state["counters"]["method"]
    state["counters"]["method"] = now.replace("SparseReduceScatter(", "OwnerSharded(").replace("reset_m", "wipe_m")
    assert state["counters"]["method"] != now
    crew.workers[0].load_state_dict(state)
    assert crew.workers[0].state_dict()["counters"]["method"] == now
