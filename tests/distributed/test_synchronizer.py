"""An optimizer that was attached trains as the simulated method does, bit for bit, and survives what scripts do."""

import copy
import functools
from typing import Any

import pytest
import sync_mains as mains
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_flatten

import thinwire
from thinwire import Simulation, Worker
from thinwire.errors import ConfigError
from thinwire.experiments.launch import launch
from thinwire.methods import GradientAveraging, parse_method

SIZE = 2
NUMBERS = range(len(mains.SETTINGS))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("sync")
    launch(SIZE, functools.partial(mains.train_all, str(folder)))
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(SIZE)]


def simulated(setting: mains.Setting) -> list[Worker]:
    """The same training in one process, uninterrupted, written without hooks, scalers or wrappers."""
    workers, schedulers = [], []
    for rank in range(SIZE):
        model = mains.network(setting.dtype)
        optimizer = mains.optimizer_of(setting.optimizer, model)
        schedulers.append(mains.scheduler_of(optimizer))
        workers.append(Worker(parse_method(setting.method), model, optimizer, rank=rank, size=SIZE, seed=5))
    simulation = Simulation(SIZE)
    for step in range(mains.STEPS):
        for rank, worker in enumerate(workers):
            worker.optimizer.zero_grad()
            mains.loss_of(worker.model, step, rank, setting.dtype).backward()
        simulation.run([worker.step() for worker in workers])
        for scheduler in schedulers:
            scheduler.step()
    return workers


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_that_ddp_averages_over_the_same_processes_is_refused(found: list[list[dict[str, Any]]]) -> None:
    for rank in range(SIZE):
        assert found[rank][-2]["refused"].startswith(
            "the model is wrapped in DistributedDataParallel, which sends full gradients between processes [0, 1]"
        )


def test_a_server_in_a_script_of_ones_own(found: list[list[dict[str, Any]]]) -> None:
    worker, server = (each[-1] for each in found)
    assert worker["refused"].startswith("the workers of an asynchronous method are at different steps")
    assert worker["counts"] == server["counts"] == [mains.STEPS]
    assert equal(worker["params"], server["params"])
    model = mains.network(torch.float32)
    assert not torch.equal(worker["params"]["0.weight"], model.get_parameter("0.weight"))


UNDISTURBED = [number for number in NUMBERS if mains.SETTINGS[number].overflow is None]


@pytest.mark.parametrize("number", UNDISTURBED, ids=[str(mains.SETTINGS[n]) for n in UNDISTURBED])
def test_the_bits_are_those_of_the_simulated_method(number: int, found: list[list[dict[str, Any]]]) -> None:
    for rank, worker in enumerate(simulated(mains.SETTINGS[number])):
        last = found[rank][number]["history"][-1]
        assert equal(last["params"], {name: param.detach() for name, param in worker.model.named_parameters()})
        assert equal(last["tensors"], worker.state_dict()["tensors"])
        assert last["counts"] == [worker.num_steps, worker.num_exchanges]
        assert found[rank][number]["counts"][0] == worker.message_bytes


def test_the_shared_model_is_the_same_everywhere_and_only_lent(found: list[list[dict[str, Any]]]) -> None:
    for number in NUMBERS:
        ranks = [found[rank][number] for rank in range(SIZE)]
        agree = parse_method(mains.SETTINGS[number].method).exchange.workers_agree  # under gossip each has its own
        assert equal(ranks[0]["shared"], ranks[1]["shared"]) == agree
        for own in ranks:
            assert equal(own["after"], own["history"][-1]["params"])


OVERFLOWS = [number for number in NUMBERS if mains.SETTINGS[number].overflow is not None]


