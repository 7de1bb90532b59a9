"""Several programs of one process at a time: while one waits for its messages the next one computes."""

import functools
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from thinwire.distributed.communication_thread import CommunicationThread
from thinwire.distributed.lane import Lane
from thinwire.distributed.transport import Transport
from thinwire.steps import Op, Steps

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Program:
    """A program that was submitted, and how far it has come."""

    steps: Steps[Any]
    then: Callable[[Any], Any]
    handed: Any
    """What the lane waits for before any of it is done."""
    promise: "Future[Any]" = field(default_factory=Future)
    request: Op | None = None
    is_over: bool = False
    result: Any = None
    error: BaseException | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether nothing of it has been done."""
        return self.request is None and not self.is_over

    def advance(self, move: Callable[[], Op]) -> None:
        """Compute up to the next request, or to the end."""
        try:
            self.request = move()
        except StopIteration as stop:
            self.is_over, self.result = True, stop.value
        except BaseException as error:  # handed to whoever waits for the result
            self.is_over, self.error = True, error
            self.steps.close()

    def end(self, flush: Callable[[], None]) -> None:
        """Keep the promise."""
        try:
            if self.error is not None:
                raise self.error
            flush()
            value = self.then(self.result)
        except BaseException as error:
            self.promise.set_exception(error)
        else:
            self.promise.set_result(value)


class Pipeline:
    """Runs programs in the order in which they are submitted, in a thread of its own.

    A program computes up to its first request as soon as the one before it waits, and asks when that one has ended. So
    compression is hidden behind the wire, and every process makes the same requests in the same order, whatever its
    threads do. A second thread waits for messages. Both are daemons: a peer that never answers cannot keep the process
    from ending.

    Args:
        transport: performs the requests; nobody else may use it while programs run.
        lane: what programs compute on.
        ahead: whether the next program computes while one waits; if not, they run one after another.
    """

    def __init__(self, transport: Transport, lane: Lane, ahead: bool = True) -> None:
        self._transport = transport
        self._lane = lane
        self._ahead = ahead
        self._communication = CommunicationThread(lane)
        # What is to be done: take up a program, go on with the reply of the first one, or end.
        self._events: queue.SimpleQueue[_Program | Future[Any] | None] = queue.SimpleQueue()
        self._programs: deque[_Program] = deque()
        self._thread = threading.Thread(target=self._work, name="thinwire-pipeline", daemon=True)
        self._thread.start()

    def submit(self, steps: Steps[T], then: Callable[[T], R]) -> "Future[R]":
        """Run a program, and ``then`` with its result, once all that were submitted before are over."""
        program = _Program(steps, then, self._lane.hand_over())
        self._events.put(program)
        return program.promise

    def close(self) -> None:
        """End the thread; call it when every promise has been kept."""
        self._events.put(None)
        self._thread.join()
        self._communication.close()

    def _work(self) -> None:
        with self._lane.entered():
            self._go_through()

    def _go_through(self) -> None:
        while (event := self._events.get()) is not None:
            if isinstance(event, _Program):
                self._programs.append(event)
                if len(self._programs) == 1:
                    self._settle()
            else:
                self._go_on(event)
                self._settle()
            if self._ahead and len(self._programs) > 1 and self._programs[1].is_fresh:
                self._begin(self._programs[1])

    def _settle(self) -> None:
        """End the programs at the front that are over, and let the next one ask."""
        while self._programs:
            first = self._programs[0]
            if first.is_fresh:
                self._begin(first)
            if not first.is_over:
                assert first.request is not None
                request = self._transport.placed(first.request)
                asked = self._communication.submit(functools.partial(self._transport.perform, request))
                asked.add_done_callback(self._events.put)
                return
            self._programs.popleft().end(self._transport.flush)

    def _begin(self, program: _Program) -> None:
        self._lane.take_up(program.handed)
        program.advance(lambda: next(program.steps))

    def _go_on(self, done: "Future[Any]") -> None:
        """The first program has the reply to its request."""
        first = self._programs[0]
        request = first.request
        assert request is not None
        first.advance(lambda: first.steps.send(self._transport.answer(request, done.result())))
