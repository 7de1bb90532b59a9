"""What has cost others dearly: each test first shows the naive way fail, or says what it would do, and then ours."""

import contextlib
from typing import Any

import pytest
import torch
import torch.distributed as dist
from method_cases import OPTIMIZERS, suited
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire import Simulation, Worker
from thinwire.compressors import Half, TopK
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.memory import ErrorFeedback
from thinwire.methods import CATALOG, parse_method
from thinwire.random import Key
from thinwire.steps import Steps, all_reduce
from thinwire.worker import needs_server

PLAIN = OPTIMIZERS["plain"]


def test_a_program_that_waits_does_not_switch_gradients_off_for_others() -> None:
    def naive() -> Steps[None]:
        with torch.no_grad():
            yield from all_reduce(torch.zeros(3))

    program = naive()
    next(program)
    assert not torch.is_grad_enabled()  # it leaks out of the suspended program
    program.close()
    assert torch.is_grad_enabled()
    for row in CATALOG:
        method = parse_method(row.name)
        if needs_server(method):
            continue
        model = nn.Linear(40, 30)
        worker = Worker(method, model, suited(method, PLAIN)(model.parameters()), rank=0, size=4, seed=0)
        while True:  # up to the step in which it first waits for others
            model(torch.ones(40)).sum().backward()
            program = worker.step()
            if next(program, None) is not None:
                break
        assert torch.is_grad_enabled()
        program.close()


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed")
def test_a_hook_whose_annotations_are_text_is_refused_by_ddp_and_ours_is_not() -> None:
    def naive(state: object, bucket: "dist.GradBucket") -> "torch.futures.Future[torch.Tensor]":
        raise NotImplementedError

    with pytest.raises((ValueError, NameError, AttributeError)):
        DistributedDataParallel(nn.Linear(3, 2)).register_comm_hook(None, naive)
    model = DistributedDataParallel(nn.Linear(3, 2))
    thinwire.compress_ddp(model, "topk").close()
    with pytest.raises(RuntimeError, match="can only be called once"):
        model.register_comm_hook(None, lambda state, bucket: bucket)


def test_one_bad_batch_does_not_stay_in_the_memory() -> None:
    good, bad = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, float("inf"), 1.0, 1.0])
    naive = torch.zeros(4)
    for x in (good, bad, good, good):
        total = naive + x
        sent = torch.zeros(4)
        sent[total.abs().argmax()] = total[total.abs().argmax()]
        naive = total - sent
    assert not bool(naive.isfinite().all())  # inf - inf, for ever
    model = nn.Linear(4, 1, bias=False)
    worker = Worker(
        parse_method("aji-heafield:density=25%"), model, torch.optim.SGD(model.parameters(), lr=0.1), rank=0, size=1,
        seed=0,
    )  # fmt: skip
    residuals = []
    for x in (good, bad, good, good):
        model.weight.grad = x.reshape(1, 4).clone()
        Simulation(1).run([worker.before_step(skips=True)])
        residuals.append(worker.state_dict()["tensors"]["memory.residual.weight"].clone())
    assert torch.equal(residuals[0], residuals[1])
    assert all(bool(residual.isfinite().all()) for residual in residuals)


def test_the_memory_keeps_what_rounding_of_the_message_took() -> None:
    x = torch.tensor([1.0 + 2.0**-12, 0.0])
    naive = x - torch.where(x == x.abs().max(), x, 0.0)  # what was meant to be sent
    assert not naive.any()
    memory = ErrorFeedback()
    payload, state = memory.compress(
        x.clone(), TopK(k=1, values=Half()), Key(0), Segments.whole(2), memory.init(torch.zeros(2))
    )
    assert torch.equal(payload.to_dense() + state["residual"], x)
    assert state["residual"][0] == 2.0**-12


def layers() -> nn.Module:
    """The second layer's gradient is exactly 0, and one parameter has no entries."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    model.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3)))
    return model


@pytest.mark.parametrize("row", CATALOG, ids=[row.name for row in CATALOG])
def test_a_gradient_of_zeros_gives_numbers_and_a_parameter_without_entries_no_error(row: Any) -> None:
    """PowerSGD with epsilon 0 and scales that are divided by turn zeros into NaN elsewhere."""
    method = parse_method(row.name)
    if needs_server(method):
        pytest.skip("its workers need a server")
    workers = []
    for rank in range(4):
        model = layers()
        workers.append(Worker(method, model, suited(method, PLAIN)(model.parameters()), rank=rank, size=4, seed=0))
    start: dict[str, Tensor] = {name: param.detach().clone() for name, param in layers().named_parameters()}
    simulation = Simulation(4)
    for step in range(3):
        for worker in workers:
            worker.optimizer.zero_grad()
            generator = torch.Generator().manual_seed(10 * step + worker.rank)
            worker.model.get_submodule("0")(torch.randn(5, 4, generator=generator)).square().mean().backward()
            worker.model.get_parameter("1.weight").grad = torch.zeros(3, 6)
        simulation.run([worker.step() for worker in workers])
    for worker in workers:
        params = dict(worker.model.named_parameters())
        assert all(bool(param.isfinite().all()) for param in params.values())
        assert params["nothing"].shape == (0, 3)
        if row.name not in ("signsgd", "signum", "signed-lion"):  # they vote, and the sign of 0 is a vote too
            assert (params["1.weight"] - start["1.weight"]).norm() < 0.3 * start["1.weight"].norm()
        assert not torch.equal(params["0.weight"], start["0.weight"])


@pytest.mark.parametrize("name", [row.name for row in CATALOG if not needs_server(parse_method(row.name))])
def test_parameters_whose_memory_was_replaced_are_trained_or_refused(name: str) -> None:
    """A worker that kept views of the old memory would train what nobody looks at."""
    method = parse_method(name)
    model = nn.Linear(40, 30)
    worker = Worker(method, model, suited(method, PLAIN)(model.parameters()), rank=0, size=1, seed=0)
    for param in model.parameters():
        param.data = param.data.clone()
    simulation, before = Simulation(1), [param.detach().clone() for param in model.parameters()]

    def train() -> None:
        for _ in range(10):
            worker.optimizer.zero_grad()
            model(torch.ones(40)).square().mean().backward()
            simulation.run([worker.step()])

    with contextlib.suppress(ConfigError):
        train()
        assert any(not torch.equal(param, old) for param, old in zip(model.parameters(), before, strict=True))
        shared = worker.shared_parameters() if worker.num_exchanges else {}
        for key, value in worker.parameters().items():
            assert value.data_ptr() == model.get_parameter(key).data_ptr(), "it has another tensor"
            assert shared.get(key, value).shape == value.shape


def test_replaced_memory_that_is_exchanged_in_parts_is_refused() -> None:
    """The parts are views of the parameters."""
    model = nn.Linear(40, 30)
    method, optimizer = parse_method("sparse-averaging"), torch.optim.SGD(model.parameters(), lr=0.1)
    worker = Worker(method, model, optimizer, rank=0, size=1, seed=0)
    model.weight.data = model.weight.data.clone()
    model(torch.ones(40)).sum().backward()
    with pytest.raises(ConfigError, match="a parameter's memory was replaced since this worker was made"):
        Simulation(1).run([worker.step()])
