"""The mean of many payloads: those of one kind one after another are added up block by block, while it is in the cache.

Every entry is the sum in the order given, rounded to f32 each time, as if each payload were added to the whole vector.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU, array_of, empty, empty_array, tensor_of
from thinwire.kernels.flat.finite import divide_finite
from thinwire.kernels.quantize.codes_mean import WIDEST, Codes, add_codes
from thinwire.kernels.quantize.signs_add import write_signs
from thinwire.kernels.sparse.blocks import add_blocks, cut_places
from thinwire.payloads.base import Payload
from thinwire.payloads.entries import entries, num_entries
from thinwire.payloads.levels import Levels
from thinwire.payloads.signs import Signs
from thinwire.payloads.sparse import Sparse

_FEW = 8
"""A payload of at most one entry in so many is sparse."""

_LEAST = 1 << 19
"""Entries from which on sparse ones are cut into blocks; the cache holds a shorter sum as a whole."""


def mean_of(payloads: Iterable[Payload], numel: int, divisor: int, device: torch.device = CPU) -> tuple[Tensor, bool]:
    """The sum of vectors from 0 in the order given, over ``divisor``; and whether it is finite.

    A payload is let go of when it has been added or copied. Copies take at most as much memory as the vector.

    Args:
        payloads: each of ``numel`` entries, on ``device``.
        numel: ``d``.
        divisor: a positive integer below ``2**24``, so that f32 holds it exactly.
        device: where the mean is made.

    Returns:
        f32 ``[d]``, freshly allocated.

    Raises:
        ConfigError: another divisor, or what ``add_to`` of a payload raises.

    Example:
        >>> bits, one = torch.tensor([0b01], dtype=torch.uint8), torch.tensor([1])
        >>> from thinwire.layout import Segments
        >>> from thinwire.payloads import Dense
        >>> few = Sparse(2, one, Dense(torch.tensor([3.0])))
        >>> mean_of([few, Signs(bits, torch.tensor([1.0]), Segments.whole(2))], 2, 2)
        (tensor([-0.5000,  2.0000]), True)
    """
    total = empty(numel, device)
    batch: _Batch | None = None
    fresh = True
    for payload in payloads:
        if batch is None or not batch.takes(payload):
            if batch is not None:
                batch.add_to(total, fresh, None)
                fresh = False
            batch = _batch_for(payload, numel, device)
        batch.take(payload)
    return total, (batch or _Single()).add_to(total, fresh, divisor)


class _Batch(Protocol):
    """Payloads of one kind, to be added in one pass."""

    def takes(self, payload: Payload) -> bool:
        """Whether this payload may be the next."""
        ...

    def take(self, payload: Payload) -> None:
        """Keep what is to be added."""
        ...

    def add_to(self, total: Tensor, fresh: bool, divisor: int | None) -> bool:
        """Add all to ``total``, or to zeros in its place, then divide unless more follows; whether it is finite."""
        ...


def _batch_for(payload: Payload, numel: int, device: torch.device) -> _Batch:
    """An empty one that takes the payload."""
    if device == CPU:
        if _is_sparse(payload):
            return _Sparse(numel)
        if _is_coded(payload):
            return _Coded(numel)
    return _Single()


def _is_sparse(payload: Payload) -> bool:
    return payload.numel >= _LEAST and _FEW * num_entries(payload) <= payload.numel


def _is_coded(payload: Payload) -> bool:
    return isinstance(payload, Signs) or (isinstance(payload, Levels) and 1 <= payload.width <= WIDEST)


class _Single:
    """One payload of any kind, or none."""

    def __init__(self) -> None:
        self._payload: Payload | None = None

    def takes(self, payload: Payload) -> bool:
        return self._payload is None

    def take(self, payload: Payload) -> None:
        self._payload = payload

    def add_to(self, total: Tensor, fresh: bool, divisor: int | None) -> bool:
        if fresh:
            total.zero_()
        if self._payload is not None:
            self._payload.add_to(total)
        return divisor is None or divide_finite(total, divisor)


class _Sparse:
    """Payloads of few entries, as places in blocks and values: six bytes an entry where they were twelve."""

    def __init__(self, numel: int) -> None:
        self._numel = numel
        room = 2 * numel // 3  # in all as many bytes as the vector
        # The system gives the memory that is written to, no more.
        self._places = tensor_of(empty_array(room, np.int16))
        self._values = tensor_of(empty_array(room, np.float32))
        self._before: list[Tensor] = []
        self._num = 0

    def takes(self, payload: Payload) -> bool:
        return _is_sparse(payload) and self._num + num_entries(payload) <= self._places.numel()

    def take(self, payload: Payload) -> None:
        stop = self._num + num_entries(payload)
        places, values = self._places[self._num : stop], self._values[self._num : stop]
        match payload:
            case Sparse(_, indices, Signs(bits, scales, segments)):
                write_signs(bits, scales, segments.offsets(), values)
            case _:
                indices, kept = entries(payload)
                # Not torch's copy: its threads would go on waiting, on the processors that the kernels need.
                np.copyto(values.numpy(), array_of(kept))
        self._before.append(cut_places(indices, self._numel, places) + self._num)
        self._num = stop

    def add_to(self, total: Tensor, fresh: bool, divisor: int | None) -> bool:
        places, values = self._places[: self._num], self._values[: self._num]
        return add_blocks(torch.stack(self._before), places, values, total, fresh, 1 if divisor is None else divisor)


class _Coded:
    """Levels and signs; packed ones are part of their messages and take no memory."""

    def __init__(self, numel: int) -> None:
        self._num_bytes = 4 * numel
        self._parts: list[Codes] = []

    def takes(self, payload: Payload) -> bool:
        return _is_coded(payload) and (self._num_bytes > 0 or not self._parts)

    def take(self, payload: Payload) -> None:
        match payload:
            case Signs(bits, scales, segments):
                self._parts.append(Codes(bits, scales, segments.offsets()))
            case Levels():
                codes, offsets = payload.codes, payload.segments.offsets()
                self._parts.append(Codes(codes, payload.units(), offsets, payload.num_levels))
                self._num_bytes -= 0 if payload.coding == "packed" else codes.nbytes

    def add_to(self, total: Tensor, fresh: bool, divisor: int | None) -> bool:
        return add_codes(self._parts, total, fresh, 1 if divisor is None else divisor)
