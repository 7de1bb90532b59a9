"""Sums and maxima of magnitudes, segment by segment, in an order that is the same on every machine."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.numba_tools import array_of, kernel, tensor_of
from thinwire.kernels.offsets import check_offsets, offsets_array

_BLOCK = 1024


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
    _check(x)
    if power not in (1, 2):
        raise ConfigError(f"a power of {power} was asked for; 1 and 2 are possible")
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
        return segment_sums_torch(x, offsets, power)
    ends = offsets_array(offsets, x.numel())
    sums = np.empty(ends.size - 1, np.float64)
    _segment_sums(array_of(x), ends, power == 2, sums)
    return tensor_of(sums)


def segment_sums_torch(x: Tensor, offsets: Tensor, power: Literal[1, 2]) -> Tensor:
    """:func:`segment_sums` in torch operations, on any device."""
    values = x.to(torch.float64).abs() if power == 1 else x.to(torch.float64).square()
    sizes = offsets.to(x.device).diff()
    sums = values.new_zeros(sizes.numel())
    not_empty = sizes > 0
    while values.numel():
        # Zeros add nothing to a magnitude: a block no longer than the longest segment gives the same bits.
        length = min(_BLOCK, 1 << (int(sizes.max()) - 1).bit_length())
        num_blocks = (sizes + length - 1) // length
        segment = torch.arange(sizes.numel(), device=x.device).repeat_interleave(sizes, output_size=values.numel())
        place = torch.arange(values.numel(), device=x.device) - (sizes.cumsum(0) - sizes)[segment]
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
    _check(x)
    if not x.is_cpu:
        check_offsets(offsets, x.numel())
        return segment_max_torch(x, offsets)
    ends = offsets_array(offsets, x.numel())
    largest = np.empty(ends.size - 1, np.uint32)
    _segment_max(array_of(x).view(np.uint32), ends, largest)
    return tensor_of(largest.view(np.float32))


def segment_max_torch(x: Tensor, offsets: Tensor) -> Tensor:
    """:func:`segment_max` in torch operations, on any device."""
    sizes = offsets.to(x.device).diff()
    segment = torch.arange(sizes.numel(), device=x.device).repeat_interleave(sizes, output_size=x.numel())
    magnitudes = x.detach().contiguous().view(torch.int32) & 0x7FFFFFFF
    largest = magnitudes.new_zeros(sizes.numel()).scatter_reduce_(0, segment, magnitudes, "amax")
    return largest.view(torch.float32)


def _check(x: Tensor) -> None:
    if x.dtype != torch.float32 or x.dim() != 1:
        raise ConfigError(f"entries are a vector of float32, got {x.dtype} of shape {tuple(x.shape)}")


@kernel
def _fold(block: Any, size: int) -> Any:
    """Sum of the first ``size`` entries, at least one, by halving; the block is used up."""
    half = 1
    while 2 * half < size:
        half *= 2
    for j in range(size - half):
        block[j] += block[half + j]
    while half > 8:
        half //= 2
        lower = block[:half]
        upper = block[half : 2 * half]
        for j in range(half):
            lower[j] += upper[j]
    while half > 1:
        half //= 2
        for j in range(half):
            block[j] += block[half + j]
    return block[0]


@kernel
def _block_sum(x: Any, squared: bool, block: Any) -> Any:
    """``_fold`` of up to 1024 magnitudes or squares; the first halving on the way from f32."""
    if x.size == 1024:
        lower = x[:512]
        upper = x[512:]
        if squared:
            for j in range(512):
                block[j] = np.float64(lower[j]) * np.float64(lower[j]) + np.float64(upper[j]) * np.float64(upper[j])
        else:
            for j in range(512):
                block[j] = np.float64(np.abs(lower[j])) + np.float64(np.abs(upper[j]))
        return _fold(block, 512)
    if squared:
        for j in range(x.size):
            block[j] = np.float64(x[j]) * np.float64(x[j])
    else:
        for j in range(x.size):
            block[j] = np.float64(np.abs(x[j]))
    return _fold(block, x.size)


@kernel
def _segment_sums(x: Any, offsets: Any, squared: bool, sums: Any) -> None:
    block = np.empty(1024, np.float64)
    # Row t holds sums of 1024**(t + 1) entries each, waiting for 1024 of their kind; eight rows are more than
    # 2**63 entries fill.
    waiting = np.empty((8, 1024), np.float64)
    counts = np.zeros(8, np.int64)
    for segment in range(sums.size):
        end = offsets[segment + 1]
        total = 0.0
        for start in range(offsets[segment], end, 1024):
            total = _block_sum(x[start : min(start + 1024, end)], squared, block)
            row = 0
            waiting[0, counts[0]] = total
            counts[0] += 1
            while counts[row] == 1024:
                waiting[row + 1, counts[row + 1]] = _fold(waiting[row], 1024)
                counts[row] = 0
                row += 1
                counts[row] += 1
        # What waits in the rows is summed from below; the sum of one number is itself.
        row = 0
        while counts.sum() > 0:
            if counts[row]:
                total = _fold(waiting[row], counts[row])
                counts[row] = 0
                if counts.sum() > 0:
                    waiting[row + 1, counts[row + 1]] = total
                    counts[row + 1] += 1
            row += 1
        sums[segment] = total


@kernel
def _segment_max(bits: Any, offsets: Any, largest: Any) -> None:
    for segment in range(largest.size):
        part = bits[offsets[segment] : offsets[segment + 1]]
        most = np.uint32(0)
        for j in range(part.size):
            most = max(most, part[j] & np.uint32(0x7FFFFFFF))
        largest[segment] = most
