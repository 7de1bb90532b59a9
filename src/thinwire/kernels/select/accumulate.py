"""Add a vector to a decayed residual, and take some entries of the sum in the same pass over memory."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries, selection_arrays
from thinwire.kernels.jit import threads
from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import first_from
from thinwire.kernels.select.parallel import select_all
from thinwire.kernels.select.segment import accumulate_range
from thinwire.kernels.select.top_k import top_k_torch

_BLOCK = 1024


def accumulate_top_k(
    x: Tensor, residual: Tensor, decay: float, out: Tensor, offsets: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """``u = decay * residual + x`` to ``out``, and the largest magnitudes of each segment of ``u``.

    Product and sum are each rounded to float32. The selection is that of :func:`thinwire.kernels.select.top_k.top_k`
    with ``u``.

    Args:
        x: f32 ``[d]``.
        residual: f32 ``[d]``.
        decay: factor on the residual; it is rounded to float32.
        out: contiguous f32 ``[d]``; may be ``x`` or ``residual``, but not overlap either otherwise.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        counts: int64 ``[s]``, 0 to the size of the segment.

    Returns:
        int64 ``[counts.sum()]``, positions in ``out``, ascending, and the f32 entries there.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> out = torch.empty(3)
        >>> x, residual, whole = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 2.0, -2.0]), torch.tensor([0, 3])
        >>> indices, values = accumulate_top_k(x, residual, 0.5, out, whole, torch.tensor([1]))
        >>> indices.tolist(), values.tolist(), out.tolist()
        ([1], [3.0], [1.0, 3.0, -1.0])
    """
    _check_sum(x, residual, out)
    starts, wanted, ends = selection_arrays(offsets, counts, x.numel())
    if not out.is_cpu:
        return body_for(accumulate_top_k_torch, out.device)(x, residual, decay, out, offsets, counts)
    chosen, values = select_all(array_of(x), array_of(residual), decay, True, array_of(out), starts, wanted, ends)
    return tensor_of(chosen), tensor_of(values)


def accumulate_top_k_torch(
    x: Tensor, residual: Tensor, decay: float, out: Tensor, offsets: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`accumulate_top_k` in torch operations, on any device."""
    out.copy_(residual * decay + x)
    indices = top_k_torch(out, offsets, counts)
    return indices, out[indices]


def accumulate_take(x: Tensor, residual: Tensor, decay: float, out: Tensor, indices: Tensor) -> Tensor:
    """``u = decay * residual + x`` to ``out``, as :func:`accumulate_top_k` does, and ``u[indices]``.

    Args:
        x: f32 ``[d]``.
        residual: f32 ``[d]``.
        decay: factor on the residual; it is rounded to float32.
        out: contiguous f32 ``[d]``; may be ``x`` or ``residual``, but not overlap either otherwise.
        indices: int64, strictly ascending, each 0 to ``d - 1``.

    Returns:
        f32 of the length of ``indices``.

    Raises:
        ConfigError: shapes, dtypes or indices that are not as described.

    Example:
        >>> out = torch.zeros(2)
        >>> accumulate_take(torch.ones(2), out, 1.0, out, torch.tensor([1])).tolist(), out.tolist()
        ([1.0], [1.0, 1.0])
    """
    _check_sum(x, residual, out)
    if indices.dtype != torch.int64 or indices.dim() != 1:
        raise ConfigError(f"indices are a vector of int64, got {indices.dtype} of shape {tuple(indices.shape)}")
    if not out.is_cpu:
        return body_for(accumulate_take_torch, out.device)(x, residual, decay, out, indices)
    places = array_of(indices)
    if not _ascend_below(places, x.numel()):
        raise ConfigError(f"indices must strictly ascend, from 0 or more to less than {x.numel()}")
    values = np.empty(places.size, np.float32)
    arrays = (array_of(x), array_of(residual), np.float32(decay), array_of(out), places, values)
    ranges = threads.shares(x.numel(), _BLOCK, threads.STREAMED_NS)
    threads.run(_accumulate_take, [(*arrays, start, stop) for start, stop in ranges])
    return tensor_of(values)


def accumulate_take_torch(x: Tensor, residual: Tensor, decay: float, out: Tensor, indices: Tensor) -> Tensor:
    """:func:`accumulate_take` in torch operations, on any device."""
    out.copy_(residual * decay + x)
    return out[indices]


def _check_sum(x: Tensor, residual: Tensor, out: Tensor) -> None:
    for entries in (x, residual, out):
        check_entries(entries)
    if not x.numel() == residual.numel() == out.numel():
        raise ConfigError(
            f"entries, residual and sum must be of one length, got {x.numel()}, {residual.numel()} and {out.numel()}"
        )
    if not out.is_contiguous():
        raise ConfigError("the sum is written to a contiguous vector; this one has gaps")


@kernel
def _ascend_below(indices: Any, numel: int) -> bool:
    if indices.size == 0:
        return True
    falls = 0
    for j in range(1, indices.size):
        falls += 1 if indices[j] <= indices[j - 1] else 0
    return falls == 0 and indices[0] >= 0 and indices[indices.size - 1] < numel


@kernel
def _accumulate_take(
    x: Any, residual: Any, decay: Any, out: Any, indices: Any, values: Any, start: int, stop: int
) -> None:
    taken = first_from(indices, start)
    for block in range(start, stop, _BLOCK):
        end = min(block + _BLOCK, stop)
        accumulate_range(x, residual, decay, out, block, end)
        while taken < indices.size and indices[taken] < end:
            values[taken] = out[indices[taken]]
            taken += 1
