"""CRC-32C (Castagnoli), the checksum at the end of every message."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.numba_tools import array_of, kernel, load_word

_POLYNOMIAL = 0x82F63B78


def crc32c(data: Tensor, previous: int = 0) -> int:
    """Checksum of the bytes of ``data``; the reflected polynomial is ``0x82F63B78``, sixteen bytes a step.

    Args:
        data: uint8 ``[n]``; of another device than the CPU it is copied first.
        previous: checksum of the bytes before these, to go on from there.

    Raises:
        ConfigError: data that are not a vector of uint8.

    Example:
        >>> digits = torch.tensor(list(b"123456789"), dtype=torch.uint8)
        >>> hex(crc32c(digits)), hex(crc32c(digits[4:], crc32c(digits[:4])))
        ('0xe3069283', '0xe3069283')
    """
    if data.dtype != torch.uint8 or data.dim() != 1:
        raise ConfigError(f"a checksum is of a vector of uint8, got {data.dtype} of shape {tuple(data.shape)}")
    return crc32c_array(array_of(data), previous)


def crc32c_array(data: "np.ndarray[Any, np.dtype[np.uint8]]", previous: int = 0) -> int:
    """:func:`crc32c` of a contiguous array of bytes, which a caller that holds one need not wrap.

    Example:
        >>> hex(crc32c_array(np.frombuffer(b"123456789", np.uint8)))
        '0xe3069283'
    """
    return int(_checksum(data, _tables(), np.uint32(previous)))


def crc32c_python(data: bytes, previous: int = 0) -> int:
    """:func:`crc32c` in plain Python, bit by bit, as the definition says.

    Example:
        >>> hex(crc32c_python(b"123456789"))
        '0xe3069283'
    """
    state = previous ^ 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (_POLYNOMIAL if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@functools.cache
def _tables() -> "np.ndarray[Any, np.dtype[np.uint32]]":
    """Row ``t`` holds what each byte does to the state ``t`` bytes after it."""
    tables = np.zeros((16, 256), np.uint32)
    state: Any = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        state = (state >> 1) ^ np.where(state & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    tables[0] = state
    for row in range(1, 16):
        tables[row] = (tables[row - 1] >> 8) ^ tables[0][tables[row - 1] & 0xFF]
    return tables


@kernel
def _checksum(data: Any, tables: Any, previous: Any) -> Any:
    u64 = np.uint64
    byte = u64(255)
    state = np.uint32(previous ^ np.uint32(0xFFFFFFFF))
    whole = data.size // 16 * 16
    for position in range(0, whole, 16):
        # Only the first word has to wait for the state; the lookups of the second go on beside it.
        first = load_word(data, position) ^ u64(state)
        second = load_word(data, position + 8)
        mixed = np.uint32(0)
        for place in range(8):
            shift = u64(8 * place)
            mixed ^= tables[7 - place, (second >> shift) & byte]
        for place in range(8):
            shift = u64(8 * place)
            mixed ^= tables[15 - place, (first >> shift) & byte]
        state = np.uint32(mixed)
    for position in range(whole, data.size):
        state = np.uint32((state >> np.uint32(8)) ^ tables[0, (state ^ data[position]) & np.uint32(255)])
    return state ^ np.uint32(0xFFFFFFFF)
