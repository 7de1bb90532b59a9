"""Training on Ray with real processes: two nodes on this machine, and processes that are killed."""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from asynchronous import bowls
from asynchronous.bowls import METHOD, Ledger, build_model, conserved, moved, train

from thinwire.errors import ConfigError, NumericsError, WorkerError
from thinwire.methods import ModelAveraging, parse_method
from thinwire.ray import AsyncTraining, AsyncWorker
from thinwire.simulator import Simulation
from thinwire.steps import Steps
from thinwire.worker import Server, Worker

pytest.importorskip("ray", reason="ray is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes with one processor each; the address of the first."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
    nodes.wait_for_nodes()
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


def test_one_worker_is_the_simulator_bit_for_bit() -> None:
    import ray

    training = AsyncTraining(functools.partial(train, num_steps=10), build_model, METHOD, num_workers=1, seed=3)
    with training:
        assert not training.report.lost
        results = training.wait()
    assert not ray.is_initialized()
    method, model = parse_method(METHOD), build_model()
    assert isinstance(method, ModelAveraging)
    worker = Worker(method, model, torch.optim.SGD([model.get_parameter("w")], lr=0.05), rank=0, size=1, seed=3)
    server, simulation = Server(method, build_model(), size=1), Simulation(2)

    def program() -> Steps[None]:
        for number in range(10):
            bowls.set_gradient(model, 0, number)
            yield from worker.step()

    simulation.run([program(), server.serve(5)])
    link, report = simulation.traffic[0], training.report
    assert torch.equal(training.shared_parameters()["w"], server.shared_parameters()["w"])
    assert results[0].traffic == (link.bytes_sent, link.bytes_received, 0)
    assert (report.bytes_sent, report.bytes_received, report.num_merged) == (link.bytes_sent, link.bytes_received, 5)
    assert report.unsent[0] == pytest.approx(worker.memory_norm())
    with pytest.raises(ConfigError, match=r"not under way"):
        training.wait()


def kill_the_server(folder: Path, worker: AsyncWorker, number: int) -> None:
    if worker.rank == 0 and number in (5, 6, 14):
        bowls.kill_server(folder)


def test_nothing_is_lost_or_merged_twice_when_the_server_is_killed_and_workers_are_on_two_nodes(
    cluster: str, tmp_path: Path
) -> None:
    method = "qsparse-async:k=5,levels=3"
    at_step = functools.partial(kill_the_server, tmp_path)
    training = AsyncTraining(
        functools.partial(train, num_steps=20, at_step=at_step), build_model, method, num_workers=2,
        folder=tmp_path, save_every=5, address=cluster,
    )  # fmt: skip
    with training:
        results = training.wait()
    report, ledgers = training.report, list(results.values())
    assert len({each.node for each in ledgers}) == 2
    assert (report.num_restarts, report.num_merged, report.messages) == (3, 40, {0: 20, 1: 20})
    found = moved(build_model(), training.shared_parameters())
    torch.testing.assert_close(found, conserved(ledgers), rtol=0, atol=1e-6)
    assert found.norm() > 0.1
    sent, received, resent = map(sum, zip(*(each.traffic for each in ledgers), strict=True))
    assert (report.bytes_sent, report.bytes_received, report.bytes_resent) == (sent, received, resent)
    with pytest.raises(ConfigError, match=r"another training.*resume=True"):
        AsyncTraining(train, build_model, method, num_workers=2, folder=tmp_path)


def until(condition: Callable[[], bool]) -> None:
    """Ask now and then, so that there is time for what is waited for."""
    while not condition():
        time.sleep(0.05)


def die(worker: AsyncWorker, number: int) -> None:
    time.sleep(0.01)  # leaves the processors to those that begin
    if worker.rank == 1 and number == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_are_added_and_removed_and_one_that_is_killed_is_waited_for_no_longer(cluster: str) -> None:
    training = AsyncTraining(
        functools.partial(train, num_steps=10**9, at_step=die), build_model, METHOD + ",staleness=2", num_workers=2,
        address=cluster, resources_per_worker={},
    )  # fmt: skip
    with training:
        # Worker 0 is at most 2 messages ahead of one that has died after 1, until that is noticed.
        assert training.add_worker() == 2
        until(lambda: training.report.messages.get(2, 0) >= 5)
        assert training.report.lost == (1,)
        assert training.report.num_workers == 2
        training.remove_worker(0)
        until(lambda: training.report.num_workers == 1)
        training.stop()
        results: dict[int, Ledger] = training.wait()
        with pytest.raises(ConfigError, match=r"worker 0 is not at work"):
            training.remove_worker(0)
    report = training.report
    assert sorted(results) == [0, 2]
    assert {rank: each.num_sent for rank, each in results.items()} == {0: report.messages[0], 2: report.messages[2]}
    assert report.messages[1] == 1
    assert report.unsent[1] is None
    assert 0 < report.max_staleness <= 12  # each of two others may be 3 behind, then 3 ahead
    assert sum(report.messages.values()) == report.num_merged


def go_astray(worker: AsyncWorker) -> None:
    """Worker 0 makes its numbers infinite; what worker 1 hears of it is told by an error of its own."""
    stepper = bowls.Stepper(worker)
    with stepper.handle:
        try:
            for number in range(10**9):
                if worker.rank == 0 and number == 3:
                    with torch.no_grad():
                        stepper.model.get_parameter("w")[0] = torch.inf
                stepper.step(number)
        except NumericsError as error:
            if worker.rank == 1:
                raise RuntimeError(f"heard: {error}") from error


def test_an_error_of_one_worker_ends_the_training_and_what_is_not_finite_is_told_to_all(cluster: str) -> None:
    training = AsyncTraining(
        go_astray, build_model, METHOD + ",staleness=1", num_workers=2, address=cluster, resources_per_worker={}
    )
    heard = r"worker 1 raised RuntimeError: heard: NaN or inf in the model of at least one worker, in 'w'"
    with pytest.raises(WorkerError, match=heard), training:
        training.wait()
    assert training.report.messages[0] == 2  # the second was not merged
    assert torch.isfinite(training.shared_parameters()["w"]).all()


def test_what_cannot_be_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"has no server.*thinwire.compress_ddp"):
        AsyncTraining(train, build_model, "qsgd:bits=4", num_workers=2)
    with pytest.raises(ConfigError, match=r"save_every=0 was given"):
        AsyncTraining(train, build_model, METHOD, num_workers=2, save_every=0)
    with pytest.raises(ConfigError, match=r"address='ray://host:1' was given"):
        AsyncTraining(train, build_model, METHOD, num_workers=2, address="ray://host:1").__enter__()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"thinwire.ray needs ray, which is not installed"):
        AsyncTraining(train, build_model, METHOD, num_workers=2).__enter__()
