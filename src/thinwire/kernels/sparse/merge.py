"""The mean of a few sparse vectors, as a sparse vector: in time that goes with what was sent, not with the length.

Adding each vector to zeros, dividing and writing out are passes over memory; what is here stays in the cache: the
entries of all vectors that lie in one short block of places are added up there, and those that any of them has are
taken out in order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU, array_of, empty_array, over, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_ascending
from thinwire.kernels.jit.compiling import carray, helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import TAKEN_AT_ONCE, empty, first_from, pointer, seen_as, take_marked, zeros
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.sparse.scatter import check_pairs

_BLOCK = 4096
"""Places whose sums and marks are kept in the cache nearest to the processor."""


def unite_means(
    indices: Sequence[Tensor], values: Sequence[Tensor], numel: int, divisor: int
) -> tuple[Tensor, Tensor, bool]:
    """The sum of sparse vectors over ``divisor``: each sum from 0 in the order given, rounded to f32 every time.

    Args:
        indices: of each vector, int64 ``[k]``, strictly ascending, in ``[0, numel)``.
        values: of each vector, f32 ``[k]``.
        numel: ``d``.
        divisor: a positive integer below ``2**24``, so that f32 holds it exactly.

    Returns:
        The places that any of them has, int64, ascending; the means there, f32; and whether all are finite.

    Raises:
        ConfigError: indices, values or a divisor that are not as described.

    Example:
        >>> one, other = torch.tensor([1, 3]), torch.tensor([0, 3])
        >>> places, means, finite = unite_means([one, other], [torch.ones(2), torch.ones(2)], 5, 2)
        >>> places.tolist(), means.tolist(), finite
        ([0, 1, 3], [0.5, 0.5, 1.0], True)
    """
    _check(indices, values, numel, divisor)
    if not all(each.is_cpu for each in (*indices, *values)):
        return body_for(unite_means_torch, indices[0].device)(indices, values, numel, divisor)
    # The kernel is given addresses: what they belong to must live until it is done.
    sources = [(array_of(place), array_of(value)) for place, value in zip(indices, values, strict=True)]
    for places, _ in sources:
        check_ascending(places, numel)
    addresses = np.array([(places.ctypes.data, found.ctypes.data, places.size) for places, found in sources], np.int64)
    addresses = addresses.reshape(-1, 3)
    total = int(addresses[:, 2].sum())
    borders = shares(numel, _BLOCK)
    room = total + TAKEN_AT_ONCE * len(borders)
    united, means = empty_array(room, np.int64), empty_array(room, np.float32)
    calls = [(addresses, united, means, np.float32(divisor), number, *border) for number, border in enumerate(borders)]
    found = run(_unite, calls)
    end = found[0][1]
    for start, stop, _ in found[1:]:
        united[end : end + stop - start] = united[start:stop]
        means[end : end + stop - start] = means[start:stop]
        end += stop - start
    return tensor_of(united[:end]), tensor_of(means[:end]), all(finite for _, _, finite in found)


def unite_means_torch(
    indices: Sequence[Tensor], values: Sequence[Tensor], numel: int, divisor: int
) -> tuple[Tensor, Tensor, bool]:
    """:func:`unite_means` in torch operations, on any device."""
    _check(indices, values, numel, divisor)
    if not indices:
        return torch.empty(0, dtype=torch.int64, device=CPU), torch.empty(0, dtype=torch.float32, device=CPU), True
    united = torch.unique(torch.cat(list(indices)))
    sums = torch.zeros(united.numel(), dtype=torch.float32, device=united.device)
    for places, found in zip(indices, values, strict=True):
        # A vector has a place once, so that the order of additions is that of the vectors on any device.
        sums[torch.searchsorted(united, places)] += found
    means = over(sums, divisor)
    return united, means, bool(torch.isfinite(means).all())


def _check(indices: Sequence[Tensor], values: Sequence[Tensor], numel: int, divisor: int) -> None:
    if not 1 <= divisor < 2**24:
        raise ConfigError(f"a divisor of {divisor} was given; it must be 1 to 2**24 - 1")
    if numel < 0 or len(indices) != len(values):
        raise ConfigError(
            f"{len(indices)} vectors of indices and {len(values)} of values were given for {numel} places"
        )
    for places, found in zip(indices, values, strict=True):
        check_pairs(places, found)


@kernel
def _unite(addresses: Any, united: Any, means: Any, divisor: Any, number: int, start: int, stop: int) -> Any:
    """Part ``number``, places ``start`` to ``stop - 1``: where what is found begins and ends, and if it is finite."""
    num = addresses.shape[0]
    cursors = empty(num, np.int64)
    begin = TAKEN_AT_ONCE * number
    for each in range(num):
        size = addresses[each, 2]
        cursors[each] = first_from(carray(pointer(addresses[each, 0]), (size,), np.int64), start)
        # What all of them have before this part is the most that goes before what is found here.
        begin += cursors[each]
    sums = zeros(_BLOCK, np.float32)
    marks = zeros(_BLOCK // 64, np.uint64)
    written = begin
    for base in range(start, stop, _BLOCK):
        end = min(base + _BLOCK, stop)
        for each in range(num):
            size = addresses[each, 2]
            places = carray(pointer(addresses[each, 0]), (size,), np.int64)
            values = carray(pointer(addresses[each, 1]), (size,), np.float32)
            cursor = cursors[each]
            while cursor < size and places[cursor] < end:
                place = np.uint64(places[cursor] - base)
                sums[place] += values[cursor]
                marks[place >> np.uint64(6)] |= np.uint64(1) << (place & np.uint64(63))
                cursor += 1
            cursors[each] = cursor
        written = _take_out(marks, sums, base, united, means, written)
    largest = np.uint32(0)
    bits = seen_as(means, np.uint32)
    for j in range(begin, written):
        means[j] /= divisor
    for j in range(begin, written):
        largest = max(largest, bits[j] & np.uint32(0x7FFFFFFF))
    return begin, written, largest < np.uint32(0x7F800000)


@helper
def _take_out(marks: Any, sums: Any, base: int, united: Any, means: Any, written: int) -> int:
    """The marked places of a block and their sums, from ``written`` on; marks and sums are 0 afterwards."""
    for word in range(marks.size):
        written = take_marked(marks[word], 64 * word, base, sums, united, means, written)
    sums[:] = 0.0
    marks[:] = 0
    return written
