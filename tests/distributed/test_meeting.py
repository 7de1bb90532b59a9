"""Processes meet in a store, whatever an earlier attempt has left there; who never comes is named."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from thinwire.distributed.introduction import Card
from thinwire.distributed.meeting import StoreMeeting, dense_device, group_device
from thinwire.errors import ProtocolError, ThinwireError, WorkerError

LIMIT = timedelta(seconds=20)


@pytest.fixture
def store() -> Iterator[dist.Store]:
    made = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield made
    del made


def client(store: Any) -> dist.Store:
    return dist.PrefixStore("meeting", dist.TCPStore("127.0.0.1", store.port, is_master=False, wait_for_workers=False))


def gather_all(meetings: list[StoreMeeting], rounds: int) -> list[list[list[bytes]]]:
    found: list[Any] = [None] * len(meetings)

    def run(place: int) -> None:
        found[place] = [meetings[place].gather(f"{place} {number} \0".encode()) for number in range(rounds)]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(meetings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT.total_seconds())
    return found


def test_all_get_what_all_give_in_rank_order_and_nothing_stays(store: dist.Store) -> None:
    before = store.num_keys()
    meetings = [StoreMeeting(client(store), rank, 3, LIMIT) for rank in range(3)]
    for _ in range(2):
        found = gather_all(meetings, 3)
        assert found == [[[f"{rank} {number} \0".encode() for rank in range(3)] for number in range(3)]] * 3
        for meeting in meetings:
            meeting.close()
        assert store.num_keys() == before
        meetings = [StoreMeeting(client(store), rank, 3, LIMIT) for rank in range(3)]


def test_what_an_attempt_before_has_left_does_no_harm(store: dist.Store) -> None:
    left = [StoreMeeting(client(store), rank, 2, LIMIT) for rank in range(2)]
    gather_all(left, 1)  # its members end without closing
    late = StoreMeeting(client(store), 0, 2, timedelta(milliseconds=1))
    with pytest.raises(WorkerError, match="did not come to meet the others"):
        late.gather(b"alone")
    again = [StoreMeeting(client(store), rank, 2, LIMIT) for rank in range(2)]
    found = gather_all(again, 2)
    assert found[0] == found[1] == [[b"0 0 \0", b"1 0 \0"], [b"0 1 \0", b"1 1 \0"]]


def test_who_does_not_come_is_named(store: dist.Store) -> None:
    meeting = StoreMeeting(client(store), 0, 2, timedelta(seconds=0.2))
    with pytest.raises(WorkerError, match="worker 1 did not come to meet the others within 0 s"):
        meeting.gather(b"text")


def test_a_store_that_has_ended_is_a_worker_error() -> None:
    made = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meeting = StoreMeeting(client(made), 0, 2, timedelta(seconds=1))
    del made
    with pytest.raises(WorkerError, match="the store by which the processes meet does not answer"):
        meeting.gather(b"text")
    meeting.close()


class Between:
    """A store in which something happens to a worker's text after one has seen that it is there, before one has it."""

    def __init__(self, store: Any, rank: int, happens: Callable[[Any, str], None]) -> None:
        self._store, self._rank, self._happens = store, rank, happens
        self.set, self.check, self.set_timeout = store.set, store.check, store.set_timeout

    def multi_get(self, names: list[str]) -> list[bytes]:
        if not names[0].startswith("number/"):
            self._happens(self._store, names[self._rank])
        found: list[bytes] = self._store.multi_get(names)
        return found


@pytest.mark.parametrize(
    ("happens", "kind", "message"),
    [
        (lambda store, name: store.delete_key(name), WorkerError, "the store by which the processes meet does not"),
        (lambda store, name: store.set(name, ""), WorkerError, "worker 1 was there and has given up"),
        (lambda store, name: store.set(name, "no digits"), ProtocolError, "worker 1 has written b'no digits'"),
        (lambda store, name: store.set(name, "00"), ProtocolError, "where 5 bytes in hexadecimal digits are expected"),
    ],
)
def test_a_text_that_changes_between_two_looks(
    happens: Callable[[Any, str], None], kind: type[ThinwireError], message: str, store: dist.Store
) -> None:
    looking: Any = Between(client(store), 1, happens)
    other = StoreMeeting(client(store), 1, 2, timedelta(seconds=0.5))

    def come() -> None:
        with contextlib.suppress(ThinwireError):  # the other may see what happens to its text, or not
            other.gather(b"other")

    thread = threading.Thread(target=come)
    thread.start()
    with pytest.raises(kind, match=message):
        StoreMeeting(looking, 0, 2, timedelta(seconds=1)).gather(b"texts")
    thread.join(LIMIT.total_seconds())


def test_who_withdraws_is_not_waited_for_and_may_come_again(store: dist.Store) -> None:
    hasty = StoreMeeting(client(store), 1, 2, timedelta(milliseconds=1))
    with pytest.raises(WorkerError, match="did not come"):
        hasty.gather(b"texts")
    hasty.withdraw()
    late = StoreMeeting(client(store), 0, 2, LIMIT)
    with pytest.raises(WorkerError, match="worker 1 was there and has given up before all had met"):
        late.gather(b"texts")  # at once
    late.withdraw()
    hasty.close()
    late.close()
    again = [StoreMeeting(client(store), rank, 2, LIMIT) for rank in range(2)]
    assert gather_all(again, 1)[0] == [[b"0 0 \0", b"1 0 \0"]]


CARD = Card("1", "host", "machine", "path", "tcp://1", "key", "00", {"method": "0"})


def test_a_card_is_read_as_it_was_written() -> None:
    assert Card.of_text(CARD.to_bytes().rstrip(b"\0").decode()) == CARD


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": "1"}', json.dumps({**asdict(CARD), "terms": {"method": 1}}),
             json.dumps({**asdict(CARD), "more": "1"}), json.dumps({**asdict(CARD), "host": 1})],
)  # fmt: skip
def test_what_is_no_card_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError, match="all must run one version of thinwire"):
        Card.of_text(text)


CUDA = [torch.device("cuda", number) for number in range(3)]


@pytest.mark.parametrize(
    ("backends", "model", "bound", "control", "dense"),
    [
        ("cpu:gloo,cuda:gloo", CUDA[2], None, "cpu", CUDA[2]),
        ("cpu:gloo,cuda:nccl", CUDA[2], None, "cpu", CUDA[2]),
        ("cpu:gloo", CUDA[2], None, "cpu", "cpu"),
        ("cuda:nccl", CUDA[2], CUDA[1], CUDA[2], CUDA[2]),
        ("cuda:nccl", torch.device("cpu"), CUDA[1], CUDA[1], CUDA[1]),
        ("cuda:nccl", torch.device("cpu"), None, CUDA[0], CUDA[0]),
        ("cpu:gloo,cuda:nccl", torch.device("cpu"), None, "cpu", "cpu"),
    ],
)
def test_a_backend_gets_tensors_of_the_models_device(
    backends: str, model: torch.device, bound: torch.device | None, control: Any, dense: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Without ``torch.cuda.set_device`` the current device is number 0 on every process of a machine."""
    group = cast(dist.ProcessGroup, SimpleNamespace(bound_device_id=bound))
    monkeypatch.setattr(dist, "get_backend_config", lambda of: backends)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert group_device(group, model) == torch.device(control)
    assert dense_device(group, model) == torch.device(dense)
