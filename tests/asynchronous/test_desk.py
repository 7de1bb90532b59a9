"""The server's desk and the workers' links without Ray: what is conserved whatever dies, and who waits for whom."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from asynchronous.bowls import METHOD, NUMEL, Stepper, build_model, conserved, moved, other_start, set_gradient
from torch import Tensor, nn

from thinwire.distributed.optimizer_hooks import OptimizerHooks
from thinwire.errors import ConfigError, NumericsError, ProtocolError, WireError, WorkerError
from thinwire.exchanges.asynchronous import Control
from thinwire.methods import parse_method
from thinwire.payloads import Dense
from thinwire.ray import AsyncWorker
from thinwire.ray.calls import to_bytes
from thinwire.ray.desk import Desk
from thinwire.ray.link import tensor_of_bytes
from thinwire.ray.plan import Plan
from thinwire.ray.seats import Reply
from thinwire.ray.worker import Start
from thinwire.simulator import Simulation
from thinwire.steps import Steps
from thinwire.wire import decode, encode
from thinwire.worker import Server, Worker

DENSE = "local-sgd-async:every=1"


def plan_of(folder: Path | None = None, method: str = METHOD, num_workers: int = 3, save_every: int = 7) -> Plan:
    place = None if folder is None else str(folder)
    return Plan(parse_method(method), num_workers, float("inf"), place, save_every, "run")


def steps(stepper: Stepper, first: int, last: int) -> None:
    for number in range(first, last):
        stepper.step(number)


class Office:
    """A desk that dies now and then, before a call or after it, in which case the call is made again, as Ray does.

    Args:
        plan: of the desk.
        dies: whether the desk dies now, asked before and after each call.
    """

    def __init__(self, plan: Plan, dies: Callable[[], bool] = lambda: False) -> None:
        self.plan = plan
        self.dies = dies
        self.num_deaths = 0
        self.desk = Desk(plan, build_model())
        self.seen: dict[tuple[int, int], Tensor] = {}

    def restart(self) -> None:
        del self.desk  # and with it the lock of the folder
        self.num_deaths += 1
        self.desk = Desk(self.plan, build_model())

    def enter(self, rank: int, terms: str, digests: Mapping[str, bytes]) -> Start:
        size = self.desk.enter(rank)
        return Start(size, self.desk.names, {**self.desk.untrained, **self.desk.parameters()})

    def exchange(self, rank: int, sequence: int, size: int, message: bytes) -> Reply:
        self.seen.setdefault((rank, sequence), decode(tensor_of_bytes(message)).to_dense().double() / size)
        while True:
            if self.dies():
                self.restart()
            ((to, reply),) = self.desk.exchange(rank, sequence, size, tensor_of_bytes(message))
            if not self.dies():
                assert to == rank
                return reply
            self.restart()

    def finish(self, rank: int, sequence: int, norm: float, bytes_resent: int) -> Reply:
        while True:
            reply, others = self.desk.finish(rank, sequence, norm, bytes_resent)
            assert not others
            if not self.dies():
                return reply
            self.restart()

    def worker(self, rank: int) -> AsyncWorker:
        return AsyncWorker(self, self.plan.method, rank, self.plan.num_workers, seed=3)


@pytest.mark.parametrize(("save_every", "risk"), [(1, 0.05), (7, 0.08), (1000, 0.02)])
def test_every_message_counts_once_whenever_the_server_dies(tmp_path: Path, save_every: int, risk: float) -> None:
    rng = random.Random(save_every)
    office = Office(plan_of(tmp_path, save_every=save_every), lambda: rng.random() < risk)
    steppers = [Stepper(office.worker(rank)) for rank in range(3)]
    for number in range(40):
        for stepper in rng.sample(steppers, 3):
            stepper.step(number)
    for stepper in steppers:
        stepper.handle.close()
    office.restart()
    found = moved(build_model(), office.desk.shared_parameters())
    assert office.num_deaths > 4
    torch.testing.assert_close(found, torch.stack(list(office.seen.values())).sum(dim=0), rtol=0, atol=1e-6)
    torch.testing.assert_close(found, conserved([each.ledger() for each in steppers]), rtol=0, atol=1e-6)
    assert found.norm() > 0.1
    report = office.desk.report()
    assert (report.num_merged, report.messages, report.num_restarts) == (60, {0: 20, 1: 20, 2: 20}, office.num_deaths)
    ledgers = [each.ledger() for each in steppers]
    sent, received, resent = map(sum, zip(*(each.traffic for each in ledgers), strict=True))
    assert (report.bytes_sent, report.bytes_received, report.bytes_resent) == (sent, received, resent)
    assert (resent > 0) is (save_every > 1)
    norms = {rank: pytest.approx(float(each.owed.norm()) * each.size) for rank, each in enumerate(ledgers)}
    assert report.unsent == norms


@pytest.mark.parametrize("method", ["mdownpour:momentum=0.5", "adownpour:every=2", "mvadownpour:rate=0.2"])
def test_what_the_server_remembers_outlives_its_process(tmp_path: Path, method: str) -> None:
    """A server that is started anew after every third message ends where one ends that never was."""
    ends = []
    for folder, dies in ((tmp_path / "a", True), (tmp_path / "b", False)):
        office = Office(plan_of(folder, num_workers=1, method=method))
        stepper = Stepper(office.worker(0))
        for number in range(12):
            stepper.step(number)
            if dies and number % 3 == 1:
                office.restart()
        stepper.handle.close()
        ends.append(
            [
                office.desk.shared_parameters()["w"].clone(),
                *(each.clone() for each in office.desk.parameters().values()),
            ]
        )
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    assert torch.equal(ends[0][0], ends[0][1]) is method.startswith("mdownpour")


def test_a_worker_keeps_only_what_no_checkpoint_has(tmp_path: Path) -> None:
    office = Office(plan_of(tmp_path, num_workers=1, save_every=4))
    stepper = Stepper(office.worker(0))
    held = []
    for number in range(16):
        stepper.step(number)
        held.append(len(stepper.handle._link._kept))
    assert held[1::2] == [1, 2, 3, 0, 1, 2, 3, 0]
    saved = torch.load(tmp_path / "server.pt", weights_only=True)
    assert saved["server"]["counters"]["num_merged"] == 8


def test_without_a_folder_nothing_is_kept() -> None:
    stepper = Stepper(Office(plan_of(num_workers=1)).worker(0))
    steps(stepper, 0, 4)
    assert not stepper.handle._link._kept


@pytest.mark.parametrize(
    "method",
    [METHOD, "local-sgd-async:every=3", "easgd-async:every=2", "mdownpour:momentum=0.5", "adownpour:every=2"],
)
def test_one_worker_is_the_simulator_bit_for_bit(method: str) -> None:
    office = Office(plan_of(num_workers=1, method=method))
    stepper = Stepper(office.worker(0))
    steps(stepper, 0, 12)
    parsed, model = parse_method(method), build_model()
    optimizer = torch.optim.SGD([model.get_parameter("w")], lr=0.05)
    worker = Worker(parsed, model, optimizer, rank=0, size=1, seed=3)
    server, simulation = Server(parsed, build_model(), size=1), Simulation(2)

    def program() -> Steps[None]:
        for number in range(12):
            set_gradient(model, 0, number)
            yield from worker.step()

    due = sum(parsed.schedule.due(step, 0) for step in range(1, 13))  # type: ignore[union-attr]
    simulation.run([program(), server.serve(due)])
    assert torch.equal(office.desk.shared_parameters()["w"], server.shared_parameters()["w"])
    assert torch.equal(stepper.model.get_parameter("w"), model.get_parameter("w"))
    report, link = office.desk.report(), simulation.traffic[0]
    assert (report.bytes_sent, report.bytes_received) == (link.bytes_sent, link.bytes_received)
    assert (stepper.handle.bytes_sent, stepper.handle.bytes_received) == (link.bytes_sent, link.bytes_received)
    assert stepper.handle.message_bytes == worker.message_bytes


def test_workers_come_and_go_and_what_they_owe_counts_as_before(tmp_path: Path) -> None:
    office = Office(plan_of(tmp_path, num_workers=2))
    steppers = {rank: Stepper(office.worker(rank)) for rank in range(2)}
    sizes = []

    def go(first: int, last: int) -> None:
        for number in range(first, last):
            for stepper in steppers.values():
                if not stepper.handle.is_paused:
                    stepper.step(number)
        sizes.append({rank: each.handle.worker.size for rank, each in steppers.items()})

    go(0, 6)
    steppers[5] = Stepper(office.worker(5))  # ranks need not come in order
    go(6, 12)
    steppers[3] = Stepper(office.worker(3))
    office.desk.dismiss(0)
    go(12, 18)
    with pytest.raises(ConfigError, match=r"told worker 0 to pause.*is_paused"):
        steps(steppers[0], 18, 20)
    steppers[0].handle.close()
    office.restart()
    go(18, 24)
    assert sizes == [{0: 2, 1: 2}, {0: 3, 1: 3, 5: 3}, *[dict.fromkeys((0, 1, 5, 3), 3)] * 2]
    assert steppers[0].handle.is_paused
    found = moved(build_model(), office.desk.shared_parameters())
    torch.testing.assert_close(found, conserved([each.ledger() for each in steppers.values()]), rtol=0, atol=1e-6)


def test_a_residual_is_worth_the_same_in_another_crew() -> None:
    stepper = Stepper(Office(plan_of()).worker(0))
    steps(stepper, 0, 4)
    worker = stepper.handle.worker
    owed = worker.exchanged.channels[0].memory["residual"].double() / 3
    worker.resize(worker.rank, 7)
    assert (worker.size, worker.runner.size, worker.rank) == (7, 7, 0)
    torch.testing.assert_close(worker.exchanged.channels[0].memory["residual"].double() / 7, owed, rtol=0, atol=1e-7)


def test_an_optimizer_that_has_a_handle_is_refused_before_the_server_hears_of_it() -> None:
    office, model = Office(plan_of()), build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hooks = OptimizerHooks(optimizer, lambda args, kwargs: None, lambda: None)
    before = office.desk.report()
    with pytest.raises(ConfigError, match="synchronized already"):
        office.worker(0).synchronize(optimizer, model)
    assert office.desk.report() == before
    hooks.remove()
    office.worker(0).synchronize(optimizer, model).close()


def message(value: float) -> Tensor:
    return encode(Dense(torch.full((NUMEL,), value)))


def test_those_who_wait_for_a_worker_go_on_when_it_leaves_and_it_may_come_back() -> None:
    desk = Desk(plan_of(method="local-sgd-async:every=1,staleness=1", num_workers=2), build_model())
    for rank in range(2):
        desk.enter(rank)
    assert [rank for rank, _ in desk.exchange(0, 1, 2, message(0.1))] == [0]
    assert desk.exchange(0, 2, 2, message(0.1)) == []  # two ahead
    assert desk.exchange(0, 2, 2, message(0.1)) == []  # asked once more, by Ray
    ((rank, reply),) = desk.leave(1, is_dead=False)
    assert (rank, reply.expected, reply.size) == (0, 3, 1)
    assert desk.report().lost == (1,)
    assert desk.report().unsent == {1: None}
    ((rank, reply),) = desk.exchange(1, 1, 2, message(0.1))  # made when there were two
    assert (rank, reply.expected, reply.size) == (1, 2, 2)
    assert desk.report().lost == ()
    torch.testing.assert_close(moved(build_model(), desk.shared_parameters()), torch.full((NUMEL,), 0.15).double())
    desk.leave(1, is_dead=True)
    with pytest.raises(WorkerError, match=r"worker 1 was taken for dead.*add a new one"):
        desk.exchange(1, 2, 2, message(0.1))
    with pytest.raises(WorkerError, match=r"taken for dead"):
        desk.enter(1)


def test_who_has_done_its_part_counts_until_another_takes_its_place() -> None:
    desk = Desk(plan_of(num_workers=3), build_model())
    for rank in range(3):
        desk.enter(rank)
    desk.finish(0, 0, 0.5, 0)
    assert desk.report().num_workers == 3
    assert desk.enter(3) == 3
    assert desk.enter(4) == 4
    desk.leave(4, is_dead=True)
    desk.leave(4, is_dead=True)
    assert desk.report().num_workers == 3
    desk.dismiss(3)
    desk.finish(3, 0, 0.5, 0)
    assert desk.report().num_workers == 2


def test_what_is_not_finite_stops_all_also_after_a_restart(tmp_path: Path) -> None:
    office = Office(plan_of(tmp_path, num_workers=2, save_every=1000))
    first, second = (Stepper(office.worker(rank)) for rank in range(2))
    steps(first, 0, 2)
    before = office.desk.shared_parameters()["w"].clone()
    with torch.no_grad():
        first.model.get_parameter("w")[3] = torch.nan
    with pytest.raises(NumericsError, match=r"'w'"):
        steps(first, 0, 2)
    office.restart()
    with pytest.raises(NumericsError, match=r"'w'"):
        steps(second, 0, 2)
    assert torch.equal(office.desk.shared_parameters()["w"], before)
    ((_, reply),) = office.desk.exchange(1, 1, 2, message(0.1))
    assert reply.answer[0] == Control.STOP


def test_all_pause_when_enough_is_merged_or_they_are_told_to() -> None:
    desk = Desk(replace(plan_of(method=DENSE, num_workers=2), until=2), build_model())
    controls = [desk.exchange(rank, number, 2, message(0.1))[0][1].answer[0] for number in (1, 2) for rank in range(2)]
    assert controls[:3] == [Control.GO_ON, Control.PAUSE, Control.PAUSE]
    desk = Desk(plan_of(method=DENSE, num_workers=2), build_model())
    assert desk.exchange(0, 1, 2, message(0.1))[0][1].answer[0] == Control.GO_ON
    assert desk.stop() == []
    assert desk.exchange(1, 1, 2, message(0.1))[0][1].answer[0] == Control.PAUSE


def test_what_is_no_message_changes_nothing() -> None:
    desk = Desk(plan_of(method=DENSE, num_workers=1), build_model())
    before = desk.shared_parameters()["w"].clone()
    good = message(0.1)
    for bad, error in ((good[:-1], WireError), (good[:0], WireError), (torch.cat([good] * 9), ProtocolError)):
        with pytest.raises(error):
            desk.exchange(0, 1, 1, bad)
    with pytest.raises(ProtocolError, match=r"0 workers"):
        desk.exchange(0, 1, 0, good)
    with pytest.raises(ProtocolError, match=r"worker 4, which has not begun"):
        desk.exchange(4, 1, 1, good)
    assert torch.equal(desk.shared_parameters()["w"], before)
    assert desk.exchange(0, 1, 1, good)[0][1].expected == 2


def test_another_training_goes_on_from_the_model_only_if_asked_to(tmp_path: Path) -> None:
    office = Office(plan_of(tmp_path, num_workers=1))
    stepper = Stepper(office.worker(0))
    steps(stepper, 0, 6)
    stepper.handle.close()
    trained = office.desk.shared_parameters()["w"].clone()
    del office.desk
    with pytest.raises(ConfigError, match=r"another training.*resume=True"):
        Desk(replace(office.plan, run="other"), build_model())
    desk = Desk(replace(office.plan, run="other", resumes=True), other_start())
    torch.testing.assert_close(desk.untrained["frozen"], build_model().get_parameter("frozen"), rtol=0, atol=0)
    assert torch.equal(desk.shared_parameters()["w"], trained)
    assert desk.report().num_merged == 0
    del desk
    with pytest.raises(ConfigError, match=r"another model than build_model makes"):
        Desk(replace(office.plan, run="third", resumes=True), nn.Linear(2, 1))


def test_a_file_that_is_no_servers_is_refused(tmp_path: Path) -> None:
    for contents in (b"something else", to_bytes({"w": torch.ones(1)})):
        (tmp_path / "server.pt").write_bytes(contents)
        with pytest.raises(ConfigError, match=r"server.pt is not the state of a server"):
            Desk(plan_of(tmp_path), build_model())


def test_a_worker_begins_with_all_that_the_server_has_and_only_once() -> None:
    office = Office(plan_of(num_workers=1))
    stepper = Stepper(worker := office.worker(0))
    for own, servers in zip(
        (*stepper.model.parameters(), *stepper.model.buffers()), _tensors(build_model()), strict=True
    ):
        assert torch.equal(own, servers)
    with pytest.raises(ConfigError, match=r"called twice"):
        worker.synchronize(stepper.optimizer, stepper.model)


def test_what_is_not_trained_outlives_the_server_too(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    before = {name: tensor.clone() for name, tensor in Desk(plan, build_model()).untrained.items()}
    after = Desk(plan, other_start())  # a model of another randomness
    assert sorted(before) == ["frozen", "scale"]
    torch.testing.assert_close(after.untrained, before, rtol=0, atol=0)
    assert torch.equal(after.shared_parameters()["w"], build_model().get_parameter("w"))


def test_those_who_wait_go_on_when_all_are_told_to_stop() -> None:
    desk = Desk(plan_of(method="local-sgd-async:every=1,staleness=0", num_workers=2), build_model())
    assert desk.exchange(0, 1, 2, message(0.1)) == []
    ((rank, reply),) = desk.stop()
    assert (rank, reply.answer[0]) == (0, Control.PAUSE)


def _tensors(model: nn.Module) -> tuple[Tensor, ...]:
    return (*model.parameters(), *model.buffers())


def test_what_could_not_be_saved_is_kept_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(plan_of(tmp_path, num_workers=1, save_every=2, method=DENSE))
    office.exchange(0, 1, 1, message(0.1).numpy().tobytes())

    def fails(state: object) -> None:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(office.desk._file, "save", fails)
    with pytest.raises(ConfigError, match=r"disk is full"):
        office.exchange(0, 2, 1, message(0.1).numpy().tobytes())
    reply = office.exchange(0, 2, 1, message(0.1).numpy().tobytes())
    assert (reply.expected, reply.covered) == (3, 0)
