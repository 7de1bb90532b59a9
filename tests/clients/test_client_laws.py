"""Training with clients: what must hold whoever takes part, and the bits of ordinary workers where all do."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from client_runs import NUMEL, Springs, WithBuffers, owed, session, shared
from torch import Tensor

from thinwire.experiments.clients.crew import common_num_bytes, common_vectors
from thinwire.experiments.clients.round_log import read_rounds
from thinwire.experiments.clients.setting import Clients, LocalOptimizer
from thinwire.experiments.session import Session
from thinwire.methods.participation import Cyclic, Independent, Participation, Uniform
from thinwire.network import FRAME_NUM_BYTES
from thinwire.payloads import Dense
from thinwire.random import Key
from thinwire.simulator.tracing import traced
from thinwire.steps import AllGather, Steps
from thinwire.wire import decode, encode

METHODS = (
    "sgd", "qsgd", "ef-sgd:k=2", "topk:k=2", "dgc:density=20%", "signtopk:k=2,every=3", "qsparse:density=30%,every=5",
    "diloco:every=2", "ef-signsgd:every=2,exchange=server", "ef-sgd:k=2,residual_dtype=bf16",
)  # fmt: skip
PARTIAL = (Uniform(4), Independent(0.5), Cyclic(3))


def tensors_of(trained: Session) -> list[Tensor]:
    return [
        tensor
        for worker in trained.workers
        for tensor in (*worker.model.state_dict().values(), *worker.state_dict()["tensors"].values())
    ]


def check_equal(ordinary: Session, everyone: Session) -> None:
    expected = list(ordinary.records())
    assert [{k: v for k, v in each.items() if k != "clients"} for each in everyone.records()] == expected
    pairs = zip(tensors_of(ordinary), tensors_of(everyone), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert ordinary.engine.traffic() == everyone.engine.traffic()


@pytest.mark.parametrize("optimizer", ["sgd", "sgd:momentum=0.9", "adam"])
@pytest.mark.parametrize("method", METHODS)
def test_all_in_every_round_are_ordinary_workers_bit_for_bit(method: str, optimizer: str, tmp_path: Path) -> None:
    everyone = Clients(count=4, participation=Uniform(4))
    check_equal(
        session(method, None, tmp_path / "one", optimizer=optimizer),
        session(method, everyone, tmp_path / "other", optimizer=optimizer),
    )


@pytest.mark.parametrize("way", [Cyclic(4), Independent(1.0)], ids=str)
@pytest.mark.parametrize("method", ["sgd", "signtopk:k=2,every=3"])
def test_so_they_are_in_whatever_way_all_take_part(method: str, way: Participation, tmp_path: Path) -> None:
    everyone = Clients(count=4, participation=way, absent="drop:1")
    check_equal(session(method, None, tmp_path / "one"), session(method, everyone, tmp_path / "other"))


@pytest.mark.parametrize("method", ["sgd", "ef-sgd:k=2", "topk:k=2,every=2"])
def test_buffers_go_with_the_client(method: str, tmp_path: Path) -> None:
    task = WithBuffers(batch_size=3)
    everyone = Clients(count=4, participation=Uniform(4))
    check_equal(session(method, None, tmp_path / "one", task), session(method, everyone, tmp_path / "other", task))


def test_a_client_finds_its_own_buffers_again(tmp_path: Path) -> None:
    """A step of the norm per turn: its count of batches is that of the client's own."""
    clients = Clients(count=6, participation=Uniform(2))
    trained = session("topk:k=2,every=3", clients, tmp_path, WithBuffers(batch_size=3), steps=30)
    list(trained.records())
    assert trained.crew is not None
    turns = list(itertools.chain.from_iterable(each["clients"] for each in read_rounds(tmp_path)))
    for seat in trained.crew.seats:
        counted = seat.worker.model.get_buffer("norm.num_batches_tracked")
        assert int(counted) == 3 * turns.count(seat.owner)


