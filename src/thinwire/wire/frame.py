"""The frame of a message: magic, version, body, checksum."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import empty_array, tensor_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.crc32c import copy_summed, crc32c_array
from thinwire.wire.kind import Pieces
from thinwire.wire.reader import Bytes, Reader

MAGIC = b"tW"
VERSION = 1
CHECKSUM_NUM_BYTES = 4
FRAME_NUM_BYTES = len(MAGIC) + 1 + CHECKSUM_NUM_BYTES
"""What a message has beside its body: magic, version, checksum."""

_BEGINNING = MAGIC + bytes([VERSION])
_LONG = 1 << 15
"""Bytes of a piece that is copied and summed at once, by several threads if it is long enough."""


def frame(pieces: Pieces) -> Tensor:
    """A message around a body: uint8 ``[FRAME_NUM_BYTES + body]``. Every piece is copied once."""
    num_bytes = FRAME_NUM_BYTES + sum(map(len, pieces))
    if num_bytes < _LONG:
        all_pieces: list[Any] = [_BEGINNING, *pieces, bytes(4)]
        whole = np.frombuffer(bytearray().join(all_pieces), np.uint8)
        whole.data[-4:] = crc32c_array(whole[:-4]).to_bytes(4, "little")
        return tensor_of(whole)
    message = empty_array(num_bytes, np.uint8)
    # Pieces of a few bytes are written through a memoryview, which costs least.
    view = message.data
    position = 0
    checked = 0
    checksum = 0
    for piece in (_BEGINNING, *pieces):
        end = position + len(piece)
        if isinstance(piece, bytes) or len(piece) < _LONG:
            view[position:end] = piece if isinstance(piece, bytes) else piece.data
        else:
            checksum = crc32c_array(message[checked:position], checksum)
            checksum = copy_summed(piece, message[position:end], checksum)
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


def read_beginning(reader: Reader) -> None:
    """Magic and version.

    Raises:
        WireError: another magic or an unknown version.
    """
    if reader.listener is None and reader.data[: len(_BEGINNING)].tobytes() == _BEGINNING:
        reader.position = len(_BEGINNING)
        return
    magic = reader.take(len(MAGIC)).tobytes()
    reader.field("magic", magic.hex(" "))
    if magic != MAGIC:
        raise WireError(f"a message begins with {MAGIC.hex()}, got {magic.hex()}")
    version = reader.byte("version")
    if version != VERSION:
        raise WireError(f"format version {version} is unknown; this is version {VERSION}")


def declared_checksum(data: Bytes) -> int:
    """That at the end of a message."""
    return int.from_bytes(data.data[-CHECKSUM_NUM_BYTES:], "little")
