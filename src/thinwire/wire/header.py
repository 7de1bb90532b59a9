"""The frame of a message: magic, version, body, checksum; and how integers are written."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import WireError
from thinwire.kernels.crc32c import crc32c

MAGIC = b"tW"
VERSION = 1
FRAME_NUM_BYTES = len(MAGIC) + 1 + 4
"""What a message has beside its body: magic, version, checksum."""

MAX_NUMEL = 2**48
"""Longest vector that a message may declare."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


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


def bytes_of(tensor: Tensor) -> Bytes:
    """The memory of a tensor of numbers, copied to the CPU if it is elsewhere."""
    if tensor.numel() == 0:
        return np.empty(0, np.uint8)
    written: Bytes = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    return written


def frame(parts: "list[bytes | Bytes]") -> Tensor:
    """A message around a body: uint8 ``[FRAME_NUM_BYTES + body]``."""
    body_num_bytes = sum(len(part) for part in parts)
    message = np.empty(FRAME_NUM_BYTES + body_num_bytes, np.uint8)
    message[:3] = np.frombuffer(MAGIC + bytes([VERSION]), np.uint8)
    position = 3
    for part in parts:
        message[position : position + len(part)] = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        position += len(part)
    result = torch.from_numpy(message)
    message[position:] = np.frombuffer(crc32c(result[:position]).to_bytes(4, "little"), np.uint8)
    return result


def unframe(message: Tensor) -> Bytes:
    """The body of a message whose frame is right.

    Raises:
        WireError: not a vector of bytes, too short, another magic, an unknown version, or a wrong checksum.
    """
    if message.dtype != torch.uint8 or message.dim() != 1 or message.device.type != "cpu":
        raise WireError(f"a message is a uint8 vector on the CPU, got {message.dtype}, shape {tuple(message.shape)}")
    if message.numel() < FRAME_NUM_BYTES:
        raise WireError(f"a message has at least {FRAME_NUM_BYTES} bytes, got {message.numel()}")
    data = message.detach().contiguous().numpy()
    if data[:2].tobytes() != MAGIC:
        raise WireError(f"a message begins with {MAGIC.hex()}, got {data[:2].tobytes().hex()}")
    if data[2] != VERSION:
        raise WireError(f"format version {data[2]} is unknown; this is version {VERSION}")
    declared = int.from_bytes(data[-4:].tobytes(), "little")
    actual = crc32c(torch.from_numpy(data[:-4]))
    if declared != actual:
        raise WireError(f"the message was damaged: its checksum is {actual:08x}, it declares {declared:08x}")
    body: Bytes = data[3:-4]
    return body


@dataclass(slots=True)
class Reader:
    """A place in the body of a message; every method reads on from there, or raises WireError.

    ``max_numel`` is the longest vector that the receiver accepts.
    """

    data: Bytes
    max_numel: int
    position: int = 0

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
        return int(self.take(1)[0])

    def varint(self) -> int:
        """The next integer, below ``2**63``, in its shortest form."""
        number = 0
        for place in range(9):
            byte = self.byte()
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if byte == 0 and place > 0:
                    raise WireError("an integer is not in its shortest form")
                return number
        raise WireError("an integer has more than 63 bits")

    def numel(self) -> int:
        """The next integer as the length of a vector."""
        number = self.varint()
        if number > self.max_numel:
            raise WireError(f"a vector of {number} entries is declared; at most {self.max_numel} are accepted")
        return number

    def tensor(self, dtype: torch.dtype, count: int) -> Tensor:
        """The next ``count`` numbers, copied."""
        taken = self.take(count * dtype.itemsize)
        # An empty array's strides are arbitrary, and torch refuses to reinterpret some of them.
        return torch.from_numpy(taken.copy()).view(dtype) if count else torch.empty(0, dtype=dtype)
