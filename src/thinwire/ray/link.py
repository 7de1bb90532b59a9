"""A worker's side of the messages to the server: each is kept until a checkpoint of the server covers it."""

from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError, ProtocolError
from thinwire.exchanges.asynchronous import Control
from thinwire.network import FRAME_NUM_BYTES, Traffic
from thinwire.ray.seats import Reply
from thinwire.steps import Op, Receive, Send, Steps, check_length, describe

T = TypeVar("T")


class ServerCalls(Protocol):
    """The server, as a worker reaches it; calls wait for the reply, and may be made twice."""

    def exchange(self, rank: int, sequence: int, size: int, message: bytes) -> Reply:
        """See :meth:`thinwire.ray.desk.Desk.exchange`."""
        ...

    def finish(self, rank: int, sequence: int, norm: float, bytes_resent: int) -> Reply:
        """See :meth:`thinwire.ray.desk.Desk.finish`."""
        ...


class _Kept(NamedTuple):
    size: int
    message: bytes


class ServerLink:
    """Runs the programs of a worker that talks to a server alone.

    Args:
        server: what takes the messages.
        rank: of the worker.
        size: number of workers, which changes with the server's replies.
    """

    def __init__(self, server: ServerCalls, rank: int, size: int) -> None:
        self._server = server
        self._rank = rank
        self._kept: dict[int, _Kept] = {}
        self.size = size
        self.is_paused = False
        """Whether the server wants no more messages."""
        self.num_sent = 0
        """Messages, which are numbered from 1."""
        self.traffic = Traffic()
        """Of every message and its answer, each counted once: what the simulator counts."""
        self.bytes_resent = 0
        """Of messages that were sent once more."""

    def run(self, steps: Steps[T]) -> T:
        """Run a program to its end.

        Raises:
            ConfigError: it sends though the server has told the worker to pause.
            ProtocolError: it asks for something else than an exchange with the server.
            WorkerError: the server is gone.
        """
        reply: Any = None
        answer: Tensor | None = None
        try:
            while True:
                try:
                    op = steps.send(reply)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                reply = None
                if isinstance(op, Send):
                    answer = self._exchange(op.message)
                elif isinstance(op, Receive) and answer is not None:
                    check_length(op.source, answer.numel(), op.max_num_bytes)
                    reply, answer = op.read(answer), None
                else:
                    raise _unfit(op)
        finally:
            steps.close()

    def finish(self, norm: float) -> None:
        """No message follows; returns once all are in a checkpoint of the server.

        Args:
            norm: of what was not sent.
        """
        while True:
            reply = self._server.finish(self._rank, self.num_sent, norm, self.bytes_resent)
            if reply.expected > self.num_sent:
                return
            self._deliver(reply.expected)

    def _exchange(self, message: Tensor) -> Tensor:
        if self.is_paused:
            raise ConfigError(
                f"the server has told worker {self._rank} to pause and takes no message more; leave the loop of "
                "training where handle.is_paused says so"
            )
        self.num_sent += 1
        self._kept[self.num_sent] = _Kept(self.size, message.numpy().tobytes())
        reply = self._deliver(self.num_sent)
        for covered in [number for number in self._kept if number <= reply.covered]:
            del self._kept[covered]
        answer = tensor_of_bytes(reply.answer)
        self.size = reply.size
        self.is_paused = answer.numel() > 0 and int(answer[0]) == Control.PAUSE
        self.traffic += Traffic(message.numel() + FRAME_NUM_BYTES, answer.numel() + FRAME_NUM_BYTES)
        return answer

    def _deliver(self, number: int) -> Reply:
        """Send this message, those that the server turns out to lack, and all that follow; the reply to the last."""
        is_first = number == self.num_sent
        while True:
            kept = self._kept.get(number)
            if kept is None:
                raise ProtocolError(
                    f"the server asks worker {self._rank} for message {number}, which its checkpoint had; the folder "
                    "was changed by somebody else"
                )
            if not is_first:
                self.bytes_resent += len(kept.message) + FRAME_NUM_BYTES
            is_first = False
            reply = self._server.exchange(self._rank, number, kept.size, kept.message)
            if reply.expected > self.num_sent:
                return reply
            number = reply.expected


def tensor_of_bytes(message: bytes) -> Tensor:
    """A message (uint8 ``[n]``) from bytes.

    Example:
        >>> tensor_of_bytes(bytes([1, 2])).tolist(), tensor_of_bytes(b"").tolist()
        ([1, 2], [])
    """
    if not message:
        return torch.empty(0, dtype=torch.uint8, device=CPU)
    return torch.frombuffer(bytearray(message), dtype=torch.uint8)


def _unfit(op: Op) -> ProtocolError:
    return ProtocolError(f"a worker beside a server asks for {describe(op)}; it can only send and receive")
