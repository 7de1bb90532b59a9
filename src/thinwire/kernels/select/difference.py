"""The largest entries of what a worker is to send, without a vector that holds it.

After local steps that is ``decay * residual + (reference - parameters)``, a sum of three vectors that are there anyway.
It is made in blocks that the cache holds; what reaches a bound is kept with its position.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import CPU, array_of, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.flatten import pieces_of
from thinwire.kernels.jit.compiling import carray, helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import empty, pointer, seen_as
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.select.kth_largest import kth_largest
from thinwire.kernels.select.segment import (
    BLOCK,
    ROOM,
    candidates_of,
    gather,
    num_lines,
    safe_rank,
    take_wanted,
)
from thinwire.kernels.select.top_k import top_k_entries

_STEP = 4 * BLOCK
"""Entries that are made at a time: each vector is read so far before the next one is."""


def top_k_of_difference(
    reference: Tensor, tensors: Sequence[Tensor], residual: Tensor, decay: float, count: int
) -> tuple[Tensor, Tensor]:
    """The ``count`` largest magnitudes of ``u = decay * residual + (reference - entries)``; of equal ones the lower.

    Difference, product and sum are each rounded to float32: positions and values are those of
    :func:`thinwire.kernels.select.accumulate.accumulate_top_k` with the difference as its first vector.

    Args:
        reference: contiguous f32 ``[d]``.
        tensors: contiguous f32 tensors of any shapes, ``d`` entries in all, one after another.
        residual: contiguous f32 ``[d]``.
        decay: factor on the residual; it is rounded to float32.
        count: 0 to ``d``.

    Returns:
        int64 ``[count]``, positions, ascending, and the f32 entries of ``u`` there.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> reference, residual = torch.ones(3), torch.tensor([0.0, 4.0, 0.0])
        >>> indices, values = top_k_of_difference(reference, [torch.zeros(1), torch.ones(2)], residual, 0.5, 1)
        >>> indices.tolist(), values.tolist()
        ([1], [2.0])
    """
    numel = _check(reference, tensors, residual)
    if not 0 <= count <= numel:
        raise ConfigError(f"{count} of {numel} entries were asked for; from 0 to all can be")
    if not reference.is_cpu:
        return body_for(top_k_of_difference_torch, reference.device)(reference, tensors, residual, decay, count)
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=CPU), torch.empty(0, dtype=torch.float32, device=CPU)
    vectors = pieces_of(tensors), array_of(reference), array_of(residual), np.float32(decay)
    bound = _sampled_bound(vectors, numel, count)
    found = _candidates(vectors, bound, numel, count)
    if sum(len(places) for places, _ in found) < count:  # the sample misled, which it does rarely
        found = _candidates(vectors, np.uint32(0), numel, count)
    places, values = (tensor_of(np.concatenate(each)) for each in zip(*found, strict=True))
    chosen, kept = top_k_entries(
        values, *(torch.tensor(each, dtype=torch.int64, device=CPU) for each in ([0, len(values)], [count]))
    )
    return places[chosen], kept


def top_k_of_difference_torch(
    reference: Tensor, tensors: Sequence[Tensor], residual: Tensor, decay: float, count: int
) -> tuple[Tensor, Tensor]:
    """:func:`top_k_of_difference` in torch operations, on any device."""
    u = residual * decay + (reference - torch.cat([tensor.detach().reshape(-1) for tensor in tensors]))
    magnitude = (u.view(torch.int32) & 0x7FFFFFFF).neg()
    indices = magnitude.sort(stable=True).indices[:count].sort().values
    return indices, u[indices]


def add_difference(reference: Tensor, tensors: Sequence[Tensor], residual: Tensor, decay: float) -> None:
    """``residual = decay * residual + (reference - entries)``, in its place; arguments as above.

    Raises:
        ConfigError: as :func:`top_k_of_difference`.

    Example:
        >>> residual = torch.ones(2)
        >>> add_difference(torch.zeros(2), [torch.ones(2)], residual, 0.5)
        >>> residual.tolist()
        [-0.5, -0.5]
    """
    numel = _check(reference, tensors, residual)
    if not reference.is_cpu:
        body_for(add_difference_torch, reference.device)(reference, tensors, residual, decay)
        return
    vectors = pieces_of(tensors), array_of(reference), array_of(residual), np.float32(decay)
    run(_add_difference, [(*vectors, start, stop) for start, stop in shares(numel, BLOCK)])


def add_difference_torch(reference: Tensor, tensors: Sequence[Tensor], residual: Tensor, decay: float) -> None:
    """:func:`add_difference` in torch operations, on any device."""
    difference = reference - torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    residual.mul_(decay).add_(difference)


def _check(reference: Tensor, tensors: Sequence[Tensor], residual: Tensor) -> int:
    for entries in (reference, residual, *tensors):
        if entries.dtype != torch.float32 or not entries.is_contiguous() or entries.device != reference.device:
            raise ConfigError(
                f"vectors are contiguous float32 on {reference.device}, got {entries.dtype} of shape "
                f"{tuple(entries.shape)} and stride {entries.stride()} on {entries.device}"
            )
    lengths = reference.numel(), residual.numel(), sum(tensor.numel() for tensor in tensors)
    if len(set(lengths)) > 1 or reference.dim() != 1 or residual.dim() != 1:
        raise ConfigError(f"reference, residual and tensors have {lengths} entries; all must have as many")
    return reference.numel()


def _candidates(vectors: tuple[Any, ...], bound: Any, numel: int, count: int) -> list[tuple[Any, Any]]:
    """Of consecutive ranges, positions and entries of what may be among the largest."""
    ranges = shares(numel, BLOCK)
    # A range has no more of them than entries; where it has no room for another block, all but the largest go.
    rooms = [min(count + count // 2, stop - start) + ROOM + _STEP for start, stop in ranges]
    scratch = [arrays.empty_array(room + room // 2 + 33, np.int64) for room in rooms]
    calls = [
        (*vectors, bound, count, own, room, start, stop)
        for own, room, (start, stop) in zip(scratch, rooms, ranges, strict=True)
    ]
    found = []
    for own, room, num in zip(scratch, rooms, run(_gather_range, calls), strict=True):
        places, bits = candidates_of(own, room)
        found.append((places[:num], bits[:num].view(np.float32)))
    return found


def _sampled_bound(vectors: tuple[Any, ...], numel: int, count: int) -> Any:
    """A magnitude that, by a sample of short runs, at least ``count`` of all almost surely reach."""
    if numel < 4 * BLOCK:
        return np.uint32(0)
    size = 16 * num_lines(numel, count)
    sample = np.empty(size + 64, np.uint32)
    _sample(*vectors, sample)
    bound, _ = kth_largest(sample, size, safe_rank(size, count / numel), np.uint32(0))
    return np.uint32(bound)


@helper
def _read_difference(pieces: Any, piece: int, reference: Any, start: int, stop: int, out: Any) -> Any:
    """``reference - entries`` from ``start`` to ``stop - 1``; ``piece`` is one that begins no later. The last one."""
    addresses, ends = pieces[: pieces.size // 2], pieces[pieces.size // 2 :]
    at = start
    while at < stop:
        while ends[piece] <= at:
            piece += 1
        begin = ends[piece - 1] if piece > 0 else 0
        last = min(stop, ends[piece])
        source = carray(pointer(addresses[piece]), (ends[piece] - begin,), np.float32)[at - begin : last - begin]
        target, base = out[at - start : last - start], reference[at:last]
        for j in range(source.size):
            target[j] = base[j] - source[j]
        at = last
    return piece


@kernel
def _gather_range(
    pieces: Any, reference: Any, residual: Any, decay: Any, bound: Any, count: int, scratch: Any, capacity: int,
    start: int, stop: int,
) -> int:  # fmt: skip
    places, bits = candidates_of(scratch, capacity)
    block = empty(_STEP, np.float32)
    num, piece = 0, 0
    for first in range(start, stop, _STEP):
        last = min(first + _STEP, stop)
        piece = _read_difference(pieces, piece, reference, first, last, block)
        if num + _STEP > capacity:
            threshold, ties = kth_largest(bits, num, count, np.uint32(0))
            take_wanted(places, bits, 0, threshold, ties, places, bits, 0, count)
            num = count
            bound = np.uint32(threshold + np.uint32(1))
        size = last - first
        own = residual[first:last]
        found, _ = gather(block, own, decay, True, block, 0, size, bound, count, places, bits, num)
        for j in range(num, found):
            places[j] += first
        num = found
    return num


@kernel
def _add_difference(pieces: Any, reference: Any, residual: Any, decay: Any, start: int, stop: int) -> None:
    block = empty(_STEP, np.float32)
    piece = 0
    for first in range(start, stop, _STEP):
        last = min(first + _STEP, stop)
        piece = _read_difference(pieces, piece, reference, first, last, block)
        target = residual[first:last]
        for j in range(target.size):
            target[j] = target[j] * decay + block[j]


@kernel
def _sample(pieces: Any, reference: Any, residual: Any, decay: Any, sample: Any) -> None:
    """Magnitudes of as many entries as there is room for, but 64, in short runs that are spread out."""
    lines = (sample.size - 64) // 16
    stride = reference.size // 16 / lines
    line = empty(16, np.float32)
    # Any spread-out places will do: a bad sample costs time, never exactness.
    state = np.uint64(0x9E3779B97F4A7C15)
    piece = 0
    for number in range(lines):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        place = np.int64((number + np.float64(state >> np.uint64(40)) * 2.0**-24) * stride) * 16
        _read_difference(pieces, piece, reference, place, place + 16, line)
        while pieces[pieces.size // 2 + piece] <= place:
            piece += 1
        for j in range(16):
            line[j] = abs(residual[place + j] * decay + line[j])
            sample[16 * number + j] = seen_as(line, np.uint32)[j]
