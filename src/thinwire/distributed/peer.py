"""What a process knows of another one, and what is between them."""

import struct
import time
from collections import deque
from dataclasses import dataclass, field

import zmq

from thinwire.distributed.mail import Mailbox

WINDOW = 1 << 26
"""Bytes that may be under way to a peer which has not taken them."""

RECEIPT = struct.Struct("<Q")
"""For so many bytes that were taken."""

_EVENT = struct.Struct("=Hi")
_MOST_AT_ONCE = 64


@dataclass(slots=True, eq=False)
class Peer:
    """One other process, and what is between it and this one."""

    rank: int
    host: str
    is_here: bool
    routes: list[bytes]
    """Its connections to this process's door."""
    connection: "zmq.Socket[bytes]"
    monitor: "zmq.Socket[bytes]"
    mail: Mailbox
    outgoing: "deque[tuple[int, bytes, memoryview, bool]]" = field(default_factory=deque)
    num_under_way: int = 0
    next_number: int = 0
    num_to_confirm: int = 0
    standing: set[int] = field(default_factory=set)
    """The files of the connections to its door, as far as the monitor was read."""
    num_ended: int | None = None
    """How many of them have ended since it was met; ``None`` before that."""
    heard_s: float = 0.0
    """When something last came from it, or one of them ended."""
    spoke_s: float = 0.0
    """When something last came from it, or it was met."""

    def __str__(self) -> str:
        """As errors name it."""
        return f"worker {self.rank} on {self.host}"

    def look(self) -> None:
        """Read what the monitor has told."""
        while self.monitor.poll(0):
            event, file = _EVENT.unpack(self.monitor.recv_multipart()[0])
            if event == zmq.Event.DISCONNECTED:
                if file in self.standing:
                    self.num_ended = None if self.num_ended is None else self.num_ended + 1
                    self.heard_s = time.monotonic()
                self.standing.discard(file)
            elif self.num_ended is None:  # later ones would be to somebody else
                self.standing.add(file)

    def fetch(self, num_before: int) -> int:
        """Take the parts that have come, or some of them, since others are waited for too; how many.

        Args:
            num_before: how many parts have come from all processes until now.
        """
        for count in range(_MOST_AT_ONCE):
            try:
                frames = self.connection.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return count
            self.heard_s = self.spoke_s = time.monotonic()
            self.num_to_confirm += self.mail.put(frames, num_before + count + 1)
            if self.num_to_confirm >= WINDOW // 8:
                self.connection.send(RECEIPT.pack(self.num_to_confirm), zmq.NOBLOCK)
                self.num_to_confirm = 0
        return _MOST_AT_ONCE

    def close(self) -> None:
        """End the connections."""
        self.connection.disable_monitor()
        self.monitor.close(0)
        self.connection.close(0)

    def has_gone(self, wait_s: float) -> bool:
        """Whether it was reached before it was met, and for ``wait_s`` has not been any more."""
        self.look()
        return self.heard_s > 0.0 and not self.standing and time.monotonic() > self.heard_s + wait_s

    def meet(self, num_connections: int) -> None:
        """From now on a connection that ends is missed."""
        self.look()
        self.num_ended = num_connections - len(self.standing)
        self.heard_s = self.spoke_s = time.monotonic()

    def has_ended(self, silence_s: float) -> bool:
        """Whether nothing will come any more: all connections have ended, or one, and the others are silent.

        Those that carry nothing end before those that still deliver what was sent.
        """
        if not self.num_ended:
            return False
        return not self.standing or time.monotonic() > self.heard_s + silence_s
