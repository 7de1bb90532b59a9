"""Programs of one process, one of which computes while another waits."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, cast

import pytest

from thinwire.arrays import CPU
from thinwire.distributed.lane import Lane
from thinwire.distributed.pipeline import Pipeline
from thinwire.distributed.transport import Transport
from thinwire.errors import WorkerError
from thinwire.steps import Compute, Op, Steps, compute


class Link:
    """A transport whose answers come when a test says so; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, Future[Any]]] = []
        self.flushed = 0
        self.news = threading.Semaphore(0)

    def placed(self, op: Op) -> Op:
        return op

    def perform(self, op: Op) -> Any:
        assert isinstance(op, Compute)
        future: Future[Any] = Future()
        self.asked.append((op.seconds, future))
        self.news.release()
        return future.result(30)

    def answer(self, op: Op, found: Any) -> Any:
        return found

    def flush(self) -> None:
        self.flushed += 1

    def wait(self) -> "Future[Any]":
        """Until it is asked once more."""
        assert self.news.acquire(timeout=30)
        return self.asked[-1][1]


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture(params=[True, False])
def pipeline(link: Link, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    made = Pipeline(cast(Transport, link), Lane(CPU), ahead=request.param)
    yield made
    made.close()


def program(number: int, num_requests: int, said: Callable[[str], None]) -> Steps[int]:
    said(f"{number} computes")
    for request in range(num_requests):
        yield from compute(10.0 * number + request)
        said(f"{number} goes on")
    return number


def test_requests_are_made_program_by_program(pipeline: Pipeline, link: Link) -> None:
    order: list[str] = []
    ended: list[int] = []
    # One makes no request at all; it ends in its turn all the same.
    counts = [1, 3, 0, 2, 1]

    def end(number: int) -> int:
        ended.append(number)
        return -number

    promises = [pipeline.submit(program(number, count, order.append), end) for number, count in enumerate(counts)]
    for _ in range(sum(counts)):
        link.wait().set_result(None)
    assert [promise.result(30) for promise in promises] == [0, -1, -2, -3, -4]
    assert [seconds for seconds, _ in link.asked] == [0.0, 10.0, 11.0, 12.0, 30.0, 31.0, 40.0]
    assert ended == [0, 1, 2, 3, 4]
    assert link.flushed == 5


def test_the_next_one_computes_while_the_first_waits_and_asks_afterwards() -> None:
    link, computed = Link(), threading.Semaphore(0)
    pipeline = Pipeline(cast(Transport, link), Lane(CPU))
    promises = [pipeline.submit(program(number, 1, lambda _: computed.release()), int) for number in range(3)]
    waits = link.wait()
    assert computed.acquire(timeout=30)
    assert computed.acquire(timeout=30)  # the second has computed, and the first has no answer
    assert len(link.asked) == 1
    waits.set_result(None)
    for _ in range(2):
        link.wait().set_result(None)
    assert [promise.result(30) for promise in promises] == [0, 1, 2]
    pipeline.close()


def test_a_failure_is_its_own_programs(pipeline: Pipeline, link: Link) -> None:
    def fails() -> Steps[None]:
        raise ZeroDivisionError
        yield  # type: ignore[unreachable]  # which makes it a program

    def closes(seen: list[str]) -> Steps[None]:
        try:
            yield from compute(0.0)
        finally:
            seen.append("closed")

    seen: list[str] = []
    first = pipeline.submit(closes(seen), lambda _: None)
    second = pipeline.submit(fails(), lambda _: None)
    third = pipeline.submit(program(3, 1, lambda _: None), lambda number: 1 // (number - 3))
    fourth = pipeline.submit(program(4, 1, lambda _: None), int)
    link.wait().set_exception(WorkerError("gone"))
    for _ in range(2):
        link.wait().set_result(None)
    with pytest.raises(WorkerError, match="gone"):
        first.result(30)
    for failed in (second, third):
        with pytest.raises(ZeroDivisionError):
            failed.result(30)
    assert fourth.result(30) == 4
    assert seen == ["closed"]
