"""The frame of a message: magic, version, body, checksum; and how integers are written."""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.crc32c import copy_summed, crc32c_array

MAGIC = b"tW"
VERSION = 1
FRAME_NUM_BYTES = len(MAGIC) + 1 + 4
"""What a message has beside its body: magic, version, checksum."""

KEY_NUM_BYTES = 8
"""Of :func:`key_bytes`."""

MAX_NUMEL = 2**48
"""Longest vector that a message may declare."""

MAX_OPERATIONS = 1024
"""Of which a message may cost, for each entry of its vector and for each byte of its own: a few bytes could say that a
long vector is to be transformed or added up for hours."""

_BEGINNING = MAGIC + bytes([VERSION])
_NUMPY_DTYPES = frozenset((torch.uint8, torch.float32))

_OF_SIZE = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}
"""What numbers of so many bytes are read as; numpy does not know every dtype."""

_LONG = 1 << 15
"""Bytes of a part that is copied and summed at once, by several threads if it is long enough."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

Parts = list[bytes | Bytes]
"""What is written, piece by piece: nothing is copied before :func:`frame`."""


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


def varint_num_bytes(number: int) -> int:
    """Length of :func:`varint`.

    Example:
        >>> varint_num_bytes(127), varint_num_bytes(128)
        (1, 2)
    """
    return max(1, (number.bit_length() + 6) // 7)


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
    """The memory of a tensor of numbers, copied to the CPU if it is elsewhere."""
    if tensor.numel() == 0:
        return np.empty(0, np.uint8)
    host = tensor.detach().cpu().contiguous()
    # numpy reinterprets faster, but does not know every dtype.
    written: Bytes = host.numpy().view(np.uint8) if host.dtype in _NUMPY_DTYPES else host.view(torch.uint8).numpy()
    return written


def frame(parts: Parts) -> Tensor:
    """A message around a body: uint8 ``[FRAME_NUM_BYTES + body]``. Every part is copied once."""
    num_bytes = FRAME_NUM_BYTES + sum(map(len, parts))
    if num_bytes < _LONG:
        pieces: list[Any] = [_BEGINNING, *parts, bytes(4)]
        whole = np.frombuffer(bytearray().join(pieces), np.uint8)
        whole.data[-4:] = crc32c_array(whole[:-4]).to_bytes(4, "little")
        return tensor_of(whole)
    message = empty_array(num_bytes, np.uint8)
    # Parts of a few bytes are written through a memoryview, which costs least.
    view = message.data
    position = 0
    checked = 0
    checksum = 0
    for part in (_BEGINNING, *parts):
        end = position + len(part)
        if isinstance(part, bytes) or len(part) < _LONG:
            view[position:end] = part if isinstance(part, bytes) else part.data
        else:
            checksum = crc32c_array(message[checked:position], checksum)
            checksum = copy_summed(part, message[position:end], checksum)
            checked = end
        position = end
    view[position:] = crc32c_array(message[checked:position], checksum).to_bytes(4, "little")
    return torch.from_numpy(message)


def check_is_bytes(message: Tensor) -> None:
    """Refuse what is no message at all.

    Raises:
        ConfigError: no tensor.
        WireError: not a vector of bytes.
    """
    if not isinstance(message, Tensor):
        raise ConfigError(
            f"a {type(message).__name__} was given; a message is a uint8 vector on the CPU, which bytes become by "
            "torch.frombuffer(bytearray(data), dtype=torch.uint8)"
        )
    if message.dtype != torch.uint8 or message.dim() != 1 or not message.is_cpu:
        raise WireError(f"a message is a uint8 vector on the CPU, got {message.dtype}, shape {tuple(message.shape)}")


def unframe(message: Tensor) -> Bytes:
    """The body of a message whose frame is right.

    Raises:
        ConfigError: no tensor at all.
        WireError: not a vector of bytes, too short, another magic, an unknown version, or a wrong checksum.
    """
    check_is_bytes(message)
    if message.numel() < FRAME_NUM_BYTES:
        raise WireError(f"a message has at least {FRAME_NUM_BYTES} bytes, got {message.numel()}")
    data = array_of(message)
    view = data.data
    beginning = view[:3].tobytes()
    if beginning[:2] != MAGIC:
        raise WireError(f"a message begins with {MAGIC.hex()}, got {beginning[:2].hex()}")
    if beginning[2] != VERSION:
        raise WireError(f"format version {beginning[2]} is unknown; this is version {VERSION}")
    declared = int.from_bytes(view[-4:], "little")
    actual = crc32c_array(data[:-4])
    if declared != actual:
        raise WireError(f"the message was damaged: its checksum is {actual:08x}, it declares {declared:08x}")
    body: Bytes = data[3:-4]
    return body


@dataclass(slots=True)
class Reader:
    """A place in the body of a message; every method reads on from there, or raises WireError.

    ``max_numel`` is the longest vector that the receiver accepts, ``kinds`` the numbers of the kinds of bodies, all if
    not given. ``num_operations`` counts what the vector will cost.
    """

    data: Bytes
    max_numel: int
    kinds: frozenset[int] | None = None
    position: int = 0
    num_operations: int = 0
    _view: memoryview = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Single bytes are read through it: an array would make a numpy number of each.
        self._view = self.data.data

    @property
    def num_left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.position

    def take(self, num_bytes: int) -> Bytes:
        """The next bytes, not copied."""
        if num_bytes > self.num_left:
            raise WireError(f"the message ends early: {num_bytes} bytes should follow, {self.num_left} do")
        self.position += num_bytes
        taken: Bytes = self.data[self.position - num_bytes : self.position]
        return taken

    def byte(self) -> int:
        """The next byte."""
        if self.position >= len(self._view):
            raise WireError("the message ends early: 1 bytes should follow, 0 do")
        self.position += 1
        return int(self._view[self.position - 1])

    def varint(self) -> int:
        """The next integer, below ``2**63``, in its shortest form."""
        view, number = self._view, 0
        for place, position in enumerate(range(self.position, min(self.position + 9, len(view)))):
            byte = view[position]
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if byte == 0 and place:
                    raise WireError("an integer is not in its shortest form")
                self.position = position + 1
                return number
        if self.num_left < 9:
            raise WireError(f"the message ends early: an integer goes on after the last {self.num_left} bytes")
        raise WireError("an integer has more than 63 bits")

    def numel(self) -> int:
        """The next integer as the length of a vector."""
        number = self.varint()
        self.check_numel(number)
        return number

    def check_numel(self, numel: int) -> None:
        """Refuse a vector that is longer than the receiver accepts."""
        if numel > self.max_numel:
            raise WireError(f"a vector of {numel} entries is declared; at most {self.max_numel} are accepted")

    def check_operations(self, numel: int, num_bytes: int) -> None:
        """Refuse a message of ``num_bytes`` that costs out of proportion to them and to the ``numel`` of its vector."""
        if self.num_operations > MAX_OPERATIONS * (numel + num_bytes):
            raise WireError(
                f"{self.num_operations} operations are declared for a vector of {numel} entries in {num_bytes} bytes; "
                f"at most {MAX_OPERATIONS} for each entry and each byte are accepted"
            )

    def key(self) -> int:
        """The next key."""
        return int.from_bytes(self.take(KEY_NUM_BYTES).tobytes(), "little")

    def rest(self) -> Tensor:
        """All that is left, not copied and not yet read."""
        return torch.from_numpy(self.data[self.position :])

    def tensor(self, dtype: torch.dtype, count: int) -> Tensor:
        """The next ``count`` numbers: a view of the message if they lie at a multiple of their size, else a copy."""
        if count == 0:
            # An empty array's strides are arbitrary, and torch refuses to reinterpret some of them.
            return _nothing(dtype)
        taken = self.take(count * dtype.itemsize)
        numbers = taken.view(np.float32) if dtype == torch.float32 else taken.view(_OF_SIZE[dtype.itemsize])
        # A copy is numpy's, see `tensor_of`.
        tensor = tensor_of(numbers if numbers.flags.aligned else numbers.copy())
        return tensor if tensor.dtype == dtype else tensor.view(dtype)


@functools.lru_cache(maxsize=8)
def _nothing(dtype: torch.dtype) -> Tensor:
    """One for all: a message of three bytes a part would otherwise take hundreds for each."""
    return torch.empty(0, dtype=dtype)
