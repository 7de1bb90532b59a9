"""The mean of many sparse vectors that together fill a vector: block by block, while a block is in the cache.

Added one after another, every vector reaches once more over the whole sum, and each of its entries waits for memory. Here
the places of each vector are cut once at the borders of blocks; then every block takes what each vector has there, in the
order given, before the next block is begun.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import ascend_within, check_target, out_of_order
from thinwire.kernels.jit.compiling import carray, helper, kernel
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import first_from, pointer, seen_as
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.sparse.scatter import check_pairs

_SHIFT = 16
BLOCK = 1 << _SHIFT
"""Entries whose sums the second cache holds, and whose places take two bytes each."""


class Pile:
    def __init__(self, numel, room):
        self.numel, self.room, self.used = numel, room, 0
        self._places, self._values = empty_array(room, np.uint16), empty_array(room, np.float32)
        self._begins = []

    def cut(self, indices):
        places = array_of(indices)
        begins = np.empty(-(-self.numel // BLOCK) + 1, np.int64)
        if not _cut(places, self.numel, self._places[self.used:self.used + places.size], begins):
            raise out_of_order(self.numel)
        begins += self.used
        self._begins.append(begins)
        values = self._values[self.used:self.used + places.size]
        self.used += places.size
        return tensor_of(values)

    def add_to(self, out, fresh, divisor):
        begins = np.stack(self._begins)
        total = array_of(out)
        calls = [(begins, self._places, self._values, total, start, stop, fresh, np.float32(divisor)) for start, stop in shares(total.size, BLOCK)]
        return all(run(_add, calls))


@kernel
def _cut(indices: Any, numel: int, places: Any, begins: Any) -> bool:
    prefer_wide_vectors()
    if not ascend_within(indices, numel):
        return False
    for j in range(indices.size):
        places[j] = np.uint16(indices[j] & (BLOCK - 1))
    at = np.int64(0)
    step = max(1, indices.size // begins.size)
    for block in range(begins.size):
        least = block << _SHIFT
        # Gallop from the last border: indices are spread about evenly.
        low = at
        while at < indices.size and indices[at] < least:
            low = at + 1
            at += step
        at = min(at, indices.size)
        while low < at:
            middle = (low + at) >> 1
            if indices[middle] < least:
                low = middle + 1
            else:
                at = middle
        begins[block] = at
    return True


@kernel
def _add(begins: Any, places: Any, values: Any, out: Any, start: int, stop: int, fresh: bool, divisor: Any) -> bool:
    most = np.uint32(0)
    for first in range(start, stop, BLOCK):
        sums = out[first : min(first + BLOCK, stop)]
        if fresh:
            sums[:] = 0.0
        block = first >> _SHIFT
        for each in range(begins.shape[0]):
            for j in range(begins[each, block], begins[each, block + 1]):
                sums[np.uint64(places[np.uint64(j)])] += values[np.uint64(j)]
        most = max(most, _divide(sums, divisor))
    return most < np.uint32(0x7F800000)


@helper
def _divide(sums: Any, divisor: Any) -> Any:
    prefer_wide_vectors()
    most = np.uint32(0)
    bits = seen_as(sums, np.uint32)
    for j in range(sums.size):
        sums[j] /= divisor
    for j in range(sums.size):
        most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
    return most
