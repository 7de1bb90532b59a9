"""Models on a device beside the CPU: every method of the catalog has the CPU's bits, and nothing overtakes anything."""

import copy
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_cases import CATALOGUE, Crew, backward, flat, small_model
from place import DEVICE, IS_CUDA, host, working
from pretended_streams import ORDER
from rounding import rounding_otherwise
from torch import Tensor, nn

from thinwire.errors import ConfigError, NumericsError
from thinwire.methods import Method, ModelAveraging, parse_method
from thinwire.simulator import Simulation
from thinwire.staging import finish
from thinwire.steps import AllReduce
from thinwire.worker import Worker, needs_server
from thinwire.worker.subject import Subject

# Where the device pretends each operation takes its time.
SIZE, NUM_STEPS = (3, 4) if IS_CUDA else (2, 3)

FUSED = {
    *("easgd", "eamsgd", "easgd-async", "easgd:every=2,beta=0.8,alpha=0.3", "choco", "sparq", "beer", "motef"),
    *("sparq:density=20%,every=2,level=1", "motef:density=20%,momentum=0.5", "noloco:every=2", "mdownpour"),
    *("streaming-diloco:every=1,fragments=3,delay=2", "diloco:every=2,overlap=late", "diloco:every=2,overlap=eager"),
    "dilocox:every=2,rank=1",
}
"""Methods that move parameters by torch's own fused operations, whose last bit is the device's (docs/devices.md)."""


def exact(params: Any) -> torch.optim.Optimizer:
    """Its steps have the same bits on every device: a product with a power of two is exact, so fused or not is alike.

    Of torch's other optimizers, and at other rates, CUDA rounds products and sums in another way than the CPU.
    """
    return torch.optim.SGD(params, lr=2.0**-7)


def unlike() -> list[str]:
    """Methods without a server; where each takes its time, one for each kind of exchange and memory."""
    methods = {text: parse_method(text) for text in CATALOGUE}
    texts = [text for text, method in methods.items() if not needs_server(method)]
    kinds = {text: tuple(map(type, (methods[text], methods[text].exchange, methods[text].memory))) for text in texts}
    return texts if IS_CUDA else list({kinds[text]: text for text in texts}.values())


UNLIKE = unlike()


def on_device() -> nn.Module:
    return small_model().to(DEVICE)


def on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return host(value).clone()
    return {key: on_host(each) for key, each in value.items()} if isinstance(value, dict) else copy.deepcopy(value)


def are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def needs_adam(text: str) -> bool:
    """It divides, which has other bits there than on the CPU; what is exchanged of its state is an exact mean."""
    method = parse_method(text)
    return isinstance(method, ModelAveraging) and bool(method.states)


