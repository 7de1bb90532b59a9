"""Sums and maxima of magnitudes, segment by segment, in an order that is the same on every machine."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries, check_offsets, offsets_array, segment_of_each
from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import borrowed
from thinwire.kernels.jit.intrinsics import first_from
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.reduce.block_norms import BLOCK, fits_in_cache, measure, measure_ahead, scratch


def segment_sums(x: Tensor, offsets: Tensor, power: Literal[1, 2]) -> Tensor:
    """Sum of ``|x_i|**power`` over each segment, in f64.

    The order is fixed: the segment is cut into blocks of 1024 entries, the last one filled up with zeros. A
    block is folded, ``a = a[:n/2] + a[n/2:]``, until one number is left. The numbers of the blocks are summed
    by the same rule, and so on until one is left. Squares of f32 are exact in f64,
    so the result depends on no thread count, vector unit or device.

    Args:
        x: f32 ``[d]``; NaN makes the sum of its segment NaN.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        power: 1 or 2.

    Returns:
        f64 ``[s]`` on the device of ``x``; 0 for an empty segment.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 2.0])
        >>> segment_sums(x, torch.tensor([0, 2, 2, 3]), 2).tolist()
        [10.0, 0.0, 4.0]
    """
    check_entries(x)
    if power not in (1, 2):
        raise ConfigError(f"a power of {power} was asked for; 1 and 2 are possible")
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
        return body_for(segment_sums_torch, x.device)(x, offsets, power)
    return tensor_of(_measures(x, offsets, power))


def segment_sums_torch(x: Tensor, offsets: Tensor, power: Literal[1, 2]) -> Tensor:
    """:func:`segment_sums` in torch operations, on any device."""
    values = x.to(torch.float64).abs() if power == 1 else x.to(torch.float64).square()
    sizes = to_device(offsets, x.device).diff()
    sums = values.new_zeros(sizes.numel())
    not_empty = sizes > 0
    while values.numel():
        # Zeros add nothing to a magnitude: a block no longer than the longest segment gives the same bits.
        length = min(BLOCK, 1 << (int(sizes.max()) - 1).bit_length())
        num_blocks = (sizes + length - 1) // length
        segment = segment_of_each(sizes, values.numel())
        place = torch.arange(values.numel(), dtype=torch.int64, device=x.device) - (sizes.cumsum(0) - sizes)[segment]
        blocks = values.new_zeros(int(num_blocks.sum()) * length)
        blocks[(num_blocks.cumsum(0) - num_blocks)[segment] * length + place] = values
        blocks = blocks.view(-1, length)
        while blocks.shape[1] > 1:
            half = blocks.shape[1] // 2
            blocks = blocks[:, :half] + blocks[:, half:]
        values, sizes = blocks.reshape(-1), num_blocks
        if int(sizes.max()) == 1:
            sums[not_empty] = values
            break
    return sums


def segment_max(x: Tensor, offsets: Tensor) -> Tensor:
    """Largest magnitude of each segment: f32 ``[s]`` on the device of ``x``; 0 for an empty segment.

    NaN counts as larger than inf.

    Raises:
        ConfigError: ``x`` is not a vector of float32, or offsets not as for :func:`segment_sums`.

    Example:
        >>> segment_max(torch.tensor([1.0, -3.0, 2.0]), torch.tensor([0, 2, 2, 3])).tolist()
        [3.0, 0.0, 2.0]
    """
    check_entries(x)
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
        return body_for(segment_max_torch, x.device)(x, offsets)
    return tensor_of(_measures(x, offsets, 0).astype(np.float32))


def segment_max_torch(x: Tensor, offsets: Tensor) -> Tensor:
    """:func:`segment_max` in torch operations, on any device."""
    sizes = to_device(offsets, x.device).diff()
    segment = segment_of_each(sizes, x.numel())
    magnitudes = x.detach().contiguous().view(torch.int32) & 0x7FFFFFFF
    largest = magnitudes.new_zeros(sizes.numel()).scatter_reduce_(0, segment, magnitudes, "amax")
    return largest.view(torch.float32)


def _measures(x: Tensor, offsets: Tensor, power: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    ends, entries = offsets_array(offsets, x.numel()), array_of(x)
    # Zeros for the empty segments.
    measures = np.zeros(ends.size - 1, np.float64)
    source = (entries, entries, np.float32(1), False)
    ranges = shares(x.numel())
    measure_ahead(source, ends, power, ranges, measures)
    run(_measure_part, [(*source, ends, power, first, last, measures) for first, last in ranges])
    return measures


def _measure_part(*arguments: Any) -> None:
    _measure_range(*arguments, *scratch())


@kernel
def _measure_range(
    x: Any, residual: Any, decay: Any, has_residual: bool, ends: Any, power: int, first: int, last: int, measures: Any,
    u: Any, folded: Any, totals: Any,
) -> None:  # fmt: skip
    x, residual = borrowed(x), borrowed(residual)
    u, folded, totals = borrowed(u), borrowed(folded), borrowed(totals)
    segment = first_from(ends, first + 1) - 1
    while segment < measures.size and ends[segment] < last:
        begin = ends[segment]
        end = ends[segment + 1]
        if fits_in_cache(begin, end, first, last):
            measures[segment] = measure(x, residual, decay, has_residual, begin, end, power, u, folded, totals)
        segment += 1
