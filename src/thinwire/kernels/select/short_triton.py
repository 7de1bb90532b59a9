"""Kernels for the largest entries of short segments: one program for each, which holds all its entries in registers."""

from typing import Any

import triton
import triton.language as tl

from thinwire.kernels.flat.entries_triton import load_entries

ORIGIN = tl.constexpr(0)  # where the segment begins in the vector
SIZE = tl.constexpr(1)
COUNT = tl.constexpr(2)  # how many are wanted
PLACE = tl.constexpr(3)  # where they go in the results
SHORT_COLUMNS = tl.constexpr(4)


@triton.jit
def take_short(
    x: tl.tensor,
    residual: tl.tensor,
    decay: tl.tensor,
    out: tl.tensor,
    table: tl.tensor,
    indices: tl.tensor,
    values: tl.tensor,
    ADD: tl.constexpr,
    ENTRIES: tl.constexpr,
) -> None:
    """Add, store and select in one pass over memory. A segment has at most ``ENTRIES`` entries."""
    row = table + tl.program_id(0).to(tl.int64) * SHORT_COLUMNS
    count, numbers = tl.load(row + COUNT), tl.arange(0, ENTRIES)
    places = tl.load(row + ORIGIN) + numbers
    inside = numbers < tl.load(row + SIZE)
    u = load_entries(x, residual, decay, places, inside, ADD)
    if ADD:
        tl.store(out + places, u, mask=inside)
    if count > 0:
        magnitudes = tl.where(inside, magnitudes_of(u), -1)
        threshold = kth_magnitude(magnitudes, count)
        above = magnitudes > threshold
        equal = magnitudes == threshold
        ties = count - tl.sum(above.to(tl.int32), 0)
        chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= ties))
        targets = tl.load(row + PLACE) + tl.cumsum(chosen.to(tl.int32), 0) - 1
        tl.store(indices + targets, places, mask=chosen)
        tl.store(values + targets, u, mask=chosen)


@triton.jit
def add(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, out: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """``out = decay * residual + x``."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < numel
    tl.store(out + places, load_entries(x, residual, decay, places, inside, True), mask=inside)


@triton.jit
def magnitudes_of(entries: tl.tensor) -> Any:
    """The bits of ``|x|``: as whole numbers they order as the magnitudes do."""
    return entries.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def kth_magnitude(magnitudes: tl.tensor, count: tl.tensor) -> Any:
    """The largest number that at least ``count`` of them reach, bit by bit; all ones if that is 0.

    What is -1 is left out.
    """
    threshold = tl.full((), 0, tl.int32)
    for step in range(31):
        trial = threshold | (1 << (30 - step))
        threshold = tl.where(tl.sum((magnitudes >= trial).to(tl.int32), 0) >= count, trial, threshold)
    return threshold
