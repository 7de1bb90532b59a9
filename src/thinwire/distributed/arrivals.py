"""What comes from the other processes, and whether more can come."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from thinwire.distributed.mail import Tag
from thinwire.distributed.peer import Peer
from thinwire.errors import WorkerError

FAREWELL_S = 1.0
"""How long the last word of a process that is gone is waited for, and one's own goes on travelling."""


class Arrivals:
    """The receiving half of links.

    Args:
        rank: of this process.
        peers: the others, by rank.
        silence_s: how long to wait for one of which a connection has ended and the others are silent.
    """

    def __init__(self, rank: int, peers: Mapping[int, Peer], silence_s: float) -> None:
        self._rank = rank
        self._peers = peers
        self._silence_s = silence_s
        self._num_arrived = 0

    def fetch(self, peer: Peer) -> int:
        """Take the parts that have come from a process, or some of them; how many."""
        count = peer.fetch(self._num_arrived)
        self._num_arrived += count
        return count

    def first(self, ranks: Collection[int], tags: Sequence[Tag], max_num_bytes: int | None) -> tuple[int, Tag] | None:
        """Whose message was complete first, of those with one of the tags, and with which; none may be there yet.

        Raises:
            ProtocolError: a message is longer than allowed.
        """
        best: tuple[int, int, Tag] | None = None
        for rank in ranks:
            for tag in tags:
                incoming = self._peers[rank].mail.first(tag, max_num_bytes)
                if incoming is not None and incoming.is_complete and (best is None or incoming.stamp < best[0]):
                    best = incoming.stamp, rank, tag
        return None if best is None else best[1:]

    def heed_failures(self, ranks: Iterable[int]) -> None:
        """Raise what one of these processes has said of itself: it comes after all that it sent."""
        for failure in filter(None, (self._peers[rank].mail.failure for rank in ranks)):
            raise failure

    def look_after(self, ranks: set[int], needed: set[int]) -> None:
        """Raise if one of these processes is gone, one that is needed has left, or all have.

        Args:
            ranks: of which something is awaited, and nothing has come.
            needed: those that must go on for this one to go on.
        """
        watched = [self._peers[rank] for rank in ranks | needed]
        for peer in watched:
            peer.look()
        ended = [peer for peer in watched if peer.has_ended(self._silence_s) or peer.mail.has_left]
        # What a connection had received before it ended is still there to be taken.
        if any(self.fetch(peer) for peer in ended):
            return
        self.heed_failures(peer.rank for peer in ended)  # which may have come just before the end
        left = {peer.rank for peer in ended if peer.mail.has_left}
        lost = {peer.rank for peer in ended} - left
        if lost:
            silent_s = time.monotonic() - min(self._peers[rank].spoke_s for rank in lost)
            raise WorkerError(
                f"worker {self._rank} lost {self.named(lost)}: its process ended, or is stopped and gave no sign of "
                f"life; nothing has come from it for {silent_s:.1f} s"
            )
        if left & needed or (left and left == ranks):
            raise WorkerError(
                f"worker {self._rank} still waits for {self.named(left & needed or left)}, which has closed its handle"
            )

    def lost(self, peer: Peer) -> WorkerError:
        """Why one that cannot be reached any more has gone; if it says so, that may come after it has gone."""
        deadline = time.monotonic() + FAREWELL_S
        while self.fetch(peer) or (peer.standing and not peer.mail.failure and time.monotonic() < deadline):
            peer.connection.poll(10)
            peer.look()
        return peer.mail.failure or WorkerError(f"worker {self._rank} lost {peer}: it takes no messages any more")

    def named(self, ranks: Iterable[int]) -> str:
        """These processes, as errors name them."""
        return ", ".join(str(self._peers[rank]) for rank in sorted(ranks))
