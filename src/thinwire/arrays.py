"""Where tensors and arrays are made: on the CPU large ones use their memory again.

A fresh large array costs more than the work that fills it: the system hands out its pages one by one, zeroed, and
takes them back when it is freed (zeros of 25 M f32 took 2.8 times as long as copying such a vector). Arrays from
here come from memory that earlier ones have left. It returns by itself when the last array or tensor that shares it
is gone, and goes back to the system when it was not wanted for a while.
"""

import contextlib
import mmap
import sys
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")

_STREAMED = frozenset({"cuda", "xpu"})

_LEAST = 1 << 20
"""Bytes from which on memory is kept; the allocator keeps smaller pieces by itself."""

_ALIGNMENT = 64
"""Where an array begins: what is read or written at once by the widest vectors then lies in one line of the cache."""

_BLOCK = 1 << 17
"""Entries that the cache holds, of several vectors."""

_PATIENCE = 64
"""Free memory is given up when so many arrays were made since it was last in use."""


@dataclass(slots=True)
class Pool:
    """Free blocks of memory by size class.

    Example:
        >>> pool = Pool()
        >>> first = pool.empty(1 << 20, np.dtype(np.float32))
        >>> place = first.ctypes.data
        >>> del first
        >>> pool.empty((1 << 20) - 5, np.dtype(np.float32)).ctypes.data == place
        True
    """

    _free: dict[int, list[tuple[int, memoryview]]] = field(default_factory=dict)
    # What comes back waits here: it may come in the midst of anything, and appending needs no lock.
    _returned: deque[tuple[int, memoryview]] = field(default_factory=deque)
    _lock: Any = field(default_factory=threading.RLock)
    _num_made: int = 0

    def empty(self, count: int, dtype: "np.dtype[Any]") -> "np.ndarray[Any, Any]":
        """An array of ``count`` entries with unspecified values."""
        size = _size_class(count * dtype.itemsize)
        with self._lock:
            self._num_made += 1
            self._tidy()
            blocks = self._free.get(size)
            memory = blocks.pop()[1] if blocks else _mapped(size)
        # Views of this array refer to it and not to the block, since the block is no array: it lives as long as they.
        array = np.frombuffer(memory, dtype, count)
        weakref.finalize(array, self._returned.append, (size, memory)).atexit = False
        return array

    def num_free_bytes(self) -> int:
        """Memory that is kept and not in use."""
        with self._lock:
            self._tidy()
            return sum(size * len(blocks) for size, blocks in self._free.items())

    def release(self) -> None:
        """Leaves the memory that is kept and not in use to the system."""
        with self._lock:
            self._tidy()
            self._free.clear()

    def _tidy(self) -> None:
        while self._returned:
            size, memory = self._returned.popleft()
            self._free.setdefault(size, []).append((self._num_made, memory))
        for size, blocks in self._free.items():
            if blocks and blocks[0][0] < self._num_made - _PATIENCE:
                self._free[size] = [block for block in blocks if block[0] >= self._num_made - _PATIENCE]


def array_of(tensor: Tensor) -> "np.ndarray[Any, Any]":
    """A contiguous array of the tensor's entries: the memory itself where that is contiguous and on the CPU.

    Example:
        >>> array_of(torch.ones(2)).dtype
        dtype('float32')
    """
    # One call where detach, cpu, contiguous and numpy are four; it counts for vectors of a few hundred entries.
    return np.ascontiguousarray(tensor.numpy(force=True))


def tensor_of(array: "np.ndarray[Any, Any]") -> Tensor:
    """The tensor that shares the memory of ``array``.

    Example:
        >>> tensor_of(np.ones(2, np.float32))
        tensor([1., 1.])
    """
    return torch.from_numpy(array)


def empty_array(count: int, dtype: Any) -> "np.ndarray[Any, Any]":
    """A numpy array of ``count`` entries with unspecified values, its memory used again.

    Example:
        >>> empty_array(3, np.float32).shape
        (3,)
    """
    entry = np.dtype(dtype)
    return np.empty(count, entry) if count * entry.itemsize < _LEAST else _POOL.empty(count, entry)


