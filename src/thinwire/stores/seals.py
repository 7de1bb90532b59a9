"""Who may take part, and in what: objects that open only where they were meant to be."""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from thinwire.errors import ConfigError, SealError
from thinwire.stores.keys import RunKey

VERSION = 1
_MAGIC = b"TwS"
HEADER_NUM_BYTES = 4
_DIGEST_NUM_BYTES = 32
_PERSON = b"thinwire seal 1"
SHARED, SIGNED = 0x10, 0x20
"""Kinds of seals, in the upper half of a byte; the lower one is the format's version."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object belongs; one that was sealed for any other place does not open there.

    Args:
        run: the name of the training run.
        kind: what the object is: ``"message"``, ``"closed"``.
        round: the number of the round, 0 or more.
        rank: the worker that made it; None for what any of them may make.
    """

    run: str
    kind: str
    round: int
    rank: int | None = None

    def to_bytes(self) -> bytes:
        """All of it, so that no two places have the same bytes."""
        texts = [text.encode() for text in (self.run, self.kind)]
        numbers = struct.pack("<Qq", self.round, -1 if self.rank is None else self.rank)
        return numbers + b"".join(struct.pack("<I", len(text)) + text for text in texts)

    def __str__(self) -> str:
        """For messages."""
        whose = "" if self.rank is None else f" of worker {self.rank}"
        return f"{self.kind}{whose} in round {self.round} of run {self.run!r}"


@runtime_checkable
class Seal(Protocol):
    """Makes objects that others can tell from those of strangers."""

    @property
    def num_bytes(self) -> int:
        """By how much a sealed object is longer than its contents."""
        ...

    def seal(self, contents: bytes | memoryview, place: Place) -> bytes:
        """The object to be put at a place."""
        ...

    def open(self, sealed: bytes | memoryview, place: Place) -> bytes:
        """What was sealed for this place.

        Raises:
            SealError: it was damaged, is of another place, or was made by somebody who may not; nothing of it was
                looked at but its seal.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SharedKeySeal:
    """A keyed hash (BLAKE2b): whoever has the run's key can make and change everything, nobody else anything.

    Args:
        key: the run's, the same on all workers.

    Example:
        >>> seal, place = SharedKeySeal(RunKey(bytes(range(32)))), Place("run-7", "message", 3, 1)
        >>> seal.open(seal.seal(b"gradient", place), place)
        b'gradient'
        >>> seal.open(seal.seal(b"gradient", place), Place("run-7", "message", 4, 1))
        Traceback (most recent call last):
        ...
        thinwire.errors.SealError: an object does not belong here (message of worker 1 in round 4 of run 'run-7'): ...
    """

    key: RunKey

    @property
    def num_bytes(self) -> int:
        """Header and hash."""
        return HEADER_NUM_BYTES + _DIGEST_NUM_BYTES

    def seal(self, contents: bytes | memoryview, place: Place) -> bytes:
        """Header, hash, contents."""
        return b"".join((header(SHARED), self._digest(contents, place), contents))

    def open(self, sealed: bytes | memoryview, place: Place) -> bytes:
        """Compare the hash."""
        body = check_header(sealed, SHARED, self.num_bytes, place)
        digest, contents = body[:_DIGEST_NUM_BYTES], body[_DIGEST_NUM_BYTES:]
        if not hmac.compare_digest(digest, self._digest(contents, place)):
            raise refused(place, "it was damaged, moved here from another place, or made with another key")
        return bytes(contents)

    def _digest(self, contents: bytes | memoryview, place: Place) -> bytes:
        return place_digest(contents, place, SHARED, self.key.derive("seal"), _DIGEST_NUM_BYTES)


def place_digest(contents: bytes | memoryview, place: Place, kind: int, key: bytes, num_bytes: int) -> bytes:
    """BLAKE2b of header, place and contents; without a key where a signature is made of it."""
    if place.round < 0 or (place.rank is not None and place.rank < 0):
        raise ConfigError(f"an object for {place} was asked for; rounds and ranks are 0 or more")
    state = hashlib.blake2b(header(kind) + place.to_bytes(), key=key, digest_size=num_bytes, person=_PERSON)
    state.update(contents)
    return state.digest()


def check_header(sealed: bytes | memoryview, kind: int, num_bytes: int, place: Place) -> memoryview:
    """What comes after the header of a seal of this kind."""
    view = memoryview(sealed).cast("B")
    if len(view) < num_bytes:
        raise refused(place, f"it has {len(view)} bytes, and a seal has {num_bytes}")
    if bytes(view[:HEADER_NUM_BYTES]) != header(kind):
        raise refused(
            place, "it does not begin as what is sealed in this way does; all workers take the same kind of seal"
        )
    return view[HEADER_NUM_BYTES:]


def refused(place: Place, why: str) -> SealError:
    """The error for an object that does not belong where it is."""
    return SealError(f"an object does not belong here ({place}): {why}")


def header(kind: int) -> bytes:
    """What an object with this kind of seal begins with."""
    return _MAGIC + bytes([kind | VERSION])
