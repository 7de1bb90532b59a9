"""What is simulated is what is run: parameters, residuals and bytes, bit for bit."""

import functools
from pathlib import Path
from typing import Any

import process_mains as mains
import pytest
import torch
from torch import Tensor

from thinwire.distributed import DistributedOptimizer
from thinwire.errors import ConfigError
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.launch import launch
from thinwire.experiments.training import one_torch_thread
from thinwire.methods import CATALOG, parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker, needs_server

CASES = [(size, number) for size, settings in mains.SETTINGS.items() for number in range(len(settings))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What eight processes left; starting processes is slow, so that they are started once."""
    folder = tmp_path_factory.mktemp("processes")
    launch(8, functools.partial(mains.train_all, str(folder)))
    return folder


@pytest.fixture(scope="module")
def processes(folder: Path) -> dict[int, list[Any]]:
    """For each number of workers, what each rank found in each run."""
    return {size: [mains.saved(folder / f"runs-{size}-{rank}.pt") for rank in range(size)] for size in mains.SETTINGS}


def named(case: tuple[int, int]) -> str:
    size, number = case
    setting = mains.SETTINGS[size][number]
    return f"{size}-{setting.method}-{setting.optimizer}-{setting.lr:g}"


@pytest.mark.filterwarnings("ignore:with momentum:UserWarning")  # one worker that is pulled by itself
@pytest.mark.parametrize("case", CASES, ids=named)
def test_simulation_and_processes_agree_bit_for_bit(
    case: tuple[int, int], processes: dict[int, list[Any]], tmp_path: Path
) -> None:
    size, number = case
    setting = mains.SETTINGS[size][number]
    simulated = mains.train(lambda: SimulatedEngine(size, mains.NETWORK), "simulate", setting, tmp_path)
    for rank in range(size):
        found = processes[size][rank][number]
        assert found["workers"].keys() == {rank}
        for part in ("model", "optimizer", "worker", "traffic"):
            assert mains.equal(found["workers"][rank][part], simulated["workers"][rank][part]), (rank, part)
        records = [without_time(record) for record in found["records"]]
        # Three processes were interrupted half-way: they give the records from there on, with the same bits.
        assert len(records) == (1 if size == 3 else len(simulated["records"]))
        assert records == [without_time(record) for record in simulated["records"][-len(records) :]]


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    own = ("engine", "seconds", "computing_s", "virtual_distance")
    return {name: value for name, value in record.items() if name not in own}


def test_every_method_of_the_catalog_is_run() -> None:
    plain = {setting.method for setting in mains.SETTINGS[4] if setting.steps >= 50}
    everywhere = [setting for size in mains.SETTINGS for setting in mains.SETTINGS[size]]
    momentum = {setting.method for setting in everywhere if "momentum" in setting.optimizer or setting.steps == 12}
    names = {row.name for row in CATALOG if not needs_server(parse_method(row.name))}
    assert names <= plain
    assert names <= momentum


def test_the_law_is_not_empty(processes: dict[int, list[Any]]) -> None:
    """Workers do differ, residuals are not zero, and the runs that are meant to diverge do so."""
    by_method = {setting.method: number for number, setting in enumerate(mains.SETTINGS[4]) if setting.steps >= 24}
    first, second = (processes[4][rank][by_method["signtopk:every=8"]]["workers"][rank] for rank in (0, 1))
    residuals = [
        torch.cat([tensor.flatten() for name, tensor in state["worker"]["tensors"].items() if "residual" in name])
        for state in (first, second)
    ]
    assert all(residual.abs().sum() > 0 for residual in residuals)
    assert not torch.equal(*residuals)
    ends = [processes[4][0][number]["records"][-1]["value"] for number in range(len(mains.SETTINGS[4]))]
    wrong = [
        setting.method
        for setting, value in zip(mains.SETTINGS[4], ends, strict=True)
        if (value is None) != (setting.lr == 1e30)
    ]
    assert not wrong


# One line in a user's own training loop.


@pytest.mark.parametrize("number", range(len(mains.SCRIPTS)), ids=mains.SCRIPTS)
def test_a_script_gets_the_simulators_bits(number: int, folder: Path) -> None:
    workers, losses, simulation = simulated_script(mains.SCRIPTS[number])
    for rank, worker in enumerate(workers):
        found = mains.saved(folder / f"scripts-{rank}.pt")[number]
        link = simulation.traffic[rank]
        # Every process began with its own seed: parameters and buffers are those of rank 0.
        assert mains.equal(found["start"], mains.script_model(seed=0).state_dict())
        assert torch.equal(found["losses"], losses[rank])
        assert mains.equal(found["end"]["model"], worker.model.state_dict())
        assert mains.equal(found["end"]["worker"], worker.state_dict())
        assert found["counts"] == [worker.message_bytes, link.bytes_sent, link.bytes_received]
        assert mains.equal(found["resumed"], found["end"])


def simulated_script(method: str) -> tuple[list[Worker], list[Tensor], Simulation]:
    models = [mains.script_model(seed=0) for _ in range(2)]
    workers = [
        Worker(parse_method(method), model, mains.script_optimizer(model), rank=rank, size=2, seed=5)
        for rank, model in enumerate(models)
    ]
    simulation = Simulation(2)
    losses: list[list[Tensor]] = [[], []]
    with one_torch_thread():
        for step in range(mains.SCRIPT_STEPS):
            for rank, worker in enumerate(workers):
                worker.optimizer.zero_grad()
                loss = mains.script_loss(worker.model, step, rank)
                loss.backward()
                losses[rank].append(loss.detach())
            simulation.run([worker.step() for worker in workers])
    return workers, [torch.stack(values) for values in losses], simulation


def test_an_optimizer_without_a_process_group_says_what_to_do() -> None:
    model = torch.nn.Linear(2, 1)
    with pytest.raises(ConfigError, match=r"not initialised; start the script with torchrun and call torch\.dist"):
        DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, "sgd")


@pytest.mark.usefixtures("alone")
def test_an_optimizer_refuses_the_state_of_another_seed_or_method() -> None:
    model = torch.nn.Linear(2, 1)

    def make(method: str, seed: int) -> DistributedOptimizer:
        return DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, method, seed=seed)

    optimizers = [make("topk:k=1", 0), make("topk:k=1", 1), make("sgd", 0)]
    state = optimizers[0].state_dict()
    with pytest.raises(ConfigError, match="the saved state is of seed 0, but this worker has seed 1"):
        optimizers[1].load_state_dict(state)
    with pytest.raises(ConfigError, match="the saved state is of method ModelAveraging"):
        optimizers[2].load_state_dict(state)
    state["link"] = {"bytes_sent": 7, "bytes_received": 8}
    optimizers[0].load_state_dict(state)
    assert (optimizers[0].bytes_sent, optimizers[0].bytes_received) == (7, 8)
    assert optimizers[0].param_groups is optimizers[0].optimizer.param_groups
    for optimizer in optimizers:
        optimizer.close()