def aligned_array(count: int, dtype: Any) -> "np.ndarray[Any, Any]":
    """:func:`empty_array` that begins where a line of the cache does, also if it is small.

    What the widest vectors read and write there lies in one line; rows of a power of two would touch twice as many.

    Example:
        >>> aligned_array(3, np.float32).ctypes.data % 64
        0
    """
    entry = np.dtype(dtype)
    if count * entry.itemsize >= _LEAST:
        return _POOL.empty(count, entry)
    return np.frombuffer(_aligned(count * entry.itemsize), entry, count)


def empty(numel: int, device: torch.device) -> Tensor:
    """An f32 vector ``[numel]`` on ``device``, to be written to; its entries are whatever lay there.

    Example:
        >>> empty(3, torch.device("cpu")).shape
        torch.Size([3])
    """
    if device.type == "cpu":
        return tensor_of(empty_array(numel, np.float32))
    return torch.empty(numel, dtype=torch.float32, device=device)


def zeros(numel: int, device: torch.device) -> Tensor:
    """f32 zeros ``[numel]`` on ``device``.

    Example:
        >>> zeros(2, torch.device("cpu")).tolist()
        [0.0, 0.0]
    """
    return empty(numel, device).zero_()


def empty_like(x: Tensor) -> Tensor:
    """A contiguous tensor of the same shape, format and device, to be written to.

    Example:
        >>> empty_like(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if not x.is_cpu or x.dtype != torch.float32 or 4 * x.numel() < _LEAST:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return tensor_of(empty_array(x.numel(), np.float32)).view(x.shape)


def copy_of(x: Tensor) -> Tensor:
    """A contiguous copy on the same device.

    Example:
        >>> copy_of(torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    return empty_like(x).copy_(x)


def has_streams(device: torch.device) -> bool:
    """Whether a device works while the program goes on, in streams that events order.

    Example:
        >>> has_streams(torch.device("cuda")), has_streams(CPU)
        (True, False)
    """
    return device.type in _STREAMED


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; itself if it lies there.

    Where there are streams the program goes on meanwhile: what is then done on the current one comes after the copy.

    Example:
        >>> to_device(torch.ones(2), torch.device("meta")).device
        device(type='meta')
    """
    if tensor.device == device:  # nearly always, and asked many times a message
        return tensor
    if has_streams(device) and tensor.is_cpu and tensor.numel():
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def divisor_of(x: Tensor, divisor: float) -> Tensor:
    """The number that ``x`` is to be divided by: CUDA would multiply by the reciprocal of a plain one, with other bits.

    Example:
        >>> torch.tensor([1.0, 3.0]) / divisor_of(torch.ones(2), 3)
        tensor([0.3333, 1.0000])
    """
    return torch.full((), divisor, dtype=x.dtype, device=x.device)


def over(x: Tensor, divisor: float) -> Tensor:
    """``x / divisor``, rounded once on every device.

    Example:
        >>> over(torch.tensor([1.0, 3.0]), 3.0).tolist()[1]
        1.0
    """
    return x / divisor if x.is_cpu else x / divisor_of(x, divisor)


def blocks(x: Tensor) -> tuple[Tensor, ...]:
    """Views of a vector, one after another, that the cache holds: for several operations on each in turn.

    Example:
        >>> [len(block) for block in blocks(torch.zeros(_BLOCK + 1))] == [_BLOCK, 1]
        True
    """
    parts: tuple[Tensor, ...] = torch.split(x, _BLOCK)
    return parts


def release() -> None:
    """Leave all memory that is kept here and not in use to the system.

    Example:
        >>> release()
        >>> _POOL.num_free_bytes()
        0
    """
    _POOL.release()


def _mapped(num_bytes: int) -> memoryview:
    """Memory of its own from the system, in huge pages where it has them.

    From the allocator it would lie among gradients, which come and go at every step: the holes between took one to two
    times the model's memory (30 layers of 4 M parameters, top-k).
    """
    if sys.platform == "win32":
        return memoryview(mmap.mmap(-1, num_bytes))
    # Private: unless told otherwise, a child of fork would write to its parent's vectors.
    block = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel without them; it is only advice
            block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)


def _aligned(num_bytes: int) -> memoryview:
    block = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + num_bytes].data


def _size_class(num_bytes: int) -> int:
    """The next of the sizes that are 8 to 15 times a power of two: at most an eighth more."""
    unit = 1 << (num_bytes.bit_length() - 4)
    return -(-num_bytes // unit) * unit


_POOL = Pool()
