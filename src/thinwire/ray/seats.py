"""What the server of asynchronous training knows of each worker."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """What a worker gets from the server.

    Args:
        answer: a byte of control and the model, as of :func:`thinwire.exchanges.asynchronous.write_answer`; empty if
            the server lacks messages of before.
        expected: the number of the worker's message that the server takes next.
        covered: up to which number its messages are in a checkpoint, so that they can be forgotten.
        size: how many workers there are from now on.
    """

    answer: bytes
    expected: int
    covered: int
    size: int


class Standing(IntEnum):
    """Whether a worker is at work."""

    AT_WORK = 0
    ENDED = 1
    """Its function has returned."""
    AWAY = 2
    """It cannot be reached, and goes on with its next message if it comes back."""
    LOST = 3
    """It has died or failed."""


@dataclass(slots=True)
class Seat:
    """One worker.

    Args:
        merged: the number of its last message that was taken; they count from 1.
        covered: that of the last one that is in a checkpoint; in the checkpoint itself it is the last one.
        answered: that of the last one that was answered.
        standing: whether it is at work.
        counts: whether it is one of the ``P`` workers.
        is_dismissed: whether it was told, or is to be told, to pause for good.
        residual_norm: of what it has not sent, once it has ended.
        bytes_resent: by it.
    """

    merged: int = 0
    covered: int = 0
    answered: int = 0
    standing: Standing = Standing.AT_WORK
    counts: bool = True
    is_dismissed: bool = False
    residual_norm: float | None = None
    bytes_resent: int = 0

    def to_state(self, rank: int) -> dict[str, Any]:
        """Plain values, for a checkpoint that is read with ``weights_only=True``."""
        return {**asdict(self), "standing": int(self.standing), "covered": self.merged, "rank": rank}


def seats_of(saved: Iterable[Mapping[str, Any]]) -> dict[int, Seat]:
    """By rank, from what :meth:`Seat.to_state` gave for each."""
    found = {}
    for each in saved:
        values = dict(each)
        rank = values.pop("rank")
        found[rank] = Seat(**{**values, "standing": Standing(values["standing"])})
    return found
