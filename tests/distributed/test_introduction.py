"""Processes are made known to each other over any group, agree on what they do, and leave nothing behind."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import links_mains as mains
import pytest
import torch
import zmq

from thinwire import Simulation, Worker
from thinwire.distributed import LinkOptions
from thinwire.distributed.alike import family
from thinwire.distributed.doors import Door
from thinwire.errors import ConfigError
from thinwire.methods import parse_method

METHODS = ("sgd", "topk:density=10%", "signtopk:density=10%,every=3", "qsgd:bits=4,exchange=server")
STEPS = 6


def values(outcomes: list[mains.Outcome]) -> list[Any]:
    assert [(each.error, each.text) for each in outcomes] == [("", "")] * len(outcomes)
    return [each.value for each in outcomes]


def simulated(method: str, size: int) -> list[dict[str, torch.Tensor]]:
    workers = []
    for rank in range(size):
        model = mains.network(seed=0)
        workers.append(Worker(parse_method(method), model, mains.sgd(model), rank=rank, size=size, seed=0))
    simulation = Simulation(size)
    for step in range(STEPS):
        for rank, worker in enumerate(workers):
            worker.optimizer.zero_grad()
            mains.loss_of(worker.model, step, rank).backward()
        simulation.run([worker.step() for worker in workers])
    return [{name: param.detach() for name, param in worker.model.named_parameters()} for worker in workers]


@pytest.mark.parametrize("backend", ["gloo", "bare"])
def test_a_backend_that_can_all_gather_will_do(backend: str, tmp_path: Path) -> None:
    """``bare`` is written in Python and can do nothing else; the bits are those of the simulation."""
    found = values(mains.run(tmp_path, mains.trains, 2, METHODS, STEPS, backend=backend))
    for number, method in enumerate(METHODS):
        for rank, expected in enumerate(simulated(method, 2)):
            own = found[rank][number]
            assert own.keys() == expected.keys()
            assert all(torch.equal(own[name], expected[name]) for name in own)


@pytest.fixture(scope="module")
def disagreed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[str, str, float]]]:
    folder = tmp_path_factory.mktemp("disagree")
    return values(mains.run(folder, mains.disagree, 3, list(mains.DISAGREEMENTS)))


@pytest.mark.parametrize("name", mains.DISAGREEMENTS)
def test_processes_that_differ_are_told_in_what_at_once(
    name: str, disagreed: list[dict[str, tuple[str, str, float]]]
) -> None:
    kind, (many, one), *_ = mains.DISAGREEMENTS[name]
    errors = [each[name] for each in disagreed]
    for error, text, seconds in errors:
        assert error == "ConfigError"
        assert seconds < mains.SOON_S
        assert kind in text.partition("which must be the same on all")[0]
        assert many in text
        assert one in text
        # Who holds what.
        assert text.count("(worker 0, 1)") == text.count("(worker 2)") == 1
    assert len({text for _, text, _ in errors}) == 1


def test_groups_that_not_every_process_is_in_do_not_matter(tmp_path: Path) -> None:
    first, second = values(mains.run(tmp_path, mains.among_groups, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_scripts_timeout_is_obeyed(tmp_path: Path) -> None:
    timeout_s = 2.0
    found = values(mains.run(tmp_path, mains.waits_for_the_groups_timeout, 2, group_timeout_s=timeout_s))
    error, text, seconds = found[0]
    assert error == "WorkerError"
    assert "worker 1" in text
    assert 0.5 * timeout_s < seconds < timeout_s + mains.SOON_S


def test_handles_that_were_closed_leave_no_threads_and_no_files(tmp_path: Path) -> None:
    for few, many in values(mains.run(tmp_path, mains.many_handles, 2, 5, 30)):
        assert many[0] <= few[0]
        assert many[1] <= few[1]


def test_on_one_machine_nothing_listens_and_no_file_is_left(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    for listening, files, shared in values(mains.run(tmp_path, mains.listens, 2, str(temporary))):
        assert not listening
        assert files == []
        assert shared == [[0.0], [1.0]]


def test_programs_of_the_first_processes_do_not_mix_with_what_the_others_do(tmp_path: Path) -> None:
    found = values(mains.run(tmp_path, mains.firsts, 4, 2))
    for rank, each in enumerate(found):
        assert each["is of them"] == (rank < 2)
        assert each["seen"] == [[3, 4]] * (21 if rank < 2 else 0)
        assert each["shared"] == [[float(other)] for other in range(4)]
        assert torch.equal(each["together"], torch.full((5,), 6.0))
    small, whole = found[0]["traffic"], found[0]["whole traffic"]
    assert small.bytes_sent > 21 * 3
    assert 0 < whole.bytes_sent <= 2 * 20  # of the sum, and of nothing else


# Ports.


@pytest.fixture
def free_port() -> int:
    """A port behind which two more are free, or were a moment ago."""
    for _ in range(50):
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except OSError:
                continue
            return port
    raise AssertionError("no three ports in a row are free")


@contextlib.contextmanager
def open_door(options: LinkOptions, interface: str) -> Iterator[Door]:
    """With a context of its own: when that has ended the port is free."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        door = Door(context, options, interface)
        yield door
        door.close(0)
    finally:
        context.term()


