"""What lies in the store: heads of updates and of snapshots, their parts, and which is the latest; FORMAT.md."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from thinwire.errors import WireError
from thinwire.kernels.crc32c import crc32c_array
from thinwire.payloads.base import Payload
from thinwire.weights.layout import DIGEST_NUM_BYTES, FORMATS, MAX_LAYOUT_NUM_BYTES, WeightLayout
from thinwire.wire.kind import varint
from thinwire.wire.reader import Reader

MAX_LATEST_NUM_BYTES = 256

MAGIC = b"tww"
VERSION = 1
MAX_PART_NUM_BYTES = 1 << 26
"""Of an object with blocks."""

_MAX_PARTS = 1 << 16
MAX_HEAD_NUM_BYTES = MAX_PART_NUM_BYTES + MAX_LAYOUT_NUM_BYTES + (DIGEST_NUM_BYTES + 9) * _MAX_PARTS
_UPDATE, _SNAPSHOT, _LATEST = 1, 2, 3
_CHECKSUM_NUM_BYTES = 4
NO_CHAIN = bytes(DIGEST_NUM_BYTES)

Checksums = tuple[int, ...]
"""CRC-32C of all words of each format."""

NO_CHECKSUMS: Checksums = (0,) * len(FORMATS)


@dataclass(frozen=True, slots=True)
class Part:
    """An object with blocks.

    Args:
        num_bytes: its length.
        digest: BLAKE2b of it.
    """

    num_bytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What an update or a snapshot says of itself.

    Args:
        layout: digest of the layout.
        step: its number.
        chain: of an update the digest of the one before; of a snapshot that of the update with its step, or zeros.
        before: checksums of the weights before; of a snapshot zeros.
        after: checksums of the weights after.
        num_changed: words that change; of a snapshot 0.
        tensors: of a snapshot the layout, else None.
        parts: where the blocks are, if not here.
        body: the blocks, if there are no parts.
    """

    layout: bytes
    step: int
    chain: bytes
    before: Checksums
    after: Checksums
    num_changed: int = 0
    tensors: WeightLayout | None = None
    parts: Sequence[Part] = ()
    body: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> tuple[bytes, bytes]:
        """The message, and the chain after it."""
        kind = _UPDATE if self.tensors is None else _SNAPSHOT
        pieces = [self.layout, varint(self.step), self.chain]
        pieces += [number.to_bytes(4, "little") for number in (*self.before, *self.after)]
        pieces.append(varint(self.num_changed))
        if self.tensors is not None:
            written = self.tensors.to_bytes()
            pieces += [varint(len(written)), written]
        pieces.append(varint(len(self.parts)))
        for part in self.parts:
            pieces += [varint(part.num_bytes), part.digest]
        message = seal(kind, b"".join([*pieces, self.body]))
        return message, self.chain if kind == _SNAPSHOT and self.chain != NO_CHAIN else digest_of(message)


@dataclass(frozen=True, slots=True)
class Latest:
    """Up to where there is something.

    Args:
        step: of the last update or snapshot.
        snapshot: step of the last snapshot.
        chain: after the last.

    Example:
        >>> latest = Latest(7, 4, NO_CHAIN)
        >>> Latest.from_bytes(latest.to_bytes()) == latest
        True
    """

    step: int
    snapshot: int
    chain: bytes

    def to_bytes(self) -> bytes:
        """The message."""
        return seal(_LATEST, varint(self.step) + varint(self.snapshot) + self.chain)

    @staticmethod
    def from_bytes(message: bytes) -> "Latest":
        """Read it.

        Raises:
            WireError: anything else.
        """
        reader = unseal(_LATEST, message)
        latest = Latest(reader.varint(), reader.varint(), reader.take(DIGEST_NUM_BYTES).tobytes())
        check_end(reader)
        return latest


