"""Even bins around a centre: the bin of every entry, packed, and what each bin holds."""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import array_of, over, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import num_packed_bytes, pack_block, pack_torch
from thinwire.kernels.flat.checks import check_entries
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty
from thinwire.kernels.jit.threads import run, shares

CHUNK: Final = 1 << 16
"""Entries whose sums are added one after the other; so are then those of all chunks."""

LANES: Final = 4
"""Sums of a bin that take turns within a chunk: an addition that waits for the one before it is slow."""


def fill_bins(x: Tensor, centre: float, step: float, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The bin ``clamp(round((x_i - centre) / step + B / 2), 0, B - 1)`` of every entry, ``B = 2**width``, in f64.

    Halves are rounded to even. The sum of a bin is f64: entry ``i`` is added to sum ``i % 4`` of its chunk of ``2**16``
    entries, in their order; then these four, in theirs, chunk after chunk. So no result depends on the threads.

    Args:
        x: f32 ``[d]``; NaN is put in bin 0.
        centre: of the bins.
        step: width of a bin, above 0.
        width: bits of a code, 1 to 8.

    Returns:
        The bins, packed as by :func:`thinwire.kernels.bitpack.bits.pack`; how many entries each holds, int64 ``[B]``,
        and their sums, f64 ``[B]``.

    Raises:
        ConfigError: entries that are no vector of float32, or numbers that are not as described.

    Example:
        >>> codes, counts, sums = fill_bins(torch.tensor([-3.0, -1.0, 2.0, 3.0]), 0.0, 2.0, 2)
        >>> codes.tolist(), counts.tolist(), sums.tolist()
        ([248], [1, 0, 1, 2], [-3.0, 0.0, -1.0, 5.0])
    """
    check_entries(x)
    if not 1 <= width <= 8 or not step > 0.0:
        raise ConfigError(f"bins of {width} bits, {step} wide, were asked for; 1 to 8 bits and a width above 0 can be")
    if not x.is_cpu:
        return body_for(fill_bins_torch, x.device)(x, centre, step, width)
    num_bytes, num_chunks = num_packed_bytes(x.numel(), width), -(-x.numel() // CHUNK)
    words = arrays.empty_array((num_bytes + 3) // 4, np.uint32)
    counts, sums = np.zeros((num_chunks, LANES, 1 << width), np.int64), np.zeros((num_chunks, LANES, 1 << width))
    shared = (array_of(x), float(centre), float(step), width, words, counts, sums)
    run(_fill_range, [(*shared, first, last) for first, last in shares(x.numel(), CHUNK)])
    totals = np.zeros(1 << width)
    _add_rows(sums.reshape(-1, 1 << width), totals)
    return tensor_of(words.view(np.uint8)[:num_bytes]), tensor_of(counts.sum((0, 1))), tensor_of(totals)


def fill_bins_torch(x: Tensor, centre: float, step: float, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`fill_bins` in torch operations, on any device."""
    num_bins, values = 1 << width, x.to(torch.float64)
    bins = over(values - centre, step).add_(num_bins / 2).round_().clamp_(0, num_bins - 1).nan_to_num_().to(torch.int64)
    num_chunks, steps = -(-x.numel() // CHUNK), -(-min(x.numel(), CHUNK) // LANES)
    # A step is an entry of each lane of each chunk: no two are of one sum, which so has one order on every device.
    rows = torch.arange(num_chunks * LANES, dtype=torch.int64, device=x.device) * num_bins
    places = [_by_steps(bins, num_chunks, steps) + rows, _by_steps(values, num_chunks, steps)]
    parts = values.new_zeros(num_chunks * LANES * num_bins)
    for place, value in zip(*(each.unbind() for each in places), strict=True):
        parts.index_add_(0, place, value)
    sums = values.new_zeros(num_bins)
    for row in parts.view(num_chunks * LANES, num_bins):
        sums += row
    return pack_torch(bins, width), torch.bincount(bins, minlength=num_bins), sums


def _by_steps(entries: Tensor, num_chunks: int, steps: int) -> Tensor:
    """``[steps, chunks * lanes]``, zeros after the end."""
    padded = entries.new_zeros(num_chunks * steps * LANES)
    padded[: entries.numel()] = entries
    return padded.view(num_chunks, steps, LANES).transpose(0, 1).reshape(steps, num_chunks * LANES)


@kernel
def _fill_range(
    x: Any, centre: float, step: float, width: int, words: Any, counts: Any, sums: Any, first: int, last: int
) -> None:
    """Entries ``first``, a multiple of ``2**16``, to ``last``."""
    bins = empty(1024, np.int32)
    for start in range(first, last, 1024):
        entries = x[start : min(start + 1024, last)]
        part = bins[: entries.size]
        _place(entries, centre, step, np.float64(1 << width), part)
        _count(entries, part, counts[start // CHUNK], sums[start // CHUNK])
        # 1024 codes of any width are whole words.
        pack_block(part, width, words[start // 32 * width :])


@helper
def _place(x: Any, centre: float, step: float, num_bins: Any, bins: Any) -> None:
    prefer_wide_vectors()
    always_inline()
    for j in range(bins.size):
        place = np.rint((np.float64(x[j]) - centre) / step + num_bins / 2.0)
        # NaN is not above 0.
        place = place if place > 0.0 else 0.0
        bins[j] = np.int32(min(place, num_bins - 1.0))


@helper
def _count(x: Any, bins: Any, counts: Any, sums: Any) -> None:
    """A block begins at a multiple of four."""
    for j in range(bins.size):
        place = np.uint64(bins[j])
        counts[j & 3, place] += 1
        sums[j & 3, place] += np.float64(x[j])


@kernel
def _add_rows(rows: Any, totals: Any) -> None:
    for row in range(rows.shape[0]):
        for j in range(totals.size):
            totals[j] += rows[row, j]
