"""Reads a message field by field; who listens hears what each field is called and says."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVarTuple

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU, tensor_of
from thinwire.errors import WireError
from thinwire.kernels.bitpack.bits import num_packed_bytes
from thinwire.payloads.base import Payload

MAX_NUMEL = 2**48
"""Longest vector that a message may declare."""

MAX_OPERATIONS = 1024
"""Of which a message may cost, for each entry of its vector and for each byte of its own: a few bytes could say that a
long vector is to be transformed or added up for hours."""

KEY_NUM_BYTES = 8
"""Of a key."""

_OF_SIZE = {1: np.uint8, 2: np.int16, 8: np.int64}
"""What numbers of so many bytes are read as, other than f32; numpy does not know every dtype."""

_FORMATS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}

_Given = TypeVarTuple("_Given")

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Listener(Protocol):
    """Hears what a reader reads."""

    end: int
    """Of the last field; 0 before the first."""

    def field(self, name: str, end: int, value: str) -> None:
        """The bytes from the end of the last field to this ``end`` are the next."""
        ...

    def begin_body(self, name: str) -> None:
        """The fields from here on are those of a body inside."""
        ...

    def end_body(self) -> None:
        """The body inside ends after the last field, or breaks there."""
        ...


@dataclasses.dataclass(slots=True)
class Reader:
    """A place in a message; every method reads on from there, or raises WireError.

    A field that consists of several numbers is read without names, and named by :meth:`field` at its end.

    Args:
        data: a message without its checksum, or a piece of one.
        read_body: reads the kind and the fields of a body, this one and those inside.
        max_numel: the longest vector that the receiver accepts.
        kinds: numbers of the kinds of bodies that it accepts, all if not given.
        listener: hears what is read; mostly nobody does.
        position: of the next byte.
        depth: bodies that have begun and not ended.
        num_operations: what the vector will cost, as far as it was read.
    """

    data: Bytes
    read_body: Callable[["Reader"], Payload]
    max_numel: int = MAX_NUMEL
    kinds: frozenset[int] | None = None
    listener: Listener | None = None
    position: int = 0
    depth: int = 0
    num_operations: int = 0
    _view: memoryview = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Single bytes are read through it: an array would make a numpy number of each.
        self._view = self.data.data

    @property
    def num_left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.position

    def field(self, name: str, *said: object) -> None:
        """Name what was read since the last field, for the listener; ``said`` are words and numbers, as for print."""
        if self.listener is not None:
            self.listener.field(name, self.position, " ".join(map(str, said)))

    def bits_each(self, start: int, count: int, what: str) -> str:
        """How many bits each of ``count`` takes of what was read from ``start`` on, for :meth:`field`."""
        return f"{8 * (self.position - start) / count:.4g} bits {what}" if count else "none"

    def byte(self, name: str = "", meanings: Mapping[int, str] | None = None) -> int:
        """The next byte; the listener is told what it means."""
        position = self.position
        if position >= len(self._view):
            raise WireError("the message ends early: 1 bytes should follow, 0 do")
        self.position = position + 1
        number = self._view[position]
        if self.listener is not None and name:
            self.field(name, number if meanings is None else f"{number}: {meanings.get(number, 'unknown')}")
        return number

    def varint(self, name: str = "") -> int:
        """The next integer, below ``2**63``, in its shortest form."""
        position = self.position
        if position < len(self._view) and self._view[position] < 0x80:
            self.position = position + 1
            number = self._view[position]
        else:
            number = self._long_varint()
        if self.listener is not None and name:
            self.field(name, number)
        return number

    def numel(self) -> int:
        """The next integer as the length of a vector."""
        number = self.varint()
        self.check_numel(number)
        if self.listener is not None:
            self.field("numel", number)
        return number

    def key(self) -> int:
        """The next key."""
        key = int.from_bytes(self.take(KEY_NUM_BYTES).tobytes(), "little")
        if self.listener is not None:
            self.field("key", f"{key:016x}")
        return key

    def tensor(self, name: str, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The next ``count`` numbers: a view of the message if they lie at a multiple of their size, else a copy."""
        if count == 0:
            # An empty array's strides are arbitrary, and torch refuses to reinterpret some of them.
            tensor = _nothing(dtype)
        else:
            end = self._end_of(count * dtype.itemsize)
            read_as = np.float32 if dtype == torch.float32 else _OF_SIZE[dtype.itemsize]
            numbers = np.frombuffer(self._view, read_as, count, self.position)
            self.position = end
            # A copy is numpy's, see `tensor_of`.
            tensor = tensor_of(numbers if numbers.flags.aligned else numbers.copy())
            tensor = tensor if tensor.dtype == dtype else tensor.view(dtype)
        if self.listener is not None and name:
            self.field(name, count, f"numbers, {_FORMATS[dtype]}")
        return tensor

    def packed(self, count: int, width: int) -> Tensor:
        """The next ``count`` codes of ``width`` bits, packed; see :meth:`check_padding`."""
        return self.tensor("", num_packed_bytes(count, width), torch.uint8)

    def coded(self, decode_prefix: Callable[[Tensor, *_Given], tuple[Tensor, int]], *given: *_Given) -> Tensor:
        """What ``decode_prefix`` finds in all that is left, of which it says how many bytes it took."""
        numbers, num_bytes = decode_prefix(torch.from_numpy(self.data[self.position :]), *given)
        self.take(num_bytes)
        return numbers

    def body(self, name: str, number: int | None = None) -> Payload:
        """The next body, one inside this; ``number`` tells it from others of that name."""
        if self.listener is None:
            return self.read_body(self)
        self.listener.begin_body(name if number is None else f"{name} {number}")
        try:
            return self.read_body(self)
        finally:
            self.listener.end_body()

    def take(self, num_bytes: int) -> Bytes:
        """The next bytes, not copied."""
        end = self._end_of(num_bytes)
        taken: Bytes = self.data[self.position : end]
        self.position = end
        return taken

    def check_padding(self, num_bits: int, what: str) -> None:
        """Refuse a 1 after the last of ``num_bits`` in the byte read last; ``what`` is what the bits stand for."""
        if num_bits % 8 and self._view[self.position - 1] >> (num_bits % 8):
            raise WireError(f"the bits after the last {what} are not zero")

    def check_numel(self, numel: int) -> None:
        """Refuse a vector that is longer than the receiver accepts."""
        if numel > self.max_numel:
            raise WireError(f"a vector of {numel} entries is declared; at most {self.max_numel} are accepted")

    def check_end(self, numel: int, num_bytes: int) -> None:
        """Refuse what goes on, or costs out of proportion to the ``numel`` of its vector and its ``num_bytes``."""
        if self.position < len(self._view):
            raise WireError(f"{self.num_left} bytes follow the end of the payload")
        if self.num_operations > MAX_OPERATIONS * (numel + num_bytes):
            raise WireError(
                f"{self.num_operations} operations are declared for a vector of {numel} entries in {num_bytes} bytes; "
                f"at most {MAX_OPERATIONS} for each entry and each byte are accepted"
            )

    def _end_of(self, num_bytes: int) -> int:
        end = self.position + num_bytes
        if end > len(self._view):
            raise WireError(f"the message ends early: {num_bytes} bytes should follow, {self.num_left} do")
        return end

    def _long_varint(self) -> int:
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


@functools.lru_cache(maxsize=8)
def _nothing(dtype: torch.dtype) -> Tensor:
    """One for all: a message of three bytes a part would otherwise take hundreds for each."""
    return torch.empty(0, dtype=dtype, device=CPU)
