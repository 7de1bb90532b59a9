"""Many workers in one process, under a virtual clock."""

import heapq
import operator
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.errors import ConfigError, DeadlockError, ProtocolError
from thinwire.network import (
    FRAME_NUM_BYTES,
    Network,
    Traffic,
    all_gather_s,
    all_gather_traffic,
    all_reduce_s,
    all_reduce_traffic,
)
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
)

T = TypeVar("T")


class Simulation:
    """Runs the programs of ``num_workers`` workers; equal programs give equal bits, bytes and times.

    Clocks and byte counts go on from one :meth:`run` to the next. A collective begins when its last worker has
    arrived and no message is under way, and ends for all at once, after the seconds of :mod:`thinwire.network`. A
    message of a pair occupies the sender's uplink, then the receiver's downlink, for its bytes over the bandwidth,
    in the order in which they come to it: a server with one port is as slow as its port.

    Args:
        num_workers: how many programs run together.
        network: bandwidth and latency of every link.

    Raises:
        ConfigError: no whole number of workers from 1 on, or something else than a network.

    Example:
        >>> from torch import Tensor
        >>> from thinwire.steps import receive, send
        >>> import torch
        >>> def ping():
        ...     yield from send(1, torch.zeros(92, dtype=torch.uint8))
        >>> def pong():
        ...     return (yield from receive(0, Tensor.numel))
        >>> simulation = Simulation(2, Network(bandwidth_Bps=1000.0, latency_s=0.5))
        >>> simulation.run([ping(), pong()]), simulation.clocks
        ([None, 92], [0.0, 0.6])
    """

    def __init__(self, num_workers: int, network: Network | None = None) -> None:
        try:
            is_possible = operator.index(num_workers) >= 1
        except TypeError:
            is_possible = False
        if not is_possible:
            raise ConfigError(f"a simulation of {num_workers!r} workers was asked for; it takes 1 or more")
        if network is not None and not isinstance(network, Network):
            raise ConfigError(
                f"{network!r} was given as the network of a simulation; it takes a Network, such as "
                "Network.parse('100Mbit,20ms')"
            )
        self.network = network or Network()
        self.clocks = [0.0] * num_workers
        self.traffic = [Traffic()] * num_workers
        self._links = [self.network.link(rank) for rank in range(num_workers)]
        self._uplink_free = [0.0] * num_workers
        self._downlink_free = [0.0] * num_workers

    def run(self, programs: Sequence[Steps[T]]) -> list[T]:
        """Run one program a worker to its end and return their results.

        Raises:
            DeadlockError: every unfinished worker waits; the message names what for.
            ProtocolError: the workers do not join in the same collective, address a worker that is not there, or
                leave a message that nobody received.
        """
        if len(programs) != len(self.clocks):
            raise ConfigError(f"{len(programs)} programs were given for {len(self.clocks)} workers")
        return _Round(self, programs).run()

    def state_dict(self) -> dict[str, Any]:
        """Clocks and counts between two runs, as plain numbers."""
        return {
            "clocks": list(self.clocks),
            "traffic": [[link.bytes_sent, link.bytes_received] for link in self.traffic],
            "uplink_free": list(self._uplink_free),
            "downlink_free": list(self._downlink_free),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        if len(saved["clocks"]) != len(self.clocks):
            raise ConfigError(f"the saved simulation has {len(saved['clocks'])} workers, this one {len(self.clocks)}")
        self.clocks = list(saved["clocks"])
        self.traffic = [Traffic(sent, received) for sent, received in saved["traffic"]]
        self._uplink_free = list(saved["uplink_free"])
        self._downlink_free = list(saved["downlink_free"])

    def _leave(self, source: int, destination: int, num_bytes: int) -> float:
        """Account for a message that is sent now, and return when its first bit is at the receiver's port."""
        size = num_bytes + FRAME_NUM_BYTES
        sender, receiver = self._links[source], self._links[destination]
        start = max(self.clocks[source], self._uplink_free[source])
        self._uplink_free[source] = start + size / sender.up_Bps
        self.traffic[source] += Traffic(bytes_sent=size)
        self.traffic[destination] += Traffic(bytes_received=size)
        return start + (sender.latency_s + receiver.latency_s) / 2

    def _enter(self, source: int, destination: int, num_bytes: int, first_bit: float) -> float:
        """Let a message through the receiver's port, after those that came before it; when it has arrived."""
        size = num_bytes + FRAME_NUM_BYTES
        begin = max(first_bit, self._downlink_free[destination])
        end = begin + size / self._links[destination].bandwidth_Bps
        self._downlink_free[destination] = end
        # It cannot be there before it has left; a sender that is slow does not hold up the others meanwhile.
        return max(end, first_bit + size / self._links[source].up_Bps)


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


class _Round:
    """One run: an event queue ordered by virtual time, then by the order of the requests."""

    def __init__(self, simulation: Simulation, programs: Sequence[Steps[Any]]) -> None:
        self.simulation = simulation
        self.programs = programs
        self.size = len(programs)
        self.results: list[Any] = [None] * self.size
        self.ready: list[tuple[float, int, int, Any]] = []
        self.num_events = 0
        self.waiting: dict[int, Op] = {}
        self.finished: set[int] = set()
        # For each receiver, by sender: when a message has arrived, how many came before it, and what it is.
        self.mail: list[dict[int, deque[tuple[float, int, _Parcel]]]] = [{} for _ in programs]
        self.num_under_way = 0
        self.num_arrived = 0
        self.last_sent: dict[int, _Parcel] = {}
        for rank in range(self.size):
            self.wake(rank, simulation.clocks[rank], None)

    def run(self) -> list[Any]:
        while self.ready:
            now, _, rank, reply = heapq.heappop(self.ready)
            if reply is _ARRIVAL:
                self.open_first(rank, now)
                continue
            if isinstance(reply, _AtPort):
                self.enter(reply, now)
                continue
            self.simulation.clocks[rank] = now
            try:
                op = self.programs[rank].send(reply)
            except StopIteration as stop:
                self.results[rank] = stop.value
                self.finished.add(rank)
            else:
                self.perform(rank, op)
        if self.waiting:
            requests = ", ".join(f"worker {rank}: {describe(op)}" for rank, op in sorted(self.waiting.items()))
            ended = f"; finished: {sorted(self.finished)}" if self.finished else ""
            raise DeadlockError(f"every worker waits for another one: {requests}{ended}")
        unread = [
            f"{len(box)} from worker {source} to worker {to}"
            for to, boxes in enumerate(self.mail)
            for source, box in boxes.items()
            if box
        ]
        if unread:
            raise ProtocolError(f"messages were sent that nobody received: {', '.join(unread)}")
        return self.results

    def wake(self, rank: int, when: float, reply: Any) -> None:
        self.num_events += 1
        heapq.heappush(self.ready, (when, self.num_events, rank, reply))

    def perform(self, rank: int, op: Op) -> None:
        now = self.simulation.clocks[rank]
        match op:
            case Compute(seconds):
                self.wake(rank, now + seconds, None)
            case Send(destination, message):
                check_peer(op, rank, self.size)
                first_bit = self.simulation._leave(rank, destination, message.numel())
                parcel = self.last_sent.get(rank)
                if parcel is None or parcel.message is not message:
                    parcel = self.last_sent[rank] = _Parcel(message)
                self.num_under_way += 1
                self.wake(destination, first_bit, _AtPort(rank, destination, parcel))
                self.wake(rank, now, None)
            case Receive(source):
                check_peer(op, rank, self.size)
                if self.mail[rank].get(source):
                    self.take(rank, op)
                else:
                    self.waiting[rank] = op
            case ReceiveAny():
                self.waiting[rank] = op
                arrivals = [box[0][0] for box in self.mail[rank].values() if box]
                if arrivals:
                    # Another message may overtake the first of these until it is there.
                    self.wake(rank, max(now, min(arrivals)), _ARRIVAL)
            case AllReduce() | AllGather() | Tell():
                self.waiting[rank] = op
                self.collective_if_ready()

    def enter(self, event: _AtPort, now: float) -> None:
        """A message goes through its receiver's port into the mail, where somebody may wait for it."""
        source, destination, parcel = event.source, event.destination, event.parcel
        arrival = self.simulation._enter(source, destination, parcel.message.numel(), now)
        self.num_under_way -= 1
        self.num_arrived += 1
        self.mail[destination].setdefault(source, deque()).append((arrival, self.num_arrived, parcel))
        waiting = self.waiting.get(destination)
        if isinstance(waiting, Receive) and waiting.source == source:
            del self.waiting[destination]
            self.take(destination, waiting)
        elif isinstance(waiting, ReceiveAny):
            self.wake(destination, arrival, _ARRIVAL)
        self.collective_if_ready()

    def take(self, rank: int, receive: Receive) -> None:
        arrival, _, parcel = self.mail[rank][receive.source].popleft()
        check_length(receive.source, parcel.message.numel(), receive.max_num_bytes)
        self.wake(rank, max(self.simulation.clocks[rank], arrival), parcel.opened(receive.read))

    def open_first(self, rank: int, now: float) -> None:
        """Hand the message that arrived first, if one has, to a worker that waits for anyone's."""
        op = self.waiting.get(rank)
        heads = [(box[0][0], box[0][1], source) for source, box in self.mail[rank].items() if box]
        if not isinstance(op, ReceiveAny) or not heads:
            return  # what this arrival announced was taken in the meantime
        arrival, _, source = min(heads)
        if arrival > now:
            return
        del self.waiting[rank]
        _, _, parcel = self.mail[rank][source].popleft()
        check_length(source, parcel.message.numel(), op.max_num_bytes)
        self.wake(rank, max(self.simulation.clocks[rank], arrival), (source, parcel.opened(op.read)))

    def collective_if_ready(self) -> None:
        """Begin a collective once everybody has come and no message is under way."""
        if len(self.waiting) == self.size and not self.num_under_way:
            self.collective()

    def collective(self) -> None:
        ops = [self.waiting[rank] for rank in range(self.size)]
        if len({type(op) for op in ops}) > 1:
            if any(isinstance(op, Receive | ReceiveAny) for op in ops):
                return  # a deadlock, unless a message is under way; run() tells
            listed = ", ".join(f"worker {rank}: {describe(op)}" for rank, op in enumerate(ops))
            raise ProtocolError(f"the workers join in different collectives: {listed}")
        simulation = self.simulation
        network = simulation.network
        # It also waits for messages that are still on their way on a link.
        start = max(*simulation.clocks, *simulation._uplink_free, *simulation._downlink_free)
        reply: Any
        links, seconds = [Traffic()] * self.size, 0.0
        if isinstance(ops[0], Tell):
            reply = [op.message for op in ops if isinstance(op, Tell)]
            start = 0.0  # it delays nobody
        elif isinstance(ops[0], AllReduce):
            tensors = [op.tensor for op in ops if isinstance(op, AllReduce)]
            if len({tensor.shape for tensor in tensors}) > 1:
                listed = ", ".join(f"worker {rank}: {tuple(tensor.shape)}" for rank, tensor in enumerate(tensors))
                raise ProtocolError(f"the workers all-reduce tensors of different shapes: {listed}")
            reply = copy_of(tensors[0])
            for tensor in tensors[1:]:
                reply += tensor
            if ops[0].divisor != 1:
                reply /= ops[0].divisor
            links = all_reduce_traffic(reply.numel(), self.size, reply.element_size())
            seconds = all_reduce_s(network, reply.numel(), self.size, reply.element_size())
        else:
            gathers = [op for op in ops if isinstance(op, AllGather)]
            for source, op in enumerate(gathers):
                check_length(source, op.message.numel(), gathers[0].max_num_bytes)
            reply = gathers[0].combine([op.message for op in gathers])
            sizes = [op.message.numel() for op in gathers]
            links, seconds = all_gather_traffic(sizes), all_gather_s(network, sizes)
        self.waiting.clear()
        for rank in range(self.size):
            simulation.traffic[rank] += links[rank]
            self.wake(rank, max(start + seconds, simulation.clocks[rank]), reply)