@pytest.mark.parametrize("number", OVERFLOWS, ids=[str(mains.SETTINGS[n]) for n in OVERFLOWS])
def test_an_overflow_on_one_worker(number: int, found: list[list[dict[str, Any]]]) -> None:
    """Averaged gradients: nobody steps, nothing is remembered. Averaged models: a local step that moves nothing."""
    setting = mains.SETTINGS[number]
    step = setting.overflow
    assert step is not None
    for rank in range(SIZE):
        history = found[rank][number]["history"]
        before, after = history[step - 1], history[step]
        assert all(bool(param.isfinite().all()) for moment in history for param in moment["params"].values())
        if isinstance(parse_method(setting.method), GradientAveraging):
            assert equal(before["params"], after["params"])
            assert equal(before["tensors"], after["tensors"])
            assert before["counts"] == after["counts"] == [step, step]
            assert history[-1]["counts"] == [mains.STEPS - 1] * 2
        else:
            every = 3 if "every" in setting.method else 1
            assert after["counts"] == [step + 1, (step + 1) // every]
            if every > 1:
                assert equal(before["params"], after["params"]) == (rank == 1)
            assert history[-1]["counts"] == [mains.STEPS, mains.STEPS // every]


def test_what_a_mean_moves_less_than_bf16_can_hold_is_not_lost() -> None:
    """Workers push every parameter by a twentieth of its step; after 40 exchanges two such steps are made."""
    workers = []
    for rank in range(SIZE):
        model = torch.nn.Linear(4, 1, bias=False).to(torch.bfloat16)
        torch.nn.init.ones_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        workers.append(Worker(parse_method("local-sgd:every=1"), model, optimizer, rank=rank, size=SIZE, seed=0))
    simulation = Simulation(SIZE)
    step_size = 2.0**-7
    for _ in range(40):
        for worker in workers:
            # One of the two moves by a whole step at a time, so that its mean is half a step: not a bf16 number.
            worker.model.weight.grad = torch.full((1, 4), step_size if worker.rank == 0 else 0.0).bfloat16()
        simulation.run([worker.step() for worker in workers])
    (weight,) = workers[0].shared_parameters().values()
    assert torch.equal(weight, torch.full((1, 4), 1.0 - 40 * step_size / 2))


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_synchronized_is_refused_and_closing_undoes_it() -> None:
    model = mains.network(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = dict(vars(optimizer))
    with thinwire.synchronize(optimizer, model, "topk") as sync:
        with pytest.raises(ConfigError, match="synchronized already; close the first"):
            thinwire.synchronize(optimizer, model, "topk")
        optimizer.step()
        assert sync.worker.num_steps == 1
    assert vars(optimizer).keys() == before.keys()
    optimizer.step()
    assert sync.worker.num_steps == 1
    for text in ("dgc", "beer"):
        with pytest.raises(ConfigError, match="LBFGS evaluates the loss several times"):
            thinwire.synchronize(torch.optim.LBFGS(model.parameters()), model, text)
    with pytest.raises(ConfigError, match="the last of at least two processes is the server"):
        thinwire.serve(model, "qsparse-async", num_steps=3)
    with pytest.raises(ConfigError, match="has no server; every process calls"):
        thinwire.serve(model, "topk", num_steps=3)
    with pytest.raises(ConfigError, match=r"needs a server, which is the last process: let it call thinwire\.serve"):
        thinwire.synchronize(optimizer, model, "qsparse-async")
    thinwire.synchronize(optimizer, DistributedDataParallel(model), "topk").close()  # its group is this process alone


@pytest.mark.usefixtures("alone")
def test_a_wrapper_says_what_its_handle_says() -> None:
    """Also of a layer that is frozen: a checkpoint looks for its values under the names that the handle gives."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    wrapper = thinwire.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, "topk:k=5")
    model[0].requires_grad_(False)
    model(torch.ones(2, 4)).sum().backward()
    wrapper.step()
    told = ("exchanged", "message_bytes", "bytes_sent", "bytes_received", "steps_together", "transport", "worker")
    for name in told:
        own, of_handle = (getattr(each, name) for each in (wrapper, wrapper.sync))
        assert (own() == of_handle()) if callable(own) else (own == of_handle), name
    assert wrapper.exchanged() == {name: id(param) for name, param in model.named_parameters()}
    wrapper.close()


@pytest.mark.usefixtures("alone")
def test_a_wrapper_that_refuses_a_state_is_as_before() -> None:
    """Whichever of the two refuses: the optimizer, which has other groups, or the handle, whose seed is another."""

    def made(seed: int, steps: int, num_groups: int = 1) -> thinwire.DistributedOptimizer:
        model = torch.nn.Linear(4, 3)
        groups = [{"params": [each]} for each in model.parameters()] if num_groups == 2 else model.parameters()
        sgd = torch.optim.SGD(groups, lr=0.1 * (seed + 1), momentum=0.9)
        wrapper = thinwire.DistributedOptimizer(sgd, model, "topk:k=5", seed=seed)
        for _ in range(steps):
            wrapper.zero_grad()
            model(torch.ones(2, 4)).sum().backward()
            wrapper.step()
        return wrapper

    wrapper, others = made(0, 2), [made(1, 3), made(0, 3, num_groups=2)]
    before = copy.deepcopy(wrapper.state_dict())
    for other, error in zip(others, (ConfigError, ValueError), strict=True):
        with pytest.raises(error):
            wrapper.load_state_dict(other.state_dict())
        (found, shape), (expected, as_before) = map(tree_flatten, (wrapper.state_dict(), before))
        assert shape == as_before
        assert all(
            torch.equal(*each) if torch.is_tensor(each[0]) else each[0] == each[1]
            for each in zip(found, expected, strict=True)
        )
    for each in (wrapper, *others):
        each.close()
