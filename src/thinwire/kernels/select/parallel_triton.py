"""What is launched for the largest entries of every segment of a vector on CUDA. Nothing here waits for the device.

Short segments, of up to 4,096 entries, are read once: a program each adds, stores and selects. Of a longer one a
sample is read, then the whole twice: added, stored and counted, and once more to take the candidates, which are a
little more than the wanted entries. Where more than an eighth is wanted, or the sample misled, the sum is read six
times after it is stored: four histograms, a count, the selection.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.jit.launches import BLOCK, launch
from thinwire.kernels.select import long_triton as long
from thinwire.kernels.select.short_triton import take_short

SIZES = ((256, 1), (1024, 4), (4096, 8))
"""Entries that a program for a short segment holds, and its warps; one launch for each that is needed."""

_SAMPLED = 4096
_DENSE = 8


def select_all(
    x: Tensor, residual: Tensor, decay: float, add: bool, out: Tensor, offsets: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """``u = decay * residual + x`` to ``out`` if ``add``, else ``u = x``; the largest of each segment of ``u``.

    Args:
        x: f32 ``[d]``.
        residual: f32 ``[d]``; not read unless ``add``.
        decay: factor on the residual.
        add: whether there is a sum.
        out: contiguous f32 ``[d]``; may be ``x`` or ``residual``.
        offsets: int64 ``[s + 1]``, on the CPU.
        counts: int64 ``[s]``, on the CPU.

    Returns:
        int64 ``[counts.sum()]``, positions, ascending, and the f32 entries of ``u`` there.
    """
    starts, wanted = array_of(offsets), array_of(counts)
    sizes, places = np.diff(starts), np.cumsum(wanted) - wanted
    rows = np.stack((starts[:-1], sizes, wanted, places), 1)
    total = int(wanted.sum())
    indices = torch.empty(total, dtype=torch.int64, device=x.device)
    values = torch.empty(total, dtype=torch.float32, device=x.device)
    sources: tuple[Any, ...] = (x.contiguous(), residual.contiguous(), float(decay))
    least = 0
    for entries, num_warps in SIZES:
        own = rows[(sizes > least) & (sizes <= entries)]
        least = entries
        if len(own):
            arguments = [*sources, out, to_device(tensor_of(own), x.device), indices, values]
            launch(take_short, len(own), arguments, {"ADD": add, "ENTRIES": entries}, num_warps)
    long_rows = rows[sizes > least]
    if len(long_rows):
        table, segments = plan(long_rows)
        select_long(sources, add, out, table, segments, (indices, values))
    return indices, values


def plan(rows: "np.ndarray[Any, Any]") -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """The table of long segments and the segment of each chunk, see :mod:`.long_triton`.

    Args:
        rows: int64 ``[n, 4]``: origin, size, count and place of each segment.
    """
    sizes, counts = rows[:, 1], rows[:, 2]
    sparse = (counts > 0) & (counts * _DENSE <= sizes)
    sample = np.where(sparse, np.minimum(_SAMPLED, sizes // 32), 0)
    expected = counts / sizes * sample
    # Four standard deviations more than are expected, and six more again have room.
    rank = np.where(sparse, np.ceil(expected + 4 * np.sqrt(expected) + 4), 0)
    most = sizes * ((rank + 6 * np.sqrt(rank) + 8) / np.maximum(sample, 1))
    capacity = np.where(sparse, np.minimum(sizes, most), 0).astype(np.int64)
    # Enough chunks for every processor, and of each enough entries for the adding up of its histogram to be little.
    length = BLOCK * min(32, max(4, int(sizes.sum()) >> 22))
    # The first chunk begins where what is read at once does, maybe before the segment.
    chunks, found = -(-(rows[:, 0] % long.LANES.value + sizes) // length), -(-capacity // length)
    table = np.zeros((len(rows), long.COLUMNS.value), np.int64)
    table[:, :4] = rows
    ends = np.cumsum(np.concatenate((chunks, found)))
    # Pairs: constants of Triton 3.4 cannot be keys.
    columns: list[tuple[Any, Any]] = [
        (long.FIRST, ends[: len(rows)] - chunks),
        (long.LAST, ends[: len(rows)]),
        (long.FIRST_FOUND, ends[len(rows) :] - found),
        (long.ROOM, np.cumsum(capacity) - capacity),
        (long.CAPACITY, capacity),
        (long.SAMPLE, sample),
        (long.RANK, rank),
        (long.CHUNK, length),
    ]
    for column, numbers in columns:
        table[:, column.value] = numbers
    numbers = np.arange(len(rows))
    return table, np.repeat(np.concatenate((numbers, -1 - numbers)), np.concatenate((chunks, found)))


def select_long(
    sources: tuple[Any, ...],
    add: bool,
    out: Tensor,
    table: "np.ndarray[Any, Any]",
    segments: "np.ndarray[Any, Any]",
    results: tuple[Tensor, Tensor],
) -> None:
    """Launch all kernels for the segments of the table; ``sources`` are x, residual and decay."""
    num_chunks, room = int(table[-1, long.LAST.value]), int(table[:, long.CAPACITY.value].sum())
    device, wide = out.device, int(table[:, 1].max()) >= 2**31
    both = to_device(tensor_of(np.concatenate((table.reshape(-1), segments))), device)
    rows, owners = both[: table.size], both[table.size :]
    block = {"BLOCK": BLOCK}

    launch(long.take_bounds, len(table), [*sources, rows], {"ADD": add, "ENTRIES": _SAMPLED}, num_warps=8)
    before = torch.zeros(num_chunks + 1, dtype=torch.int64, device=device)
    reached = before[1:]
    launch(long.add_and_count, num_chunks, [*sources, out, rows, owners, reached], {"ADD": add, **block})
    before = before.cumsum(0)
    found = torch.empty(room, dtype=torch.float32, device=device)
    found_at = torch.empty(room, dtype=torch.int64 if wide else torch.int32, device=device)
    launch(long.compact, num_chunks, [out, rows, owners, before, found, found_at], block, num_warps=8)

    # Those of a segment of less than 2**31 entries count no further.
    histograms = torch.zeros(len(table) * 1024, dtype=torch.int64 if wide else torch.int32, device=device)
    parts = [out, found, rows, owners, before, histograms]
    for digit in range(4):
        launch(long.add_to_histogram, len(segments), parts, {"DIGIT": digit, **block})
    tallies = torch.zeros(len(segments) + 1, 2, dtype=torch.int64, device=device)
    launch(long.tally, len(segments), [*parts, tallies[1:]], block)
    ranks = tallies.cumsum(0)
    launch(long.take, len(segments), [out, found, found_at, *parts[2:], ranks, *results], block)
