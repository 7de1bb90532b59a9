"""Where each participant stands when a quorum meets, and what all conclude: who leads, who heals, who must leave."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from thinwire.distributed.told import read_told


@dataclass(frozen=True, slots=True)
class Standing:
    """What a participant says of itself.

    Args:
        name: its own.
        number: random; those of all make the name of what they do together.
        terms: what must be the same on all, as text.
        has_begun: whether it has what all have in common; one that was just started, without a file, has not.
        num_exchanges: how many exchanges have counted.
        common: checksum of the common point.
        rest: checksum of what else the model holds: frozen parameters and buffers.
        is_due: whether it has something to exchange now.
        is_done: whether it has trained to its end, and stays for those that have not.
    """

    name: str
    number: str
    terms: str
    has_begun: bool
    num_exchanges: int
    common: int
    rest: int
    is_due: bool
    is_done: bool = False

    def to_text(self) -> str:
        """For :meth:`of_text`."""
        return json.dumps(asdict(self))

    @staticmethod
    def of_text(text: str) -> "Standing":
        """What another participant has sent.

        Raises:
            ProtocolError: it is no standing.
        """
        return Standing(**read_told(text, _FIELDS, "a participant"))


_FIELDS = {
    "name": str, "number": str, "terms": str, "has_begun": bool, "num_exchanges": int, "common": int, "rest": int,
    "is_due": bool, "is_done": bool,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What all members of a quorum conclude alike.

    Args:
        leader: whose common point counts.
        healing: those that take it over.
        refused: those that cannot take part, and why.
        is_due: whether all exchange now.
        name: of what they do together, which no other quorum has.
        done: those that have trained to their end.
        goes_on: whether one trains on that was not behind.
    """

    leader: int
    healing: tuple[int, ...]
    refused: dict[int, str]
    is_due: bool
    name: str
    done: tuple[int, ...] = ()
    goes_on: bool = False


def conclude(standings: Sequence[Standing], *, needs_all: bool = False) -> Conclusion:
    """The conclusion, from the standings in rank order.

    Args:
        standings: of all.
        needs_all: whether they exchange only if each has something to exchange; else one is enough.

    Who has begun leads those who have not: a fresh model is never taken over by those that have trained. Of those who
    have begun the ones with the most exchanges lead, of these the ones whose common point most have, and of these
    the first. If nobody has begun it is the first of all.

    Example:
        >>> old, new = Standing("a", "1", "t", True, 7, 1, 0, True), Standing("b", "2", "t", False, 0, 2, 0, False)
        >>> found = conclude([new, old])
        >>> found.leader, found.healing, found.is_due
        (1, (0,), True)
    """
    ranks = range(len(standings))
    begun = [rank for rank in ranks if standings[rank].has_begun]
    most = max((standings[rank].num_exchanges for rank in begun), default=0)
    ahead = [rank for rank in begun if standings[rank].num_exchanges == most] or [0]
    votes = Counter(standings[rank].common for rank in ahead)
    leader = max(ahead, key=lambda rank: (votes[standings[rank].common], -rank))
    first = standings[leader]
    healing = tuple(rank for rank in ranks if not _agrees(standings[rank], first))
    numbers = " ".join(each.number for each in standings)
    return Conclusion(
        leader, healing, _refused(standings, leader), (all if needs_all else any)(each.is_due for each in standings),
        hashlib.blake2b(numbers.encode(), digest_size=8).hexdigest(),
        tuple(rank for rank in ranks if standings[rank].is_done),
        any(standings[rank].is_due for rank in ranks if rank not in healing),
    )  # fmt: skip


def _agrees(one: Standing, leader: Standing) -> bool:
    same = (one.common, one.num_exchanges) == (leader.common, leader.num_exchanges)
    # Buffers are each participant's own once it has trained.
    return same and (one.has_begun or (one.rest == leader.rest and not leader.has_begun))


def _refused(standings: Sequence[Standing], leader: int) -> dict[int, str]:
    first, found = standings[leader], dict[int, str]()
    for rank, each in enumerate(standings):
        if each.terms != first.terms:
            found[rank] = f"it has {each.terms}, where {first.name!r} has {first.terms}; they must be the same on all"
    for name, count in Counter(each.name for each in standings).items():
        if count > 1:
            same = [rank for rank in range(len(standings)) if standings[rank].name == name]
            keeps = leader if leader in same else max(same, key=lambda rank: (standings[rank].has_begun, -rank))
            why = f"another participant has its name {name!r}; give each a name of its own"
            found |= {rank: why for rank in same if rank != keeps}
    return found
