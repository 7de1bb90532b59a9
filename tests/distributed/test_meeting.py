"""Processes meet in a store, whatever an earlier attempt has left there; who never comes is named."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from thinwire.distributed.meeting import StoreMeeting
from thinwire.errors import WorkerError

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
