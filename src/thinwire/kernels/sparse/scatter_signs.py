"""Packed signs onto their places in a long vector."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.kernels.flat.checks import (
    ascend_within,
    check_ascending,
    check_indices,
    check_scales,
    check_target,
    offsets_array,
    out_of_order,
)
from thinwire.kernels.jit.compiling import kernel, pasted
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import first_from
from thinwire.kernels.jit.threads import run
from thinwire.kernels.quantize.signs_add import check_bits, write_signs_torch
from thinwire.kernels.reduce.block_norms_simd import bits_of, float_of
from thinwire.kernels.sparse.scatter import place_ranges, scatter_add_torch


def scatter_add_signs(
    indices: Tensor, bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """``out[indices[j]] += factor * (-scales[s] if bit j is set else scales[s])`` for every ``j``, of segment ``s``.

    The same as :func:`thinwire.kernels.sparse.scatter.scatter_add` of what
    :func:`thinwire.kernels.quantize.signs_add.write_signs` writes, bit for bit, without a vector in between.

    Args:
        indices: int64 ``[k]``, strictly ascending, in ``[0, d)``; so no entry is added to twice.
        bits: uint8 ``[ceil(k / 8)]`` as :func:`thinwire.kernels.quantize.signs.sign_bits` makes them, or longer.
        scales: f32 ``[s]``.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``k``: where the segments of the *kept* entries begin.
        out: contiguous f32 ``[d]`` on the device of ``indices``; changed in place.
        factor: any number.

    Raises:
        ConfigError: shapes, dtypes or indices that are not as described; ``out`` is unchanged then.

    Example:
        >>> out = torch.ones(4)
        >>> bits, whole = torch.tensor([0b10], dtype=torch.uint8), torch.tensor([0, 2])
        >>> scatter_add_signs(torch.tensor([1, 3]), bits, torch.tensor([5.0]), whole, out, 2.0)
        >>> out.tolist()
        [1.0, 11.0, 1.0, -9.0]
    """
    ends = _check(indices, bits, scales, offsets, out)
    if not out.is_cpu:
        body_for(scatter_add_signs_torch, out.device)(indices, bits, scales, offsets, out, factor)
        return
    places, total = array_of(indices), array_of(out)
    shared = (places, array_of(bits), array_of(scales), ends, total, np.float32(factor))
    ranges = place_ranges(places.size)
    if len(ranges) == 1:
        if not _add_checked(*shared):
            raise out_of_order(total.size)
        return
    check_ascending(places, total.size)
    run(_add_range, [(*shared, start, stop) for start, stop in ranges])


def scatter_add_signs_torch(
    indices: Tensor, bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor, factor: float = 1.0
) -> None:
    """:func:`scatter_add_signs` in torch operations, on any device."""
    _check(indices, bits, scales, offsets, out)
    values = torch.empty(indices.numel(), dtype=torch.float32, device=out.device)
    write_signs_torch(bits, scales, offsets, values)
    scatter_add_torch(indices, values, out, factor)


def _check(indices: Tensor, bits: Tensor, scales: Tensor, offsets: Tensor, out: Tensor) -> Any:
    check_target(out)
    check_indices(indices)
    check_bits(bits, indices.numel())
    check_scales(scales, offsets)
    return offsets_array(offsets, indices.numel())


@kernel
def _add_checked(indices: Any, bits: Any, scales: Any, ends: Any, out: Any, factor: Any) -> bool:
    """One call where two would take longer than a few entries."""
    if not ascend_within(indices, out.size):
        return False
    _add_range(indices, bits, scales, ends, out, factor, 0, indices.size)
    return True


@pasted
def _add_range(indices: Any, bits: Any, scales: Any, ends: Any, out: Any, factor: Any, start: Any, stop: Any) -> None:
    segment = first_from(ends, start + 1) - 1
    position = start
    while position < stop:
        while ends[segment + 1] <= position:
            segment += 1
        magnitude = bits_of(scales[segment] * factor)
        end = min(stop, ends[segment + 1])
        for j in range(position, end):
            # Checked to be in range: as unsigned numbers they are not compared with zero again.
            number = np.uint64(j)
            bit = np.uint32(bits[number >> np.uint64(3)] >> np.uint8(number & np.uint64(7)))
            # The sign's own bit: a branch could not be predicted.
            out[np.uint64(indices[number])] += float_of(magnitude ^ (bit << np.uint32(31)))
        position = end
