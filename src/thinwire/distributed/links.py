"""Messages between the processes of a handle, over ZeroMQ.

Messages of a pair arrive in order, each once, or not at all with an error. ZeroMQ's own thread moves the bytes; what is
large is not copied on its way out. The sender keeps at most :data:`WINDOW` bytes under way to each peer; the receiver
sends a receipt for what it has taken: a peer that computes for minutes fills nobody's memory, and still answers.
"""

import os
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from types import TracebackType
from typing import Any

import zmq
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.distributed.doors import Door
from thinwire.distributed.interrupts import Interrupts
from thinwire.distributed.mail import Tag, part_header
from thinwire.distributed.peer import Peer
from thinwire.errors import ConfigError, ThinwireError, WorkerError

WINDOW = 1 << 26
"""Bytes that may be under way to a peer which has not taken them."""

PART_HERE, PART_AWAY = 1 << 20, 1 << 17
"""Bytes of a part at most, to this machine and to another one: no sign of life takes longer than a part."""

SHORTEST_PART = 1 << 13
"""Bytes of a part at least: so many a connection sends at once in any case."""

COPIED = 1 << 16
"""Bytes up to which a part is copied into one piece with its header, which is then faster than not to copy it."""

CHECK_S = 0.25
"""How often a process that waits looks whether those it waits for are still there."""

