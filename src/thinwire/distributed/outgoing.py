"""What a process sends: parts that take turns on the connections of each peer, and wait for room there."""

from collections.abc import Callable

import zmq
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.distributed.doors import Door
from thinwire.distributed.mail import Tag, part_header
from thinwire.distributed.peer import RECEIPT, WINDOW, Peer
from thinwire.errors import WorkerError

PART_HERE, PART_AWAY = 1 << 20, 1 << 17
"""Bytes of a part at most, to this machine and to another one: no sign of life takes longer than a part."""

SHORTEST_PART = 1 << 13
"""Bytes of a part at least: so many a connection sends at once in any case."""

COPIED = 1 << 16
"""Bytes up to which a part is copied into one piece with its header, which is then faster than not to copy it."""


class Outgoing:
    """The sending half of links.

    Args:
        door: where the others fetch what is sent.
        peers: the others, by rank.
        lost: what is raised of a peer that cannot be reached any more.
    """

    def __init__(self, door: Door, peers: dict[int, Peer], lost: Callable[[Peer], WorkerError]) -> None:
        self._door = door
        self._peers = peers
        self._lost = lost

    def send(self, peer: Peer, tag: Tag, message: Tensor, keeps: bool) -> None:
        """Hand over a message; see :meth:`thinwire.distributed.links.Links.send`."""
        num_bytes = message.numel()
        whole = array_of(message).data if num_bytes else memoryview(b"")
        step = PART_HERE
        if not peer.is_here:
            step = min(max(-(-num_bytes // len(peer.routes)), SHORTEST_PART), PART_AWAY)
        for place in range(0, num_bytes or 1, step):
            part = peer.next_number, part_header(tag, peer.next_number, num_bytes), whole[place : place + step], keeps
            peer.next_number += 1
            peer.outgoing.append(part)
        self.push(peer)

    def blocked(self) -> list[Peer]:
        """To whom something waits for room."""
        return [peer for peer in self._peers.values() if peer.outgoing]

    def take_receipts(self) -> None:
        """Make room where peers have taken what was sent."""
        while True:
            try:
                identity, text = self._door.socket.recv_multipart(zmq.NOBLOCK)[:2]
            except zmq.Again:
                return
            rank = self._door.rank_of(identity)
            if rank in self._peers and len(text) == RECEIPT.size:
                self._peers[rank].num_under_way -= RECEIPT.unpack(text)[0]

    def push(self, peer: Peer) -> None:
        """Send what has room under way.

        Raises:
            WorkerError: the peer cannot be reached any more.
        """
        if peer.num_under_way > WINDOW // 2:
            self.take_receipts()
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
                raise self._lost(peer) from None
            peer.num_under_way += len(body)
            peer.outgoing.popleft()

    def tell(self, tag: Tag, text: bytes) -> None:
        """Say a last word to all that can still hear it."""
        for peer in self._peers.values():
            if not peer.outgoing:  # else it would be taken for the rest of a message
                try:
                    route = peer.routes[peer.next_number % len(peer.routes)]
                    self._door.socket.send_multipart([route, part_header(tag, peer.next_number, len(text)) + text])
                except zmq.ZMQError:
                    continue  # it is gone itself
