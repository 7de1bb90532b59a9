"""Many sparse vectors that together fill a long one, added up block by block, while a block is in the cache.

Added one after another, every vector reaches over the whole sum once more, and most of its entries wait for memory.
Here the places of each are cut at the borders of blocks; then every block takes what each vector has there, in the
order given, before the next one begins.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import ascend_within, check_indices, check_target, out_of_order
from thinwire.kernels.flat.finite import INFINITY_BITS, divide_block, divide_finite_torch
from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import first_from
from thinwire.kernels.jit.threads import run, shares

_SHIFT = 16
BLOCK = 1 << _SHIFT
"""Entries of a block: their sums fit the second cache, and a place among them takes two bytes."""


def num_borders(numel: int) -> int:
    """One more than the blocks of a vector.

    Example:
        >>> num_borders(0), num_borders(65536), num_borders(65537)
        (1, 2, 3)
    """
    return -(-numel // BLOCK) + 1


def cut_places(indices: Tensor, numel: int, places: Tensor) -> Tensor:
    """Write where each index lies in its block, its low 16 bits; how many indices lie before each border.

    Args:
        indices: int64 ``[k]``, strictly ascending, in ``[0, numel)``.
        numel: ``d``.
        places: int16 ``[k]``, contiguous: bits, not numbers.

    Returns:
        int64 ``[num_borders(d)]``, from 0 to ``k``.

    Raises:
        ConfigError: indices or places that are not as described.

    Example:
        >>> places = torch.empty(3, dtype=torch.int16)
        >>> cut_places(torch.tensor([5, 65536, 65539]), 100_000, places).tolist(), places.tolist()
        ([0, 1, 3], [5, 0, 3])
    """
    check_indices(indices)
    if places.dtype != torch.int16 or places.shape != indices.shape or not places.is_contiguous():
        raise ConfigError(f"{indices.numel()} indices need as many int16, got {places.dtype} {tuple(places.shape)}")
    if not indices.is_cpu:
        return body_for(cut_places_torch, indices.device)(indices, numel, places)
    before = np.empty(num_borders(numel), np.int64)
    if not _cut(array_of(indices), numel, places.numpy(), before):
        raise out_of_order(numel)
    return tensor_of(before)


def cut_places_torch(indices: Tensor, numel: int, places: Tensor) -> Tensor:
    """:func:`cut_places` in torch operations, on any device."""
    if indices.numel() and (bool((indices.diff() <= 0).any()) or indices[0] < 0 or indices[-1] >= numel):
        raise out_of_order(numel)
    places.copy_((indices + 32768) % BLOCK - 32768)  # the same bits, as the number that int16 says by them
    return torch.searchsorted(
        indices, BLOCK * torch.arange(num_borders(numel), dtype=torch.int64, device=indices.device)
    )


def add_blocks(before: Tensor, places: Tensor, values: Tensor, out: Tensor, fresh: bool, divisor: int) -> bool:
    """``out = (out + vector 0 + vector 1 + ...) / divisor``, rounded to f32 after each; whether all of it is finite.

    Args:
        before: int64 ``[n, num_borders(d)]``: of each vector, which of the places are those of each block.
        places: int16 ``[k]``, as :func:`cut_places` writes them, those of all vectors.
        values: f32 ``[k]``, what lies there.
        out: contiguous f32 ``[d]``; changed in place.
        fresh: take zeros for what is in ``out``.
        divisor: a positive integer below ``2**24``, so that f32 holds it exactly.

    Raises:
        ConfigError: shapes, dtypes or a divisor that are not as described.

    Example:
        >>> places, out = torch.tensor([1, 0, 1], dtype=torch.int16), torch.empty(2)
        >>> before = torch.tensor([[0, 1], [1, 3]])
        >>> add_blocks(before, places, torch.tensor([4.0, 1.0, 2.0]), out, True, 2), out.tolist()
        (True, [0.5, 3.0])
    """
    _check(before, places, values, out, divisor)
    if not out.is_cpu:
        return body_for(add_blocks_torch, out.device)(before, places, values, out, fresh, divisor)
    total = array_of(out)
    shared = (array_of(before), array_of(places), array_of(values), total, fresh, np.float32(divisor))
    return all(run(_add, [(*shared, start, stop) for start, stop in shares(total.size, BLOCK)]))


def add_blocks_torch(before: Tensor, places: Tensor, values: Tensor, out: Tensor, fresh: bool, divisor: int) -> bool:
    """:func:`add_blocks` in torch operations, on any device."""
    if fresh:
        out.zero_()
    starts = BLOCK * torch.arange(before.shape[1] - 1, dtype=torch.int64, device=out.device)
    for borders in before:
        start, stop = int(borders[0]), int(borders[-1])
        low = places[start:stop].to(torch.int64) % BLOCK
        out.index_add_(0, starts.repeat_interleave(borders.diff()) + low, values[start:stop])
    return divide_finite_torch(out, divisor)


def _check(before: Tensor, places: Tensor, values: Tensor, out: Tensor, divisor: int) -> None:
    check_target(out)
    if not 1 <= divisor < 2**24:
        raise ConfigError(f"a divisor of {divisor} was given; it must be 1 to 2**24 - 1")
    if before.dtype != torch.int64 or before.dim() != 2 or before.shape[1] != num_borders(out.numel()):
        raise ConfigError(f"{num_borders(out.numel())} int64 a vector are needed, got {tuple(before.shape)}")
    if places.dtype != torch.int16 or values.dtype != torch.float32 or places.shape != values.shape:
        raise ConfigError(f"as many float32 as int16 are needed, got {tuple(values.shape)} and {tuple(places.shape)}")
    if before.numel() and not 0 <= int(before.min()) <= int(before.max()) <= places.numel():
        raise ConfigError(f"what lies before the borders must be 0 to {places.numel()}, the number of places")
    rest = out.numel() % BLOCK
    if rest:  # in all other blocks every place of two bytes is one
        ends = [places[start:stop] for start, stop in before[:, -2:].tolist()]
        last = max((int((each.to(torch.int64) % BLOCK).max()) for each in ends if each.numel()), default=0)
        if last >= rest:
            raise ConfigError(f"place {last} was given in the last block, which has {rest} entries")


@kernel
def _cut(indices: Any, numel: int, places: Any, before: Any) -> bool:
    prefer_wide_vectors()
    if not ascend_within(indices, numel):
        return False
    for j in range(indices.size):
        places[j] = np.int16(indices[j])
    found = np.int64(0)
    step = max(1, indices.size // before.size)
    for border in range(before.size):
        least = border << _SHIFT
        # Indices are often spread about evenly: the next border is looked for at the mean distance.
        low = found
        while found < indices.size and indices[found] < least:
            low = found + 1
            found += step
        found = low + first_from(indices[low : min(found, indices.size)], least)
        before[border] = found
    return True


@kernel
def _add(
    before: Any, places: Any, values: Any, out: Any, fresh: bool, divisor: Any, start: int, stop: int
) -> bool:  # fmt: skip
    """Entries ``start``, a multiple of ``BLOCK``, to ``stop - 1``."""
    most = np.uint32(0)
    for first in range(start, stop, BLOCK):
        sums = out[first : min(first + BLOCK, stop)]
        if fresh:
            sums[:] = 0.0
        block = first >> _SHIFT
        for each in range(before.shape[0]):
            for j in range(before[each, block], before[each, block + 1]):
                # As unsigned numbers they are not compared with zero.
                number = np.uint64(j)
                sums[np.uint64(places[number]) & np.uint64(BLOCK - 1)] += values[number]
        most = max(most, divide_block(sums, divisor))
    return bool(most < np.uint32(INFINITY_BITS))
