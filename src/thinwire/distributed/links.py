"""Messages between the processes of a handle, over ZeroMQ.

Messages of a pair arrive in order, each once, or not at all with an error. ZeroMQ's own thread moves the bytes; what is
large is not copied on its way out. The sender keeps at most :data:`thinwire.distributed.peer.WINDOW` bytes under way to
each peer; the receiver sends a receipt for what it has taken: a peer that computes for minutes fills nobody's memory,
and still answers.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any

import zmq
from torch import Tensor

from thinwire.distributed.arrivals import FAREWELL_S, Arrivals
from thinwire.distributed.doors import Door
from thinwire.distributed.interrupts import Interrupts
from thinwire.distributed.mail import Tag
from thinwire.distributed.outgoing import Outgoing
from thinwire.distributed.peer import Peer
from thinwire.errors import ConfigError, ThinwireError, WorkerError

CHECK_S = 0.25
"""How often a process that waits looks whether those it waits for are still there."""

_PATIENCE_S = 8 * CHECK_S


class Links:
    """Sends to and receives from every other process of a handle; made by an introduction.

    One thread at a time may use it, in a ``with`` block; others wait.

    Args:
        context: of the sockets; its end is this object's.
        door: where the others fetch what is sent.
        peers: the others, by rank.
        rank: of this process.
        timeout_s: how long to wait for a peer that is connected and sends nothing.
        silence_s: how long for one of which a connection has ended and the others are silent.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", door: Door, peers: dict[int, Peer], rank: int,
        timeout_s: float, silence_s: float,
    ) -> None:  # fmt: skip
        self._lock = threading.RLock()
        self.rank = rank
        self.peers = peers
        self.interrupts: Interrupts | None = None
        """By which who waits in another thread than the main one hears of Ctrl-C."""
        self._context = context
        self._door = door
        self._timeout_s = timeout_s
        self._arrivals = Arrivals(rank, peers, silence_s)
        self._outgoing = Outgoing(door, peers, self._lost)
        self._next_look_s = 0.0
        self._failure: ThinwireError | None = None
        self._is_closed = False
        self._process = os.getpid()

    def __enter__(self) -> "Links":
        """Nobody else uses them for as long as a request of a program is performed; raises what :meth:`check` does."""
        self.check()  # in a forked process nobody would release the lock
        self._lock.acquire()
        try:
            self.check()
        except BaseException:
            self._lock.release()
            raise
        return self

    def check(self) -> None:
        """Raise if nothing can be sent and received any more.

        Raises:
            ConfigError: the links are closed, or another process's.
            ThinwireError: what they failed of before.
        """
        if os.getpid() != self._process:
            raise ConfigError("this handle was made before the process was forked; make one in the new process")
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args) from self._failure
        if self._is_closed:
            raise ConfigError("this handle is closed; nothing can be exchanged any more")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Others may use them."""
        self._lock.release()

    def send(self, rank: int, tag: Tag, message: Tensor, *, keeps: bool = True) -> None:
        """Hand over a message (uint8 ``[n]`` on the CPU); what has no room under way yet follows later.

        Args:
            rank: whom to.
            tag: what it is.
            message: the bytes.
            keeps: whether they stay as they are until they have arrived; if not, they are copied.
        """
        self._outgoing.send(self.peers[rank], tag, message, keeps)

    def receive(
        self, ranks: Collection[int], tags: Sequence[Tag], max_num_bytes: int | None = None, *, needs_all: bool = True,
        begun: Callable[[], object] | None = None,
    ) -> tuple[int, Tag, Tensor]:  # fmt: skip
        """The message that came first of those with one of the tags from one of the processes; waits for one.

        Args:
            ranks: whose.
            tags: which kinds.
            max_num_bytes: a longer one is refused before memory is taken for it.
            needs_all: whether something of each of them is needed, sooner or later, so that none may have left.
            begun: called before waiting while something of each of them is here: what is left is to move bytes.

        Raises:
            WorkerError: one of the processes is gone, or none of them sent anything for too long.
            ProtocolError: a message is longer than allowed.
        """
        begin = time.monotonic()
        deadline = begin + self._timeout_s
        try:
            while True:
                found = self._arrivals.first(ranks, tags, max_num_bytes)
                if found is not None:
                    rank, tag = found
                    return rank, tag, self.peers[rank].mail.take(tag)
                self._arrivals.heed_failures(ranks)
                if begun is not None and all(self.peers[rank].mail.has_begun(tags) for rank in ranks):
                    begun()
                if self._wait(ranks, tags, needs_all):
                    deadline = time.monotonic() + self._timeout_s
                elif time.monotonic() > deadline:
                    raise WorkerError(
                        f"worker {self.rank} waited {time.monotonic() - begin:.0f} s for "
                        f"{self._arrivals.named(ranks)}, which is connected but sent nothing: it is stuck, or computes "
                        "for longer than the timeout; links=LinkOptions(timeout=...) sets it"
                    )
        except BaseException as error:
            self._fail(error)
            raise

    def flush(self) -> None:
        """Wait until everything that was sent is under way.

        Raises:
            WorkerError: a peer is gone, or takes nothing for too long.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            while blocked := [peer.rank for peer in self._outgoing.blocked()]:
                self._arrivals.heed_failures(blocked)
                if self._wait(blocked, [], True):
                    deadline = time.monotonic() + self._timeout_s
                elif time.monotonic() > deadline:
                    raise WorkerError(
                        f"worker {self.rank} could not hand over a message to {self._arrivals.named(blocked)} for "
                        f"{self._timeout_s:.0f} s; it is stopped or does not take it"
                    )
        except BaseException as error:
            self._fail(error)
            raise

    def abort(self, reason: str) -> None:
        """Tell the others that this process cannot go on, so that they end with the reason and do not wait."""
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return  # another thread waits for a message; the end of this process will be told of it
        try:
            if self._failure is None and not self._is_closed:
                self._fail(WorkerError(reason))
        finally:
            self._lock.release()

    def close(self, says_so: bool = True, linger_s: float | None = None) -> None:
        """Close every socket, having told the others; what was sent still arrives. Afterwards nothing can be sent.

        It does nothing in a process that was forked from the one that made the links, nor while another thread waits
        for a message that does not come.

        Args:
            says_so: if not, the others take this process for one that failed.
            linger_s: how long what was sent may still travel at most; by default as long as anybody may wait for it.
        """
        if os.getpid() != self._process or self._is_closed:
            return
        self._is_closed = True  # whoever waits sees it within CHECK_S
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return
        try:
            linger_ms = int(1000 * self._timeout_s)
            if linger_s is not None:
                linger_ms = int(1000 * linger_s)
            elif self._failure is not None:
                linger_ms = int(1000 * FAREWELL_S)
            elif says_so:
                self._outgoing.tell(Tag.LEFT, b"")
                if self._all_have_ended():
                    linger_ms = 0
            for peer in self.peers.values():
                peer.close()
            self._door.close(linger_ms)
            self._context.term()
        finally:
            self._lock.release()

    def _all_have_ended(self) -> bool:
        """Whether all others close as well, as they mostly do; waits for it for :data:`CHECK_S`.

        Nobody then takes what may still be under way. It matters: ZeroMQ may keep a message for a connection that the
        other end closes in the same moment, until the time for lingering is over.
        """
        deadline = time.monotonic() + CHECK_S
        others = set(self.peers.values())
        while others and (left_s := deadline - time.monotonic()) > 0:
            polled = zmq.zmq_poll([(peer.connection, zmq.POLLIN) for peer in others], int(1 + 100 * left_s))
            ready = {each for each, _ in polled}
            for peer in [*others]:
                peer.look()
                try:
                    while peer.connection in ready and self._arrivals.fetch(peer):
                        pass
                except ThinwireError:
                    others.discard(peer)
                if peer.mail.has_left or peer.mail.failure or peer.num_ended:
                    others.discard(peer)
        return not others

    def _wait(self, ranks: Collection[int], tags: Sequence[Tag], needs_all: bool) -> bool:
        """Wait for parts, receipts or :data:`CHECK_S`; whether anything came.

        Raises:
            WorkerError: nothing came, and one of the processes is gone or has left.
        """
        watched: list[tuple[Any, int]] = [(self.peers[rank].connection, zmq.POLLIN) for rank in ranks]
        blocked = self._outgoing.blocked()
        if blocked:
            watched.append((self._door.socket, zmq.POLLIN))
        file = self.interrupts.fileno() if self.interrupts else None
        if file is not None:
            watched.append((file, zmq.POLLIN))
        ready = {socket for socket, _ in zmq.zmq_poll(watched, int(1000 * CHECK_S))}
        if self.interrupts and file in ready and self.interrupts.came():
            raise KeyboardInterrupt
        for rank in ranks:
            if self.peers[rank].connection in ready:
                self._arrivals.fetch(self.peers[rank])
        if blocked and self._door.socket in ready:
            self._outgoing.take_receipts()
            for peer in blocked:
                self._outgoing.push(peer)
        if self._is_closed:
            raise WorkerError(f"worker {self.rank} closed its handle while it waited for {self._arrivals.named(ranks)}")
        now = time.monotonic()
        if not ready or now > self._next_look_s:
            self._next_look_s = now + CHECK_S
            silent = {rank for rank in ranks if not self.peers[rank].mail.has(tags)}
            needed = silent if needs_all else set()
            self._arrivals.look_after(silent, needed.union(peer.rank for peer in blocked))
        return bool(ready)

    def _lost(self, peer: Peer) -> WorkerError:
        error = self._arrivals.lost(peer)
        self._fail(error)
        return error

    def _fail(self, error: BaseException) -> None:
        """Nothing can be exchanged any more; the others are told why."""
        if self._failure is None:
            text = str(error) if isinstance(error, ThinwireError) else f"worker {self.rank}: {type(error).__name__}"
            self._failure = error if isinstance(error, ThinwireError) else WorkerError(text)
            self._outgoing.tell(Tag.FAILED, text.encode()[:2000])