@pytest.mark.parametrize("absent", ["keep", "drop:2"])
@pytest.mark.parametrize("way", PARTIAL, ids=str)
@pytest.mark.parametrize("method", ["qsgd", "ef-sgd:k=2", "signtopk:k=2,every=3", "diloco:every=2"])
def test_what_goes_on_has_the_bits_of_what_never_stopped(
    method: str, way: Participation, absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinwire.experiments.session.SAVE_AFTER_S", -1.0)
    clients = Clients(count=12, participation=way, absent=absent)

    def make(folder: str) -> Session:
        return session(method, clients, tmp_path / folder, steps=20, optimizer="sgd:momentum=0.5")

    whole = make("whole")
    list(whole.records())
    for stop in (4, 12):  # within a round of three steps as well
        next(record for record in make("cut").records() if record["step"] == stop)
    resumed = make("cut")
    rest = list(resumed.records())
    assert rest[0]["step"] > 4
    assert len(whole.workers) == len(resumed.workers)
    for one, other in zip(tensors_of(whole), tensors_of(resumed), strict=True):
        assert torch.equal(one, other)
    for name in ("records.jsonl", "rounds.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.crew is not None
    assert resumed.crew is not None
    pairs = zip(whole.crew.absent.residuals(), resumed.crew.absent.residuals(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert whole.engine.state_dict() == resumed.engine.state_dict()


@pytest.mark.parametrize("way", PARTIAL, ids=str)
@pytest.mark.parametrize("method", ["ef-sgd:k=1", "topk:k=1,every=3", "signtopk:k=2,every=2"])
def test_what_was_done_is_in_the_model_or_owed(method: str, way: Participation, tmp_path: Path) -> None:
    """x_0 - x_T = sum over clients of (D - m) / (mean number of participants)."""
    task = Springs()
    trained = session(method, Clients(count=12, participation=way), tmp_path, task, steps=60, evaluate_every=60)
    begun = shared(trained).double()
    list(trained.records())
    moved = begun - shared(trained).double()
    done, debt = 0.1 * sum(task.sums.values(), torch.zeros(NUMEL, dtype=torch.float64)), owed(trained)
    if method.startswith("ef-sgd"):  # memories of gradients are in units of a gradient
        debt = 0.1 * debt
    assert float(debt.norm()) > 0.1
    assert torch.allclose(moved, (done - debt) / way.mean_size(12), atol=2e-5)


def largest(x: "np.ndarray[Any, Any]", count: int) -> "np.ndarray[Any, Any]":
    kept = np.zeros_like(x)
    places = np.argsort(-np.abs(x), kind="stable")[:count]
    kept[places] = x[places]
    return kept


@pytest.mark.parametrize("local_optimizer", ["keep", "fresh"])
@pytest.mark.parametrize(("absent", "lasts"), [("keep", 10**9), ("fresh", 0), ("drop:1", 1), ("drop:3", 3)])
@pytest.mark.parametrize("way", PARTIAL, ids=str)
def test_sixty_rounds_are_those_of_plain_numpy(
    way: Participation, absent: str, lasts: int, local_optimizer: LocalOptimizer, tmp_path: Path
) -> None:
    task, count, rounds = Springs(batch_size=6), 8, 60
    clients = Clients(count=count, participation=way, absent=absent, local_optimizer=local_optimizer)
    trained = session(
        "topk:k=3,every=2", clients, tmp_path, task, steps=2 * rounds, optimizer="sgd:momentum=0.5", evaluate_every=40
    )
    x = shared(trained).double().numpy().copy()
    goals = [task.places[each.shard].double().mean(0).numpy() for each in trained.batches]
    memory, speed, last = np.zeros((count, NUMEL)), np.zeros((count, NUMEL)), [-(10**9)] * count
    number = held = 0
    while held < rounds:
        present = way.draw(number, count, Key(0).fold("clients"))
        total = np.zeros(NUMEL)
        for client in present:
            if number - last[client] > lasts:
                memory[client] = 0.0
            if local_optimizer == "fresh":
                speed[client] = 0.0
            own = x.copy()
            for _ in range(2):
                speed[client] = 0.5 * speed[client] + own - goals[client]
                own -= 0.1 * speed[client]
            meant = memory[client] + x - own
            sent = largest(meant, 3)
            memory[client], last[client], total = meant - sent, number, total + sent
        x -= total / way.mean_size(count)
        number, held = number + 1, held + bool(present)
    list(trained.records())
    assert np.allclose(shared(trained).numpy(), x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("way", PARTIAL, ids=str)
def test_gradients_of_those_present_move_all_alike(way: Participation, tmp_path: Path) -> None:
    """Optimizer and model are common, memories are in units of a gradient; plain numpy again."""
    task, count = Springs(batch_size=6), 8
    clients = Clients(count=count, participation=way)
    trained = session("ef-sgd:k=3", clients, tmp_path, task, steps=60, optimizer="sgd:momentum=0.5", evaluate_every=30)
    x, speed, memory = shared(trained).double().numpy().copy(), np.zeros(NUMEL), np.zeros((count, NUMEL))
    goals = [task.places[each.shard].double().mean(0).numpy() for each in trained.batches]
    number = held = 0
    while held < 60:
        present = way.draw(number, count, Key(0).fold("clients"))
        total = np.zeros(NUMEL)
        for client in present:
            meant = memory[client] + x - goals[client]
            sent = largest(meant, 3)
            memory[client], total = meant - sent, total + sent
        number += 1
        if present:
            held, speed = held + 1, 0.5 * speed + total / way.mean_size(count)
            x -= 0.1 * speed
    list(trained.records())
    assert np.allclose(shared(trained).numpy(), x, rtol=0, atol=2e-6)


def heard(trained: Session) -> list[list[int]]:
    """Lengths of the messages of each gather that a run makes from now on, by place."""
    found: list[list[int]] = []
    run: Callable[..., Any] = trained.engine.run

    def listening(programs: list[Steps[None]]) -> list[None]:
        traces: list[list[Any]] = [[] for _ in programs]
        results: list[None] = run([traced(each, trace) for each, trace in zip(programs, traces, strict=True)])
        gathers = [[op.message.numel() for op in trace if isinstance(op, AllGather)] for trace in traces]
        found.extend(map(list, zip(*gathers, strict=True)))
        return results

    trained.engine.run = listening  # type: ignore[method-assign, assignment]
    return found


@pytest.mark.parametrize("way", PARTIAL, ids=str)
@pytest.mark.parametrize("method", ["ef-sgd:k=2", "topk:k=2,every=2", "qsparse:density=30%,every=2,exchange=gather"])
def test_bytes_are_those_of_the_messages(method: str, way: Participation, tmp_path: Path) -> None:
    trained = session(method, Clients(count=12, participation=way), tmp_path, steps=16)
    lengths = heard(trained)
    records = list(trained.records())
    rounds = read_rounds(tmp_path)
    assert [each["message_bytes"] for each in rounds] == lengths
    model = len(encode(Dense(shared(trained))))
    before: list[int] = []
    for number, each in enumerate(rounds):
        assert each["model_bytes"] == [model if number and client not in before else 0 for client in each["clients"]]
        total = sum(each["message_bytes"]) + FRAME_NUM_BYTES * len(each["clients"])
        down = [size + FRAME_NUM_BYTES * (size > 0) for size in each["model_bytes"]]
        others = [total - own - FRAME_NUM_BYTES for own in each["message_bytes"]]
        assert each["bytes_received"] == [a + b for a, b in zip(down, others, strict=True)]
        copies = len(each["clients"]) - 1
        assert each["bytes_sent"] == [copies * (own + FRAME_NUM_BYTES) for own in each["message_bytes"]]
        before = each["clients"]
    for name in ("message_bytes", "bytes_sent", "bytes_received"):
        everything = sum(sum(each[name]) for each in rounds)
        assert records[-1][name] == pytest.approx(everything / trained.engine.size, rel=1e-12)
    links = trained.engine.traffic()
    for client in range(12):
        own = [each["bytes_received"][each["clients"].index(client)] for each in rounds if client in each["clients"]]
        assert links[client].bytes_received == sum(own)


@pytest.mark.parametrize(
    ("method", "optimizer", "num_vectors"),
    [("topk:k=2,every=2", "adam", 1), ("diloco:every=2", "sgd", 2), ("sgd", "sgd", 1), ("sgd", "adam", 3)],
)
def test_what_is_handed_over_is_all_that_is_common(
    method: str, optimizer: str, num_vectors: int, tmp_path: Path
) -> None:
    trained = session(method, Clients(count=12, participation=Uniform(4)), tmp_path, optimizer=optimizer)
    list(trained.records())
    vectors = common_vectors(trained.workers[0])
    messages = [encode(Dense(vector)) for vector in vectors]
    assert common_num_bytes(trained.workers[0]) == sum(map(len, messages))
    assert torch.equal(decode(messages[0]).to_dense(), shared(trained))
    assert [vector.numel() for vector in vectors] == [NUMEL] * num_vectors


def test_the_clients_are_the_same_whatever_they_train(tmp_path: Path) -> None:
    found = []
    for number, method in enumerate(("sgd", "topk:k=2,every=2", "diloco:every=2")):
        list(session(method, Clients(count=12, participation=Uniform(3)), tmp_path / str(number)).records())
        found.append([each["clients"] for each in read_rounds(tmp_path / str(number))][:6])
    assert found[0] == found[1] == found[2]
    assert found[0] == [Uniform(3).draw(number, 12, Key(0).fold("clients")) for number in range(6)]


def test_there_are_models_for_those_present_and_memories_for_those_who_ever_were(tmp_path: Path) -> None:
    trained = session("topk:k=2,every=2", Clients(count=16, participation=Uniform(3)), tmp_path, steps=8)
    list(trained.records())
    assert trained.crew is not None
    assert len(trained.workers) == 3
    ever = set(itertools.chain.from_iterable(each["clients"] for each in read_rounds(tmp_path)))
    assert trained.crew.absent.state_dict().keys() == ever - {seat.owner for seat in trained.crew.seats}


def norm(residuals: list[Tensor]) -> float:
    return float(torch.stack(residuals).norm())


def test_a_fallen_rate_makes_the_absent_forget_too(tmp_path: Path) -> None:
    clients = Clients(count=12, participation=Uniform(3))
    method = "qsparse:density=30%,every=2,exchange=gather,wipe=yes"
    trained = session(method, clients, tmp_path, steps=12, lr_schedule="drops:at=8,factor=0.1")
    assert trained.crew is not None
    trained.train(0, 8)
    before = norm(trained.crew.absent.residuals())
    assert before > 0
    trained.train(8, 10)
    memories = [each["memory"] for each in trained.crew.absent.state_dict().values()]
    assert memories
    assert all(memory is None for memory in memories)
    assert not trained.crew.absent.residuals()
    trained.train(10, 12)
    assert 0 < norm(trained.crew.absent.residuals()) < 0.5 * before
