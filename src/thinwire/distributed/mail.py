"""What comes from one peer: parts that make up messages, in order, each read once."""

import struct
from collections import deque
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
import zmq
from torch import Tensor

from thinwire.arrays import CPU, empty_array, tensor_of
from thinwire.errors import ProtocolError, WorkerError
from thinwire.steps import check_length

_HEADER = struct.Struct("<QQ")
HEADER_NUM_BYTES = _HEADER.size


def part_header(tag: int, number: int, num_bytes: int) -> bytes:
    """What stands before every part.

    Args:
        tag: of its message.
        number: of the part, counted over all that one process sends to another.
        num_bytes: of the whole message.
    """
    return _HEADER.pack(number << 8 | tag, num_bytes)


class Tag(IntEnum):
    """What a message is, so that waiting for one kind never takes another kind for it."""

    GATHERED = 1
    LETTER = 2
    TO_SUM = 3
    SUMMED = 4
    MODEL = 5
    LEFT = 254
    FAILED = 255


class Incoming:
    """A message that has begun to arrive.

    Memory for all of it is taken only when somebody asks for it and has found its length allowed; until then its parts
    are kept as they came.
    """

    __slots__ = ("_buffer", "_filled", "_parts", "num_bytes", "stamp", "tag")

    def __init__(self, tag: int, num_bytes: int) -> None:
        self.tag = tag
        self.num_bytes = num_bytes
        self.stamp = -1
        """When it was complete, in the order of all messages."""
        self._filled = 0
        self._parts: list[Tensor] = []
        self._buffer: Tensor | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of it is here."""
        return self._filled == self.num_bytes

    def add(self, part: Tensor) -> bool:
        """Take the next part; whether it fits."""
        if self._filled + part.numel() > self.num_bytes:
            return False
        if self._buffer is None:
            self._parts.append(part)
        else:
            self._buffer[self._filled : self._filled + part.numel()] = part
        self._filled += part.numel()
        return True

    def admit(self) -> None:
        """Its length is allowed: from now on parts go to where they belong."""
        if self._buffer is not None or (len(self._parts) == 1 and self.is_complete) or not self.num_bytes:
            return
        self._buffer = tensor_of(empty_array(self.num_bytes, np.uint8))
        place = 0
        for part in self._parts:
            self._buffer[place : place + part.numel()] = part
            place += part.numel()
        self._parts.clear()

    def message(self) -> Tensor:
        """All of it: uint8 ``[n]``."""
        self.admit()
        if self._buffer is not None:
            return self._buffer
        return self._parts[0] if self._parts else torch.empty(0, dtype=torch.uint8, device=CPU)


class Mailbox:
    """Messages of one peer that nobody has asked for yet, by their tag.

    Parts take turns on the connections to the peer: part ``n`` comes over connection ``n % connections``, in order.
    Those of different connections may overtake each other and wait here for the ones before them.

    Args:
        rank: the peer's.
        connections: how many there are.
    """

    def __init__(self, rank: int, connections: int) -> None:
        self.rank = rank
        self.has_left = False
        """Whether the peer has said that nothing more will come."""
        self.failure: WorkerError | None = None
        """Why the peer cannot go on, if it has said so; what it sent before that is there to be taken."""
        self._by_tag: dict[int, deque[Incoming]] = {}
        self._arriving: Incoming | None = None
        self._next_number = 0
        self._next_on = list(range(connections))
        self._early: dict[int, tuple[int, int, Tensor]] = {}

    def put(self, frames: "list[zmq.Frame]", stamp: int) -> int:
        """Take what came in one go; how many bytes of a message that was.

        Args:
            frames: a header and bytes, in one piece or two.
            stamp: greater than that of everything before it.

        Raises:
            WorkerError: a part is missing or came twice.
            ProtocolError: this is no part of a message.
        """
        head = frames[0].buffer
        if len(head) < HEADER_NUM_BYTES or len(frames) > 2:
            raise ProtocolError(f"worker {self.rank} sent {len(head)} bytes that begin no message")
        mark, num_bytes = _HEADER.unpack_from(head)
        number, tag = mark >> 8, mark & 255
        connection = number % len(self._next_on)
        if number != self._next_on[connection]:
            raise WorkerError(
                f"of what worker {self.rank} sent, part {self._next_on[connection]} is missing: part {number} came in "
                "its place"
            )
        self._next_on[connection] += len(self._next_on)
        body = frames[1].buffer if len(frames) == 2 else head[HEADER_NUM_BYTES:]
        part = torch.frombuffer(body, dtype=torch.uint8) if len(body) else torch.empty(0, dtype=torch.uint8, device=CPU)
        if number != self._next_number:
            self._early[number] = tag, num_bytes, part
            return part.numel()
        self._append(tag, num_bytes, part, stamp)
        self._next_number += 1
        while self._early and (waiting := self._early.pop(self._next_number, None)):
            self._append(*waiting, stamp)
            self._next_number += 1
        return part.numel()

    def _append(self, tag: int, num_bytes: int, part: Tensor, stamp: int) -> None:
        """Take the next part."""
        incoming = self._arriving
        if incoming is None:
            incoming = Incoming(tag, num_bytes)
            if tag < Tag.LEFT:
                self._by_tag.setdefault(tag, deque()).append(incoming)
        if incoming.tag != tag or incoming.num_bytes != num_bytes or not incoming.add(part):
            raise ProtocolError(f"worker {self.rank} sent a part that does not go on with the message before it")
        self._arriving = None if incoming.is_complete else incoming
        if incoming.is_complete:
            incoming.stamp = stamp
            self._heed(incoming)

    def has(self, tags: Sequence[int]) -> bool:
        """Whether all of a message with one of these tags has come."""
        waiting = [self._by_tag.get(tag) for tag in tags]
        return any(messages and messages[0].is_complete for messages in waiting)

    def has_begun(self, tags: Sequence[int]) -> bool:
        """Whether some of a message with one of these tags has come."""
        return any(self._by_tag.get(tag) for tag in tags)

    def first(self, tag: int, max_num_bytes: int | None) -> Incoming | None:
        """The next message with this tag, complete or not; a longer one than allowed is refused.

        Raises:
            ProtocolError: it is longer.
        """
        waiting = self._by_tag.get(tag)
        if not waiting:
            return None
        check_length(self.rank, waiting[0].num_bytes, max_num_bytes)
        waiting[0].admit()
        return waiting[0]

    def take(self, tag: int) -> Tensor:
        """The first message with this tag, which is complete, is no longer here."""
        return self._by_tag[tag].popleft().message()

    def _heed(self, incoming: Incoming) -> None:
        """What a peer says of itself."""
        if incoming.tag == Tag.LEFT:
            self.has_left = True
        elif incoming.tag == Tag.FAILED:
            text = bytes(incoming.message().tolist()).decode(errors="replace")
            self.failure = WorkerError(f"{text} (so said worker {self.rank})")
