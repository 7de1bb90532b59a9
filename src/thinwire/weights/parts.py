"""Blocks in objects of some megabytes: what is under way takes so much memory, however large the model is."""

import hashlib
from collections.abc import Sequence

from thinwire.errors import ProtocolError, WireError
from thinwire.stores import Store
from thinwire.weights.layout import DIGEST_NUM_BYTES
from thinwire.weights.messages import Head, Part, reader_of
from thinwire.wire.reader import Reader

_ENOUGH = 1 << 24
"""Bytes at which a part ends; blocks in it are whole."""

_AHEAD = 1 << 28
"""Bytes up to which all parts are read before a block is: what is missing or damaged is then noticed beforehand."""


class PartWriter:
    """Puts blocks into parts, as many together as make an object of a good size.

    Args:
        store: where to.
        place: name of the update or the snapshot in the store.

    Example:
        >>> import tempfile
        >>> from thinwire.stores import FolderStore
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = PartWriter(FolderStore(folder), "w/updates/1")
        ...     writer.add(b"ab")
        ...     writer.finish()
        ([], b'ab')
    """

    def __init__(self, store: Store, place: str) -> None:
        self._store, self._place = store, place
        self._waiting: list[bytes] = []
        self._num_waiting_bytes = 0
        self._parts: list[Part] = []

    @property
    def num_bytes(self) -> int:
        """Of the parts that were put."""
        return sum(part.num_bytes for part in self._parts)

    def add(self, block: bytes) -> None:
        """Take the next block."""
        self._waiting.append(block)
        self._num_waiting_bytes += len(block)
        if self._num_waiting_bytes >= _ENOUGH:
            self._put()

    def finish(self) -> tuple[Sequence[Part], bytes]:
        """The parts; or none, and what is to be written into the head, where that is little."""
        if not self._parts:
            return [], b"".join(self._waiting)
        if self._waiting:
            self._put()
        return self._parts, b""

    def _put(self) -> None:
        contents = b"".join(self._waiting)
        self._waiting, self._num_waiting_bytes = [], 0
        self._store.put(part_name(self._place, len(self._parts)), contents)
        self._parts.append(Part(len(contents), _digest(contents)))


class PartReader:
    """Reads blocks one after the other: of up to 256 MiB all parts at once, of more each when it is come to.

    Args:
        store: where from.
        place: name of the update or the snapshot in the store.
        head: what it says of itself.

    Raises:
        ProtocolError: a part is not there.
        WireError: it is damaged.
    """

    def __init__(self, store: Store, place: str, head: Head) -> None:
        self._store, self._place, self._parts = store, place, head.parts
        self._next = 0
        self._reader = reader_of(head.body)
        short = sum(part.num_bytes for part in head.parts) <= _AHEAD
        self._ahead = [self._get(number) for number in range(len(head.parts))] if short else []

    def next(self) -> Reader:
        """Where the next block begins.

        Raises:
            ProtocolError: the part that it is in is not there.
            WireError: that is damaged.
        """
        if not self._reader.num_left and self._next < len(self._parts):
            self._reader = reader_of(self._ahead.pop(0) if self._ahead else self._get(self._next))
            self._next += 1
        return self._reader

    def check_end(self) -> None:
        """Refuse what follows the last block.

        Raises:
            WireError: something does.
        """
        if self._reader.num_left or self._next < len(self._parts):
            raise WireError("more blocks follow than the weights have")

    def _get(self, number: int) -> bytes:
        part, name = self._parts[number], part_name(self._place, number)
        contents = self._store.get(name, part.num_bytes)
        if contents is None:
            raise ProtocolError(f"the object {name!r} is not there, though its head is")
        if _digest(contents) != part.digest:
            raise WireError(f"the object {name!r} is damaged: its digest is another")
        return contents


def part_name(place: str, number: int) -> str:
    """Where a part of an update or a snapshot lies."""
    return f"{place}/part-{number:05d}"


def _digest(contents: bytes) -> bytes:
    return hashlib.blake2b(contents, digest_size=DIGEST_NUM_BYTES).digest()
