"""The objects of a run: their names, their seals, their lengths, and how many bytes they were."""

import hashlib
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from thinwire.errors import SealError, StoreError
from thinwire.network import Traffic
from thinwire.stores import Place, Seal, Store

T = TypeVar("T")

DIGEST_NUM_BYTES = 32
_ENTRY = struct.Struct(f"<I{DIGEST_NUM_BYTES}s")
_POINT = struct.Struct("<I")
_PAUSES_S = (0.1, 1.0, 5.0)
BEGINNING = "beginning"
"""Of what all have in common before the first round."""


def round_folder(number: int) -> str:
    """Where the objects of a round lie."""
    return f"rounds/{number:08d}"


def message_name(number: int, rank: int) -> str:
    """A worker's message in a round."""
    return f"{round_folder(number)}/rank-{rank}"


def closing_name(number: int, attempt: int) -> str:
    """The list of a round; further ones are looked at where what is at the first was made by a stranger."""
    return f"{round_folder(number)}/closed" + (f"-{attempt}" if attempt else "")


def snapshot_name(number: int) -> str:
    """The common state before a round."""
    return f"snapshots/{number:08d}"


def digest_of(sealed: bytes) -> bytes:
    """What stands for an object in a list."""
    return hashlib.blake2b(sealed, digest_size=DIGEST_NUM_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Closing:
    """Which messages of a round count.

    Args:
        digests: of each object that counts, by rank.
        point: the checksum of the common state before the round.

    Example:
        >>> closing = Closing({0: bytes(32), 2: bytes(32)}, point=7)
        >>> Closing.from_bytes(closing.to_bytes(), size=3) == closing, len(closing.to_bytes())
        (True, 76)
    """

    digests: Mapping[int, bytes]
    point: int

    def to_bytes(self) -> bytes:
        """The checksum, then rank and digest of each, in rank order; numbers are little-endian, of 4 bytes."""
        entries = (_ENTRY.pack(rank, self.digests[rank]) for rank in sorted(self.digests))
        return _POINT.pack(self.point) + b"".join(entries)

    @classmethod
    def from_bytes(cls, contents: bytes, size: int) -> "Closing":
        """What :meth:`to_bytes` was given.

        Raises:
            SealError: it is no list of workers below ``size`` in rank order.
        """
        if len(contents) < _POINT.size or (len(contents) - _POINT.size) % _ENTRY.size:
            raise SealError(f"a list of {len(contents)} bytes is none of a round's messages")
        (point,) = _POINT.unpack_from(contents)
        entries = list(_ENTRY.iter_unpack(contents[_POINT.size :]))
        ranks = [rank for rank, _ in entries]
        if ranks != sorted(set(ranks)) or any(rank >= size for rank in ranks):
            raise SealError(f"a list of the workers {ranks} is none of a round's messages; there are {size} workers")
        return cls(dict(entries), point)

    @staticmethod
    def max_num_bytes(size: int) -> int:
        """The longest that there can be."""
        return _POINT.size + size * _ENTRY.size


@dataclass(slots=True, eq=False)
class Objects:
    """Sealed objects in a store, all bytes of which are counted. A store that does not answer is asked again.

    Args:
        store: where they lie.
        seal: who may make them.
        run: the name of the run, which is the folder of its objects too.
    """

    store: Store
    seal: Seal
    run: str
    traffic: Traffic = field(default_factory=Traffic)
    """Whole objects, with their seals."""

    def sealed(self, contents: bytes | memoryview, kind: str, number: int, rank: int | None = None) -> bytes:
        """An object for its place."""
        return self.seal.seal(contents, Place(self.run, kind, number, rank))

    def opened(self, sealed: bytes, kind: str, number: int, rank: int | None = None) -> bytes:
        """The contents of an object of this place.

        Raises:
            SealError: it is none.
        """
        return self.seal.open(sealed, Place(self.run, kind, number, rank))

    def put(self, name: str, sealed: bytes) -> None:
        """Write an object."""
        _ask(lambda: self.store.put(f"{self.run}/{name}", sealed))
        self.traffic += Traffic(bytes_sent=len(sealed))

    def create(self, name: str, sealed: bytes) -> bool:
        """Write an object unless there is one; whether it did."""
        is_made = _ask(lambda: self.store.create(f"{self.run}/{name}", sealed))
        self.traffic += Traffic(bytes_sent=len(sealed))
        return is_made

    def get(self, name: str, max_num_bytes: int) -> bytes | None:
        """An object whose contents have at most this length; None if there is none.

        Raises:
            SealError: it is longer, and so none of this run's.
            StoreError: the store does not answer.
        """
        found = _ask(lambda: self.store.get(f"{self.run}/{name}", max_num_bytes + self.seal.num_bytes))
        if found is not None:
            self.traffic += Traffic(bytes_received=len(found))
        return found

    def names(self, under: str) -> list[str]:
        """Names of all objects below a name of the run, ascending."""
        begin = len(self.run) + 1
        return [name[begin:] for name in _ask(lambda: self.store.names(f"{self.run}/{under}"))]

    def delete(self, name: str) -> None:
        """Remove an object, if there is one."""
        _ask(lambda: self.store.delete(f"{self.run}/{name}"))

    def count_sent(self, num_bytes: int) -> None:
        """Bytes were written by this worker before it was started again from an older state."""
        self.traffic += Traffic(bytes_sent=num_bytes)


def _ask(call: Callable[[], T]) -> T:
    """The answer, also of a store that gives none for some seconds."""
    for pause_s in _PAUSES_S:
        try:
            return call()
        except SealError:
            raise
        except StoreError:
            time.sleep(pause_s)
    return call()