@pytest.mark.parametrize("text", [text for text in CATALOGUE if needs_adam(text)])
def test_states_of_an_optimizer_are_averaged_on_a_device(text: str) -> None:
    plain = Crew(parse_method(text), SIZE).run(NUM_STEPS)
    with working():
        crew = Crew(parse_method(text), SIZE, model=on_device).run(NUM_STEPS)
        assert not ORDER.races
        for model, other in zip(crew.models, plain.models, strict=True):
            torch.testing.assert_close(host(flat(model)), flat(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [text for text in CATALOGUE if text in FUSED])
def test_what_torch_rounds_is_close(text: str) -> None:
    """And not more: a method whose bits are the CPU's, whatever the device rounds otherwise, is none of these."""
    plain = Crew(parse_method(text), SIZE, exact).run(2 * NUM_STEPS)
    with working(), rounding_otherwise():
        crew = Crew(parse_method(text), SIZE, exact, on_device).run(2 * NUM_STEPS)
        assert not ORDER.races
    pairs = [(host(flat(model)), flat(other)) for model, other in zip(crew.models, plain.models, strict=True)]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert IS_CUDA or not all(torch.equal(found, expected) for found, expected in pairs)


@pytest.mark.parametrize("text", [text for text in CATALOGUE if not needs_adam(text) and text not in FUSED])
def test_a_device_has_the_bits_of_the_cpu(text: str) -> None:
    """Parameters, bytes, all that is remembered, and where a state of the CPU leads.

    What torch's own operations round otherwise on the device does not come into it.
    """
    method = parse_method(text)
    plain = Crew(method, SIZE, exact).run(NUM_STEPS)
    states = [on_host(worker.state_dict()) for worker in plain.workers]
    with working(), rounding_otherwise():
        crew = Crew(method, SIZE, exact, on_device).run(NUM_STEPS)
        assert not ORDER.races
        for model, other in zip(crew.models, plain.models, strict=True):
            assert torch.equal(host(flat(model)), flat(other))
        for worker, state in zip(crew.workers, states, strict=True):
            assert are_equal(on_host(worker.state_dict()), state)
            worker.load_state_dict(copy.deepcopy(state))
    plain.run(NUM_STEPS)
    with working(), rounding_otherwise():
        crew.run(NUM_STEPS)
    for model, other in zip(crew.models, plain.models, strict=True):
        assert torch.equal(host(flat(model)), flat(other))


def errors_of(method: Method, model: Callable[[], nn.Module], bad: float, sums_stay: bool = False) -> list[str]:
    """What the workers raise when an entry of one's gradient is not finite, and how far they came."""
    crew = Crew(method, 2, model=model)
    for worker in crew.workers:
        worker.exchanged.drive(None, sums_stay=sums_stay)
    crew.run(1)
    for step in range(1, 5):
        for rank, each in enumerate(crew.models):
            backward(each, rank, step)
        if step == 2:
            grad = next(crew.models[1].parameters()).grad
            assert grad is not None
            grad.view(-1)[7] = bad
        try:
            crew.simulation.run([worker.step() for worker in crew.workers])
            if step == 4:
                crew.simulation.run([worker.finish() for worker in crew.workers])
        except NumericsError as error:
            return [str(step), str(error)]
    return ["no error"]


@pytest.mark.parametrize(("text", "bad"), list(zip(UNLIKE, itertools.cycle([torch.nan, torch.inf]), strict=False)))
def test_what_is_not_finite_is_found_as_on_the_cpu(text: str, bad: float) -> None:
    """On the device it is known only once the message is made, of a vector that may hold something else by then."""
    method = parse_method(text)
    expected = errors_of(method, small_model, bad)
    assert len(expected) == 2
    with working():
        assert errors_of(method, on_device, bad) == expected
        assert not ORDER.races


@pytest.mark.parametrize("bad", [0.0, torch.nan])
def test_sums_that_stay_on_the_device(bad: float) -> None:
    """Where the driver sums there: nothing goes to the host but whether all is finite."""
    expected = errors_of(parse_method("sgd"), small_model, bad) if bad else []
    plain = Crew(parse_method("sgd"), 2, exact).run(2)
    with working(), rounding_otherwise():
        crew = Crew(parse_method("sgd"), 2, exact, on_device)
        for worker in crew.workers:
            worker.exchanged.drive(None, sums_stay=True)
        crew.run(2)
        for model, other in zip(crew.models, plain.models, strict=True):
            assert torch.equal(host(flat(model)), flat(other))
        backward(crew.models[0], 0, 2)
        program = crew.workers[0].step()
        op = next(program)
        assert isinstance(op, AllReduce)
        assert op.tensor.device == DEVICE
        program.close()
        if bad:
            assert errors_of(parse_method("sgd"), on_device, bad, sums_stay=True) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", ["topk:k=2", "qsgd", "ef-signsgd", "mem-sgd:select=random,k=2", "local-sgd:every=1"])
def test_models_of_sixteen_bits(text: str, dtype: torch.dtype) -> None:
    with working(), rounding_otherwise():
        found = [
            [host(flat(model)) for model in Crew(parse_method(text), 2, exact, make).run(3).models]
            for make in (lambda: small_model().to(dtype), lambda: small_model().to(dtype).to(DEVICE))
        ]
    assert all(map(torch.equal, *found))


def test_models_on_several_devices_are_refused() -> None:
    with working():
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1).to(DEVICE))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        message = re.escape(f"several devices ('0.weight' on cpu, '1.weight' on {DEVICE})")
        with pytest.raises(ConfigError, match=message):
            Worker(parse_method("sgd"), model, optimizer, rank=0, size=1, seed=0)


@pytest.mark.skipif(IS_CUDA, reason="what a real device's streams do is not noted")
def test_the_order_of_what_is_done_is_watched() -> None:
    """What the other tests rely on: a stream that does not wait is noticed, and a copy comes when it is waited for."""
    with working():
        module = torch.get_device_module(DEVICE)
        x = torch.ones(3).to(DEVICE)
        room = torch.zeros(3)
        room.copy_(x, non_blocking=True)
        event = module.Event()
        event.record(module.current_stream(DEVICE))
        assert room.tolist() == [0.0, 0.0, 0.0]
        assert not ORDER.waits
        event.synchronize()
        event.synchronize()
        assert room.tolist() == [1.0, 1.0, 1.0]
        assert ORDER.waits == ["Event.synchronize"]
        other = module.Stream()
        with module.stream(other):
            y = x + 1
        assert len(ORDER.races) == 1
        ORDER.races.clear()
        module.current_stream().wait_stream(other)
        y += 1
        assert not ORDER.races
        assert bool(y[0] == 3.0)
        assert "_local_scalar_dense" in ORDER.waits


@pytest.mark.skipif(IS_CUDA, reason="waits are noted by the pretended device; apart_path counts those of the kernels")
def test_a_step_waits_once() -> None:
    """Of all that a worker does up to its message, only the message's own numbers are waited for."""
    with working():
        model = on_device()
        worker = Worker(
            parse_method("qsgd:bits=4"), model, torch.optim.SGD(model.parameters(), lr=0.1), rank=0, size=1, seed=0
        )
        simulation = Simulation(1)
        backward(model, 0, 0)
        simulation.run([worker.step()])
        backward(model, 0, 1)
        ORDER.waits.clear()
        program = worker.step()
        next(program)
        assert ORDER.waits == ["Event.synchronize"]
        program.close()


def test_a_probe_exchanges_where_its_vectors_lie() -> None:
    with working():
        vectors = [torch.randn(20, generator=torch.Generator().manual_seed(seed)).to(DEVICE) for seed in range(2)]
        subject = Subject(parse_method("qsgd:bits=4"), 0, 1, vectors)
        subject.begin([12, 8])
        simulation = Simulation(1)
        simulation.run([subject.refill()])
        assert {param.device for param in subject._params} == {DEVICE}
        simulation.run([subject.step()])
        assert subject.num_exchanges == 1
        x = vectors[0] + 1
        ORDER.waits.clear()
        finish(x.device)
        assert IS_CUDA or ORDER.waits == ["Stream.synchronize"]
