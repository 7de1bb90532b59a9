"""One run of a simulation: programs that wait for each other, in the order of virtual time."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thinwire.arrays import empty_like
from thinwire.errors import DeadlockError, ProtocolError
from thinwire.network import Traffic, all_gather_s, all_gather_traffic, all_reduce_s, all_reduce_traffic
from thinwire.simulator.virtual_links import VirtualLinks
from thinwire.steps import (
    AllGather,
    AllReduce,
    Compute,
    Op,
    Receive,
    ReceiveAny,
    Send,
    Steps,
    Tell,
    check_length,
    check_peer,
    describe,
    sum_in_order,
)

_ARRIVAL = object()
"""In the queue of events, in place of a reply: a message has come to a worker that may wait for anyone's."""


@dataclass(frozen=True, slots=True)
class _AtPort:
    """In the queue of events, in place of a reply: the first bit of a message is at its receiver's port."""

    source: int
    destination: int
    parcel: "_Parcel"


class _Parcel:
    """A message under way, read by the first that gets it, for all that it was sent to."""

    def __init__(self, message: Tensor) -> None:
        self.message = message
        self._content: list[Any] = []

    def opened(self, read: Callable[[Tensor], Any]) -> Any:
        if not self._content:
            self._content.append(read(self.message))
        return self._content[0]