def test_doors_take_the_ports_of_the_range_and_no_others(free_port: int) -> None:
    options = LinkOptions(ports=(free_port, free_port + 2))
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(open_door(options, "127.0.0.1")) for _ in range(3)]
        ports = [int(door.endpoint.rpartition(":")[2]) for door in doors]
        assert ports == [free_port, free_port + 1, free_port + 2]
        taken = f"all ports from {free_port} to {free_port + 2} are taken on 127.0.0.1"
        with pytest.raises(ConfigError, match=taken), open_door(options, "127.0.0.1"):
            raise AssertionError
    with open_door(options, "127.0.0.1") as door:  # they are free again
        assert door.endpoint.endswith(f":{free_port}")


@pytest.mark.parametrize("interface", ["nosuch0", "203.0.113.7", "not.a.machine.invalid"])
def test_an_interface_that_is_not_there_is_refused(
    interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = rf"cannot listen on '{interface}' .*LinkOptions\(interface=\.\.\.\)"
    with pytest.raises(ConfigError, match=said), open_door(LinkOptions(), interface):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", range(1, 70))
def test_everybody_hears_from_one_process_within_few_rounds(size: int) -> None:
    parents = {rank: family(rank, size)[0] for rank in range(size)}
    assert [rank for rank, parent in parents.items() if parent is None] == [0]
    children = [(parent, child) for parent in range(size) for child in family(parent, size)[1]]
    assert sorted(child for _, child in children) == list(range(1, size))
    assert all(parents[child] == parent for parent, child in children)
    # Who hears in which round: a process tells one child after another.
    heard = {0: 0}
    for parent in sorted(parents, key=lambda rank: (rank.bit_count(), rank)):
        for number, child in enumerate(family(parent, size)[1]):
            heard[child] = heard[parent] + number + 1
    assert max(heard.values()) <= max(0, (size - 1).bit_length())


# What processes begin with.

SIZES = (1, 2, 3, 5)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, dict[str, mains.Beginning]]]:
    return values(mains.run(tmp_path_factory.mktemp("begin"), mains.begin, max(SIZES), SIZES))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", mains.BEGINNINGS)
def test_everybody_begins_with_the_first_ones_bits_and_only_what_differs_is_sent(
    name: str, size: int, begun: list[dict[int, dict[str, mains.Beginning]]]
) -> None:
    found = [begun[rank][size][name] for rank in range(size)]
    first = found[0].first
    for each in found:
        assert each.state.keys() == first.keys()
        assert all(torch.equal(each.state[key], first[key]) for key in first)
        assert all(each.state[key].dtype == first[key].dtype for key in first)
        assert each.keeps_strides
        assert each.num_bytes == each.differing_bytes == found[0].differing_bytes
    assert sum(each.sent_bytes for each in found) == (size - 1) * found[0].differing_bytes
    assert (found[0].differing_bytes == 0) == (size == 1 or not mains.BEGINNINGS[name])
