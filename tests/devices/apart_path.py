"""The path of a step on an accelerator, with Triton's kernels in their interpreter: the CPU's bits, and one wait.

The pretended device takes the kernels that CUDA takes. So what a worker does between its gradients and the length of
its message is the same sequence of operations, launches, copies and waits.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from method_cases import Crew, backward, flat
from pretended import DEVICE, Pretended, host, pretending
from pretended_streams import ORDER, current_stream
from torch import Tensor, nn
from triton.runtime import interpreter

from thinwire.kernels.jit import devices
from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.steps import AllGather, AllReduce, Tell
from thinwire.worker import Worker

# Numpy, which the interpreter computes with, warns of what masked entries hold.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

METHODS = (
    "sgd",
    "qsgd:bits=4",
    "qsgd:bits=2,norm=l2",
    "ef-signsgd",
    "topk:density=10%",
    "signtopk:density=10%",
    "signtopk:density=10%,granularity=tensor",
    "ef-sgd:k=5",
    "mem-sgd:select=random,k=7",
    "qsparse:density=20%,levels=7,every=1,exchange=gather",
    "signtopk:density=10%,residual_dtype=bf16",
    "dgc:density=10%",
    "local-sgd:every=1",
    "diloco:every=1",
)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The pretended device has Triton's kernels; the names of those that were launched."""
    launched: list[str] = []
    run = interpreter.GridExecutor.__call__

    def unwrapped(tensor: Any) -> Any:
        return tensor.inner if isinstance(tensor, Pretended) else tensor

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [each.inner for each in args if isinstance(each, Pretended)]
        assert len(tensors) == sum(isinstance(each, Tensor) for each in args)
        ORDER.touch(self.fn.__name__, current_stream().number, tensors, tensors)
        launched.append(self.fn.__name__)
        return run(self, *args, **kwargs)

    monkeypatch.setitem(devices.SUFFIXES, DEVICE.type, "triton")
    monkeypatch.setattr(interpreter, "_unwrap_tensor", unwrapped)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", noted)
    devices._body.cache_clear()
    yield launched
    devices._body.cache_clear()


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 2))


def test_models_of_sixteen_bits_take_the_path_too(kernels: list[str]) -> None:
    for text in ("signtopk:density=10%", "qsgd:bits=4", "local-sgd:every=1"):
        method = parse_method(text)
        plain = Crew(method, 2, model=lambda: network().to(torch.bfloat16)).run(3)
        with pretending():
            crew = Crew(method, 2, model=lambda: network().to(torch.bfloat16).to(DEVICE)).run(3)
            assert not ORDER.races
            for model, other in zip(crew.models, plain.models, strict=True):
                assert torch.equal(host(flat(model)), flat(other))
    assert "_flatten" in kernels


@pytest.mark.parametrize("text", METHODS)
def test_the_path_has_the_bits_of_the_cpu_and_one_wait(text: str, kernels: list[str]) -> None:
    method = parse_method(text)
    plain = Crew(method, 2, model=network).run(2)
    assert not kernels
    with pretending():
        crew = Crew(method, 2, model=lambda: network().to(DEVICE)).run(2)
        assert kernels
        assert not ORDER.races
        for model, other in zip(crew.models, plain.models, strict=True):
            assert torch.equal(host(flat(model)), flat(other))
        model = network().to(DEVICE)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        worker = Worker(method, model, optimizer, rank=0, size=1, seed=0)
        backward(model, 0, 0)
        Simulation(1).run([worker.step()])  # so that the state of a worker that has begun is there
        backward(model, 0, 1)
        ORDER.waits.clear()
        program = worker.step()
        request = next(program)
        while isinstance(request, Tell):
            ORDER.waits.clear()
            request = program.send([request.message])
        assert isinstance(request, AllGather | AllReduce)
        assert ORDER.waits == ["Event.synchronize"]
        program.close()
