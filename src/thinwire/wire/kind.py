"""What a kind of payload is to the wire, and what its bodies are written from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.payloads.base import Payload
from thinwire.wire.reader import KEY_NUM_BYTES, Bytes, Reader

_NUMPY_DTYPES = frozenset((torch.uint8, torch.float32))
_Kind = TypeVar("_Kind", bound=Payload)

Pieces = list[bytes | Bytes]
"""What is written, piece by piece: nothing is copied before :func:`thinwire.wire.frame.frame`."""


class Coded(NamedTuple):
    """A part whose length depends on the numbers in it.

    Args:
        pieces: writes it.
        max_num_bytes: the most that it can take for as many numbers of the same range; looks at no tensor's data.
        shortcut: says what it takes with less work than writing it, if there is a way.
    """

    pieces: Callable[[], Pieces]
    max_num_bytes: Callable[[], int]
    shortcut: Callable[[], int] | None = None

    def num_bytes(self) -> int:
        """What it takes."""
        return sum(map(len, self.pieces())) if self.shortcut is None else self.shortcut()


Parts: TypeAlias = list[bytes | Tensor | Coded | Payload]
"""What follows the kind byte, in order; a payload stands for a body inside. No tensor's data were looked at."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[_Kind]):
    """How payloads of one type are written, after the byte with the number of the kind.

    Args:
        number: of the kind.
        name: what people call it.
        payload: the type.
        parts: what is written, in order; raises ConfigError where parts of the payload contradict each other.
        read: reads it again, and names each field.
    """

    number: int
    name: str
    payload: type[_Kind]
    parts: Callable[[_Kind], Parts]
    read: Callable[[Reader], _Kind]


def varint(number: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, the lowest first; the top bit says that another byte follows.

    Example:
        >>> varint(0).hex(), varint(300).hex()
        ('00', 'ac02')
    """
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def key_bytes(key: int) -> bytes:
    """A key of 64 bits.

    Raises:
        ConfigError: not in ``[0, 2**64)``.

    Example:
        >>> key_bytes(7).hex()
        '0700000000000000'
    """
    if not 0 <= key < 2**64:
        raise ConfigError(f"a key is in [0, 2**64), got {key}")
    return key.to_bytes(KEY_NUM_BYTES, "little")


def bytes_of(tensor: Tensor) -> Bytes:
    """The memory of a tensor of numbers, copied to the CPU if it is elsewhere.

    Example:
        >>> bytes_of(torch.tensor([1.0])).tolist()
        [0, 0, 128, 63]
    """
    if tensor.numel() == 0:
        return np.empty(0, np.uint8)
    host = tensor.detach().cpu().contiguous()
    host = host if host.dim() == 1 else host.view(-1)
    # numpy reinterprets faster, but does not know every dtype.
    written: Bytes = host.numpy().view(np.uint8) if host.dtype in _NUMPY_DTYPES else host.view(torch.uint8).numpy()
    return written
