"""Streams and events of the pretended device, and what is wrong in the order of what is done on them.

Operations are done at once, but each stream has a clock of what it has surely seen: a tensor that one stream writes and
another one touches must have an event between them, as must a copy and the host that reads it. What lacks it is noted.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

HOST = -1
"""The host's place among the clocks."""


@dataclass(slots=True)
class Touched:
    """Who wrote a storage last, and who has read it since: stream and number of the operation."""

    written: tuple[int, int] | None = None
    read: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Order:
    """What is known of the order of operations."""

    number: int = 0
    clocks: dict[int, dict[int, int]] = field(default_factory=dict)
    touched: dict[int, Touched] = field(default_factory=dict)
    late: list[tuple[int, int, Tensor, Tensor]] = field(default_factory=list)
    """Copies to the host that are under way: stream, number, to and from."""
    waits: list[str] = field(default_factory=list)
    """What the host has waited for, by the names of operations."""
    races: list[str] = field(default_factory=list)
    """Operations on what another stream may still be working on."""
    log: list[str] = field(default_factory=list)
    """What was done with streams and events, in order."""

    def clear(self) -> None:
        """As if nothing had been done."""
        self.__init__()  # type: ignore[misc]

    def clock(self, stream: int) -> dict[int, int]:
        return self.clocks.setdefault(stream, {})

    def knows(self, stream: int, other: int, number: int) -> bool:
        """Whether ``stream`` goes on after operation ``number`` of ``other``."""
        return stream == other or self.clock(stream).get(other, 0) >= number

    def learn(self, stream: int, seen: dict[int, int]) -> None:
        mine = self.clock(stream)
        for other, number in seen.items():
            mine[other] = max(mine.get(other, 0), number)

    def touch(self, name: str, stream: int, read: list[Tensor], written: list[Tensor]) -> None:
        """An operation of ``stream``."""
        self.number += 1
        for tensor in (*read, *written):
            state = self.touched.setdefault(tensor.untyped_storage().data_ptr(), Touched())
            if state.written is not None and not self.knows(stream, *state.written):
                self.races.append(f"{name} on stream {stream} of what stream {state.written[0]} writes")
        for tensor in written:
            state = self.touched[tensor.untyped_storage().data_ptr()]
            for reader, number in state.read.items():
                if not self.knows(stream, reader, number):
                    self.races.append(f"{name} on stream {stream} over what stream {reader} reads")
            state.written, state.read = (stream, self.number), {}
        for tensor in read:
            self.touched[tensor.untyped_storage().data_ptr()].read[stream] = self.number

    def forget(self, tensor: Tensor) -> None:
        """The memory is new: whatever lay there is nobody's."""
        self.touched.pop(tensor.untyped_storage().data_ptr(), None)

    def host_waits(self, name: str, seen: dict[int, int]) -> None:
        """The host waits until what is ``seen`` is done; it is noted if that is not known already."""
        if any(not self.knows(HOST, stream, number) for stream, number in seen.items()):
            self.waits.append(name)
        self.learn(HOST, seen)
        for copy in [each for each in self.late if self.knows(HOST, each[0], each[1])]:
            self.late.remove(copy)
            copy[2].copy_(copy[3])


ORDER = Order()


class Stream:
    """A queue of operations."""

    count = 0

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        Stream.count += 1
        self.number = Stream.count

    def seen(self) -> dict[int, int]:
        return {**ORDER.clock(self.number), self.number: ORDER.number}

    def wait_event(self, event: "Event") -> None:
        ORDER.log.append(f"stream {self.number} waits for an event")
        ORDER.learn(self.number, event.seen)

    def wait_stream(self, stream: "Stream") -> None:
        ORDER.log.append(f"stream {self.number} waits for stream {stream.number}")
        ORDER.learn(self.number, stream.seen())

    def record_event(self, event: "Event | None" = None) -> "Event":
        made = event or Event()
        made.record(self)
        return made

    def synchronize(self) -> None:
        ORDER.host_waits("Stream.synchronize", self.seen())


class Event:
    """A place in a stream."""

    def __init__(self, *, blocking: bool = False) -> None:
        self.seen: dict[int, int] = {}

    def record(self, stream: Stream) -> None:
        """The stream must be named: else it is the current one of the thread's device, not the tensors'."""
        ORDER.log.append(f"stream {stream.number} records an event")
        self.seen = stream.seen()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        ORDER.host_waits("Event.synchronize", self.seen)


_DEFAULT = Stream()
_GENERATOR = torch.Generator()
_CHOSEN = threading.local()


def default_stream(device: Any = None) -> Stream:
    """The stream of who has not chosen one."""
    return _DEFAULT


def current_stream(device: Any = None) -> Stream:
    """The stream that operations of this thread go to."""
    found: Stream = getattr(_CHOSEN, "stream", _DEFAULT)
    return found


@contextmanager
def stream(chosen: Stream) -> Iterator[None]:
    """Operations go to ``chosen`` meanwhile."""
    before, _CHOSEN.stream = current_stream(), chosen
    try:
        yield
    finally:
        _CHOSEN.stream = before


class Module:
    """What ``torch.get_device_module("pretended")`` is."""

    Stream, Event = Stream, Event
    current_stream = staticmethod(current_stream)
    default_stream = staticmethod(default_stream)
    stream = staticmethod(stream)

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def device_count(self) -> int:
        return 1

    def synchronize(self, device: Any = None) -> None:
        current_stream().synchronize()

    def get_rng_state(self, device: Any = None) -> Tensor:
        """That of a generator of its own, though the device's random numbers come from the CPU's."""
        return _GENERATOR.get_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        _GENERATOR.set_state(state)

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        yield