_FAREWELL_MS = 1000
_MOST_AT_ONCE = 64
_PATIENCE_S = 8 * CHECK_S
_RECEIPT = struct.Struct("<Q")


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
        self._silence_s = silence_s
        self._num_arrived = 0
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
        peer = self.peers[rank]
        num_bytes = message.numel()
        whole = array_of(message).data if num_bytes else memoryview(b"")
        step = PART_HERE
        if not peer.is_here:
            step = min(max(-(-num_bytes // len(peer.routes)), SHORTEST_PART), PART_AWAY)
        for place in range(0, num_bytes or 1, step):
            part = peer.next_number, part_header(tag, peer.next_number, num_bytes), whole[place : place + step], keeps
            peer.next_number += 1
            peer.outgoing.append(part)
        self._push(peer)

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
                found = self._first(ranks, tags, max_num_bytes)
                if found is not None:
                    rank, tag = found
                    return rank, tag, self.peers[rank].mail.take(tag)
                self._heed_failures(ranks)
                if begun is not None and all(self.peers[rank].mail.has_begun(tags) for rank in ranks):
                    begun()
                if self._wait(ranks, tags, needs_all):
                    deadline = time.monotonic() + self._timeout_s
                elif time.monotonic() > deadline:
                    raise WorkerError(
                        f"worker {self.rank} waited {time.monotonic() - begin:.0f} s for {self._named(ranks)}, which "
                        "is connected but sent nothing: it is stuck, or computes for longer than the timeout; "
                        "links=LinkOptions(timeout=...) sets it"
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
            while blocked := [peer.rank for peer in self.peers.values() if peer.outgoing]:
                self._heed_failures(blocked)
                if self._wait(blocked, [], True):
                    deadline = time.monotonic() + self._timeout_s
                elif time.monotonic() > deadline:
                    raise WorkerError(
                        f"worker {self.rank} could not hand over a message to {self._named(blocked)} for "
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

    def close(self, says_so: bool = True) -> None:
        """Close every socket, having told the others; what was sent still arrives. Afterwards nothing can be sent.

        It does nothing in a process that was forked from the one that made the links, nor while another thread waits
        for a message that does not come.

        Args:
            says_so: if not, the others take this process for one that failed.
        """
        if os.getpid() != self._process or self._is_closed:
            return
        self._is_closed = True  # whoever waits sees it within CHECK_S
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return
        try:
            linger_ms = int(1000 * self._timeout_s)
            if self._failure is not None:
                linger_ms = _FAREWELL_MS
            elif says_so:
                self._tell(Tag.LEFT, b"")
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
                    while peer.connection in ready and self._fetch(peer):
                        pass
                except ThinwireError:
                    others.discard(peer)
                if peer.mail.has_left or peer.mail.failure or peer.num_ended:
                    others.discard(peer)
        return not others

    def _heed_failures(self, ranks: Iterable[int]) -> None:
        """Raise what one of these processes has said of itself: it comes after all that it sent."""
        for failure in filter(None, (self.peers[rank].mail.failure for rank in ranks)):
            raise failure

    def _first(self, ranks: Collection[int], tags: Sequence[Tag], max_num_bytes: int | None) -> tuple[int, Tag] | None:
        best: tuple[int, int, Tag] | None = None
        for rank in ranks:
            for tag in tags:
                incoming = self.peers[rank].mail.first(tag, max_num_bytes)
                if incoming is not None and incoming.is_complete and (best is None or incoming.stamp < best[0]):
                    best = incoming.stamp, rank, tag
        return None if best is None else best[1:]

    def _wait(self, ranks: Collection[int], tags: Sequence[Tag], needs_all: bool) -> bool:
        """Wait for parts, receipts or :data:`CHECK_S`; whether anything came.

        Raises:
            WorkerError: nothing came, and one of the processes is gone or has left.
        """
        watched: list[tuple[Any, int]] = [(self.peers[rank].connection, zmq.POLLIN) for rank in ranks]
        blocked = [peer for peer in self.peers.values() if peer.outgoing]
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
                self._fetch(self.peers[rank])
        if blocked and self._door.socket in ready:
            self._take_receipts()
            for peer in blocked:
                self._push(peer)
        if self._is_closed:
            raise WorkerError(f"worker {self.rank} closed its handle while it waited for {self._named(ranks)}")
        now = time.monotonic()
        if not ready or now > self._next_look_s:
            self._next_look_s = now + CHECK_S
            silent = {rank for rank in ranks if not self.peers[rank].mail.has(tags)}
            needed = silent if needs_all else set()
            self._look_after(silent, needed.union(peer.rank for peer in blocked))
        return bool(ready)

    def _look_after(self, ranks: set[int], needed: set[int]) -> None:
        """Raise if one of these processes is gone, one that is needed has left, or all have.

        Args:
            ranks: of which something is awaited, and nothing has come.
            needed: those that must go on for this one to go on.
        """
        watched = [self.peers[rank] for rank in ranks | needed]
        for peer in watched:
            peer.look()
        ended = [peer for peer in watched if peer.has_ended(self._silence_s) or peer.mail.has_left]
        # What a connection had received before it ended is still there to be taken.
        if any(self._fetch(peer) for peer in ended):
            return
        self._heed_failures(peer.rank for peer in ended)  # which may have come just before the end
        left = {peer.rank for peer in ended if peer.mail.has_left}
        lost = {peer.rank for peer in ended} - left
        if lost:
            raise WorkerError(
                f"worker {self.rank} lost {self._named(lost)}: its process ended, or gave no sign of life"
            )
        if left & needed or (left and left == ranks):
            raise WorkerError(
                f"worker {self.rank} still waits for {self._named(left & needed or left)}, which has closed its handle"
            )

    def _fetch(self, peer: Peer) -> int:
        """Take the parts that have come from a process, or some of them: others are waited for too; how many."""
        for count in range(_MOST_AT_ONCE):
            try:
                frames = peer.connection.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return count
            self._num_arrived += 1
            peer.heard_s = time.monotonic()
            peer.num_to_confirm += peer.mail.put(frames, self._num_arrived)
            if peer.num_to_confirm >= WINDOW // 8:
                peer.connection.send(_RECEIPT.pack(peer.num_to_confirm), zmq.NOBLOCK)
                peer.num_to_confirm = 0
        return _MOST_AT_ONCE

    def _lost(self, peer: Peer) -> WorkerError:
        """Why one that cannot be reached any more has gone; if it says so, that may come after it has gone."""
        deadline = time.monotonic() + 1e-3 * _FAREWELL_MS
        while self._fetch(peer) or (peer.standing and not peer.mail.failure and time.monotonic() < deadline):
            peer.connection.poll(10)
            peer.look()
        return peer.mail.failure or WorkerError(f"worker {self.rank} lost {peer}: it takes no messages any more")

    def _take_receipts(self) -> None:
        while True:
            try:
                identity, text = self._door.socket.recv_multipart(zmq.NOBLOCK)[:2]
            except zmq.Again:
                return
            rank = self._door.rank_of(identity)
            if rank in self.peers and len(text) == _RECEIPT.size:
                self.peers[rank].num_under_way -= _RECEIPT.unpack(text)[0]

    def _push(self, peer: Peer) -> None:
        """Send what has room under way."""
        if peer.num_under_way > WINDOW // 2:
            self._take_receipts()
        while peer.outgoing:
            number, head, body, keeps = peer.outgoing[0]
            if peer.num_under_way and peer.num_under_way + len(body) > WINDOW:
                return
            route = peer.routes[number % len(peer.routes)]
            try:
                if len(body) <= COPIED:
                    self._door.socket.send_multipart([route, head + body])
                else:
                    self._door.socket.send_multipart([route, head, body], copy=not keeps)
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                lost = self._lost(peer)
                self._fail(lost)
                raise lost from None
            peer.num_under_way += len(body)
            peer.outgoing.popleft()

    def _fail(self, error: BaseException) -> None:
        """Nothing can be exchanged any more; the others are told why."""
        if self._failure is None:
            text = str(error) if isinstance(error, ThinwireError) else f"worker {self.rank}: {type(error).__name__}"
            self._failure = error if isinstance(error, ThinwireError) else WorkerError(text)
            self._tell(Tag.FAILED, text.encode()[:2000])

    def _tell(self, tag: Tag, text: bytes) -> None:
        for peer in self.peers.values():
            if not peer.outgoing:  # else it would be taken for the rest of a message
                try:
                    route = peer.routes[peer.next_number % len(peer.routes)]
                    self._door.socket.send_multipart([route, part_header(tag, peer.next_number, len(text)) + text])
                except zmq.ZMQError:
                    continue  # it is gone itself

    def _named(self, ranks: Collection[int]) -> str:
        return ", ".join(str(self.peers[rank]) for rank in sorted(ranks))