class Round:
    """One run: an event queue ordered by virtual time, then by the order of the requests.

    Args:
        links: of the workers, and their clocks.
        programs: one a worker.
    """

    def __init__(self, links: VirtualLinks, programs: Sequence[Steps[Any]]) -> None:
        self._links = links
        self._programs = programs
        self._size = len(programs)
        self._results: list[Any] = [None] * self._size
        self._ready: list[tuple[float, int, int, Any]] = []
        self._num_events = 0
        self._waiting: dict[int, Op] = {}
        self._finished: set[int] = set()
        self._busy_until = [0.0] * self._size
        # For each receiver, by sender: when a message has arrived, how many came before it, and what it is.
        self._mail: list[dict[int, deque[tuple[float, int, _Parcel]]]] = [{} for _ in programs]
        self._num_under_way = 0
        self._num_arrived = 0
        self._last_sent: dict[int, _Parcel] = {}
        for rank in range(self._size):
            self._wake(rank, links.clocks[rank], None)

    def run(self) -> list[Any]:
        """The results of all programs.

        Raises:
            DeadlockError: every unfinished worker waits.
            ProtocolError: requests do not fit together, or a message was left that nobody received.
        """
        while self._ready:
            now, _, rank, reply = heapq.heappop(self._ready)
            if reply is _ARRIVAL:
                self._open_first(rank, now)
                continue
            if isinstance(reply, _AtPort):
                self._enter(reply, now)
                continue
            self._links.clocks[rank] = now
            try:
                op = self._programs[rank].send(reply)
            except StopIteration as stop:
                self._results[rank] = stop.value
                self._links.clocks[rank] = max(now, self._busy_until[rank])
                self._finished.add(rank)
            else:
                self._perform(rank, op)
        if self._waiting:
            requests = ", ".join(f"worker {rank}: {describe(op)}" for rank, op in sorted(self._waiting.items()))
            ended = f"; finished: {sorted(self._finished)}" if self._finished else ""
            raise DeadlockError(f"every worker waits for another one: {requests}{ended}")
        unread = [
            f"{len(box)} from worker {source} to worker {to}"
            for to, boxes in enumerate(self._mail)
            for source, box in boxes.items()
            if box
        ]
        if unread:
            raise ProtocolError(f"messages were sent that nobody received: {', '.join(unread)}")
        return self._results

    def _wake(self, rank: int, when: float, reply: Any) -> None:
        self._num_events += 1
        heapq.heappush(self._ready, (when, self._num_events, rank, reply))

    def _perform(self, rank: int, op: Op) -> None:
        now = self._links.clocks[rank]
        match op:
            case Compute(seconds, in_background):
                end = max(now, self._busy_until[rank]) + seconds
                if in_background:
                    self._busy_until[rank] = end
                self._wake(rank, now if in_background else end, None)
            case Send(destination, message):
                check_peer(op, rank, self._size)
                first_bit = self._links.leave(rank, destination, message.numel())
                parcel = self._last_sent.get(rank)
                if parcel is None or parcel.message is not message:
                    parcel = self._last_sent[rank] = _Parcel(message)
                self._num_under_way += 1
                self._wake(destination, first_bit, _AtPort(rank, destination, parcel))
                self._wake(rank, now, None)
            case Receive(source):
                check_peer(op, rank, self._size)
                if self._mail[rank].get(source):
                    self._take(rank, op)
                else:
                    self._waiting[rank] = op
            case ReceiveAny():
                self._waiting[rank] = op
                arrivals = [box[0][0] for box in self._mail[rank].values() if box]
                if arrivals:
                    # Another message may overtake the first of these until it is there.
                    self._wake(rank, max(now, min(arrivals)), _ARRIVAL)
            case AllReduce() | AllGather() | Tell():
                self._waiting[rank] = op
                self._collective_if_ready()

    def _enter(self, event: _AtPort, now: float) -> None:
        """A message goes through its receiver's port into the mail, where somebody may wait for it."""
        source, destination, parcel = event.source, event.destination, event.parcel
        arrival = self._links.enter(source, destination, parcel.message.numel(), now)
        self._num_under_way -= 1
        self._num_arrived += 1
        self._mail[destination].setdefault(source, deque()).append((arrival, self._num_arrived, parcel))
        waiting = self._waiting.get(destination)
        if isinstance(waiting, Receive) and waiting.source == source:
            del self._waiting[destination]
            self._take(destination, waiting)
        elif isinstance(waiting, ReceiveAny):
            self._wake(destination, arrival, _ARRIVAL)
        self._collective_if_ready()

    def _take(self, rank: int, receive: Receive) -> None:
        arrival, _, parcel = self._mail[rank][receive.source].popleft()
        check_length(receive.source, parcel.message.numel(), receive.max_num_bytes)
        self._wake(rank, max(self._links.clocks[rank], arrival), parcel.opened(receive.read))

    def _open_first(self, rank: int, now: float) -> None:
        """Hand the message that arrived first, if one has, to a worker that waits for anyone's."""
        op = self._waiting.get(rank)
        heads = [(box[0][0], box[0][1], source) for source, box in self._mail[rank].items() if box]
        if not isinstance(op, ReceiveAny) or not heads:
            return  # what this arrival announced was taken in the meantime
        arrival, _, source = min(heads)
        if arrival > now:
            return
        del self._waiting[rank]
        _, _, parcel = self._mail[rank][source].popleft()
        check_length(source, parcel.message.numel(), op.max_num_bytes)
        self._wake(rank, max(self._links.clocks[rank], arrival), (source, parcel.opened(op.read)))

    def _collective_if_ready(self) -> None:
        """Begin a collective once everybody has come and no message is under way."""
        if len(self._waiting) == self._size and not self._num_under_way:
            self._collective()

    def _collective(self) -> None:
        ops = [self._waiting[rank] for rank in range(self._size)]
        if len({type(op) for op in ops}) > 1:
            if any(isinstance(op, Receive | ReceiveAny) for op in ops):
                return  # a deadlock, unless a message is under way; run() tells
            listed = ", ".join(f"worker {rank}: {describe(op)}" for rank, op in enumerate(ops))
            raise ProtocolError(f"the workers join in different collectives: {listed}")
        network, clocks = self._links.network, self._links.clocks
        # It also waits for messages that are still on their way on a link.
        start = self._links.all_free_s()
        reply: Any
        traffic, seconds = [Traffic()] * self._size, 0.0
        if isinstance(ops[0], Tell):
            reply = [op.message for op in ops if isinstance(op, Tell)]
            start = 0.0  # it delays nobody
        elif isinstance(ops[0], AllReduce):
            tensors = [op.tensor for op in ops if isinstance(op, AllReduce)]
            if len({tensor.shape for tensor in tensors}) > 1:
                listed = ", ".join(f"worker {rank}: {tuple(tensor.shape)}" for rank, tensor in enumerate(tensors))
                raise ProtocolError(f"the workers all-reduce tensors of different shapes: {listed}")
            reply = empty_like(tensors[0])
            sum_in_order(tensors, ops[0].divisor, reply)
            traffic = all_reduce_traffic(reply.numel(), self._size, reply.element_size())
            seconds = all_reduce_s(network, reply.numel(), self._size, reply.element_size())
        else:
            gathers = [op for op in ops if isinstance(op, AllGather)]
            for source, op in enumerate(gathers):
                check_length(source, op.message.numel(), gathers[0].max_num_bytes)
            reply = gathers[0].combine([op.message for op in gathers])
            sizes = [op.message.numel() for op in gathers]
            traffic, seconds = all_gather_traffic(sizes), all_gather_s(network, sizes)
        self._waiting.clear()
        for rank in range(self._size):
            self._links.traffic[rank] += traffic[rank]
            self._wake(rank, max(start + seconds, clocks[rank]), reply)
