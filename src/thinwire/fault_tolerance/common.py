"""What all participants have in common, as bytes for one that comes back: text and numbers, never pickled."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ProtocolError

_LENGTH = struct.Struct("<Q")
_MOST_HEADER_NUM_BYTES = 1 << 24
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8, torch.int16,
        torch.int32, torch.int64,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Applied:
    """The last exchange in which the message of a participant counted.

    Args:
        attempt: its name.
        norm: of what the participant owed then: its residual, divided by the number of participants.
    """

    attempt: str
    norm: float


@dataclass(frozen=True, slots=True)
class Common:
    """What all have in common.

    Args:
        counters: of :meth:`thinwire.worker.rounds.Rounds.common_state`.
        tensors: of the same.
        rest: frozen parameters and buffers of whoever tells it, by name.
        applied: by participants' names.
    """

    counters: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    rest: Mapping[str, Tensor]
    applied: Mapping[str, Applied]

    def num_bytes(self) -> int:
        """Of the tensors."""
        return sum(tensor.nbytes for tensor in (*self.tensors.values(), *self.rest.values()))

    def to_bytes(self) -> Tensor:
        """For :meth:`of_bytes`: uint8 ``[n]`` on the CPU."""
        parts = [tensor.detach().cpu().contiguous() for tensor in (*self.tensors.values(), *self.rest.values())]
        header = {
            "counters": dict(self.counters),
            "tensors": _described(self.tensors),
            "rest": _described(self.rest),
            "applied": {name: [each.attempt, each.norm] for name, each in self.applied.items()},
        }
        text = json.dumps(header).encode()
        if len(text) > _MOST_HEADER_NUM_BYTES:
            raise ProtocolError(f"names and shapes of this model take {len(text)} bytes, at most 16 MB")
        head = torch.frombuffer(bytearray(_LENGTH.pack(len(text)) + text), dtype=torch.uint8)
        return torch.cat([head, *(part.view(-1).view(torch.uint8) for part in parts)])

    @staticmethod
    def of_bytes(data: Tensor) -> "Common":
        """What another participant has sent.

        Raises:
            ProtocolError: it is nothing of the kind.
        """
        raw = data.numpy().tobytes()
        try:
            (length,) = _LENGTH.unpack_from(raw)
            if length > min(_MOST_HEADER_NUM_BYTES, len(raw) - _LENGTH.size):
                raise ProtocolError(f"the common state announces a header of {length} bytes")
            header = json.loads(raw[_LENGTH.size : _LENGTH.size + length])
            place = _LENGTH.size + length
            tensors, place = _read(header["tensors"], raw, place)
            rest, place = _read(header["rest"], raw, place)
            applied = {str(name): Applied(str(each[0]), float(each[1])) for name, each in header["applied"].items()}
            counters = dict(header["counters"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
            raise ProtocolError(f"the common state of another participant cannot be read: {error}") from error
        if place != len(raw):
            raise ProtocolError(f"the common state of another participant has {len(raw) - place} bytes too many")
        return Common(counters, tensors, rest, applied)


def max_num_bytes(own: Common) -> int:
    """Of what another participant may send, whose model is the same."""
    return own.num_bytes() + _LENGTH.size + _MOST_HEADER_NUM_BYTES


def _described(tensors: Mapping[str, Tensor]) -> list[list[Any]]:
    return [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in tensors.items()]


def _read(described: Any, raw: bytes, place: int) -> tuple[dict[str, Tensor], int]:
    """Tensors from consecutive bytes, and where these end."""
    found: dict[str, Tensor] = {}
    for name, kind, shape in described:
        dtype, sizes = _DTYPES[kind], [int(size) for size in shape]
        if not isinstance(name, str) or any(size < 0 for size in sizes):
            raise ProtocolError(f"a tensor {name!r} of shape {shape} was announced")
        count = math.prod(sizes)
        num_bytes = count * dtype.itemsize
        if place + num_bytes > len(raw):
            raise ProtocolError(f"the common state ends within {name!r}")
        flat = torch.empty(0, dtype=dtype, device=CPU)
        if count:
            flat = torch.frombuffer(bytearray(raw[place : place + num_bytes]), dtype=dtype)
        found[name] = flat.view(sizes)
        place += num_bytes
    return found, place