def head_from_bytes(message: bytes, snapshot: bool) -> tuple[Head, bytes]:
    """An update's or a snapshot's head, and the chain after it.

    Raises:
        WireError: anything else.

    Example:
        >>> message, chain = Head(NO_CHAIN, 3, NO_CHAIN, NO_CHECKSUMS, NO_CHECKSUMS, 5).to_bytes()
        >>> head, chain_read = head_from_bytes(message, snapshot=False)
        >>> head.step, head.num_changed, chain_read == chain
        (3, 5, True)
    """
    reader = unseal(_SNAPSHOT if snapshot else _UPDATE, message)
    layout, step = reader.take(DIGEST_NUM_BYTES).tobytes(), reader.varint()
    chain = reader.take(DIGEST_NUM_BYTES).tobytes()
    before, after = (tuple(int.from_bytes(reader.take(4).tobytes(), "little") for _ in FORMATS) for _ in range(2))
    num_changed = reader.varint()
    tensors = WeightLayout.from_bytes(reader.take(reader.varint()).tobytes()) if snapshot else None
    parts: list[Part] = []
    for _ in range(reader.varint()):
        part = Part(reader.varint(), reader.take(DIGEST_NUM_BYTES).tobytes())
        if part.num_bytes > MAX_PART_NUM_BYTES or len(parts) >= _MAX_PARTS:
            raise WireError(f"a part of {part.num_bytes} bytes is declared; at most {MAX_PART_NUM_BYTES} are accepted")
        parts.append(part)
    body = reader.take(reader.num_left).tobytes()
    if parts and body:
        raise WireError(f"{len(body)} bytes follow the list of parts")
    head = Head(layout, step, chain, before, after, num_changed, tensors, parts, body)
    return head, chain if snapshot and chain != NO_CHAIN else digest_of(message)


def seal(kind: int, fields: bytes) -> bytes:
    """A message: what it is, the fields, the digest of both, the checksum of all."""
    message = MAGIC + bytes([VERSION, kind]) + fields
    message += hashlib.blake2b(message, digest_size=DIGEST_NUM_BYTES).digest()
    return message + crc32c_array(np.frombuffer(message, np.uint8)).to_bytes(_CHECKSUM_NUM_BYTES, "little")


def unseal(kind: int, message: bytes) -> Reader:
    """The fields of a message of this kind.

    Raises:
        WireError: another kind, or damaged.
    """
    end = len(message) - _CHECKSUM_NUM_BYTES
    fields_end = end - DIGEST_NUM_BYTES
    if fields_end < len(MAGIC) + 2 or message[: len(MAGIC)] != MAGIC:
        raise WireError(f"{len(message)} bytes are no message: one begins with {MAGIC!r}")
    if crc32c_array(np.frombuffer(message, np.uint8, end)) != int.from_bytes(message[end:], "little"):
        raise WireError("the message is damaged: its checksum is another")
    if hashlib.blake2b(message[:fields_end], digest_size=DIGEST_NUM_BYTES).digest() != message[fields_end:end]:
        raise WireError("the message is damaged: its digest is another")
    if message[len(MAGIC)] != VERSION:
        raise WireError(f"format version {message[len(MAGIC)]} is unknown; this is version {VERSION}")
    if message[len(MAGIC) + 1] != kind:
        raise WireError(f"a message of kind {message[len(MAGIC) + 1]} lies where one of kind {kind} was expected")
    return reader_of(message[len(MAGIC) + 2 : fields_end])


def digest_of(message: bytes) -> bytes:
    """The digest in a message."""
    return message[-_CHECKSUM_NUM_BYTES - DIGEST_NUM_BYTES : -_CHECKSUM_NUM_BYTES]


def reader_of(data: bytes) -> Reader:
    """Reads bytes that have no payloads in them."""
    return Reader(np.frombuffer(bytearray(data), np.uint8), _no_payload)


def check_end(reader: Reader) -> None:
    """Refuse what goes on.

    Raises:
        WireError: it does.
    """
    if reader.num_left:
        raise WireError(f"{reader.num_left} bytes follow the end of the message")


def update_folder(name: str, step: int) -> str:
    """Where an update lies."""
    return f"{name}/updates/{step:012d}"


def snapshot_folder(name: str, step: int) -> str:
    """Where a snapshot lies."""
    return f"{name}/snapshots/{step:012d}"


def sum_words(words: torch.Tensor, previous: int) -> int:
    """The checksum of words that follow others."""
    return crc32c_array(words.view(torch.uint8).numpy(), previous) if words.numel() else previous


def _no_payload(reader: Reader) -> Payload:
    raise WireError("there are no payloads in these messages")
