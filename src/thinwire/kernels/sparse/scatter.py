"""A few values onto their places in a long vector."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import ascend_within, check_ascending, check_indices, check_target, out_of_order
from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.threads import run, shares

_MISS = 8
"""A place out of cache costs about as much as so many entries in a row."""


def scatter_add(indices: Tensor, values: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """``out[indices[j]] += factor * values[j]`` for every ``j``, in O(k) for ``k`` indices.

    The factor is rounded to f32 first, the product to f32 next, then the sum.

    Args:
        indices: int64 ``[k]``, strictly ascending, in ``[0, d)``; so no entry is added to twice.
        values: f32 ``[k]``.
        out: contiguous f32 ``[d]`` on the device of ``indices``; changed in place.
        factor: any number.

    Raises:
        ConfigError: shapes, dtypes or indices that are not as described; ``out`` is unchanged then.

    Example:
        >>> out = torch.ones(4)
        >>> scatter_add(torch.tensor([1, 3]), torch.tensor([5.0, -1.0]), out, 2.0)
        >>> out.tolist()
        [1.0, 11.0, 1.0, -1.0]
    """
    _check(indices, values, out)
    if not out.is_cpu:
        body_for(scatter_add_torch, out.device)(indices, values, out, factor)
        return
    _run(indices, values, out, factor, True)


def scatter_add_torch(indices: Tensor, values: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """:func:`scatter_add` in torch operations, on any device."""
    _check(indices, values, out)
    _check_order_torch(indices, out)
    out.index_add_(0, indices, values * factor)


def scatter_write(indices: Tensor, values: Tensor, out: Tensor) -> None:
    """``out[indices[j]] = values[j]`` for every ``j``; arguments and errors are those of :func:`scatter_add`.

    Example:
        >>> out = torch.zeros(4)
        >>> scatter_write(torch.tensor([1, 3]), torch.tensor([5.0, -1.0]), out)
        >>> out.tolist()
        [0.0, 5.0, 0.0, -1.0]
    """
    _check(indices, values, out)
    if not out.is_cpu:
        body_for(scatter_write_torch, out.device)(indices, values, out)
        return
    _run(indices, values, out, 1.0, False)


def scatter_write_torch(indices: Tensor, values: Tensor, out: Tensor) -> None:
    """:func:`scatter_write` in torch operations, on any device."""
    _check(indices, values, out)
    _check_order_torch(indices, out)
    out.index_copy_(0, indices, values)


def are_disjoint(first: Tensor, second: Tensor) -> bool:
    """Whether no index is in both of two ascending vectors (int64), in O(k) without a sort.

    Raises:
        ConfigError: other dtypes or shapes.

    Example:
        >>> one = torch.tensor([1, 5])
        >>> are_disjoint(one, torch.tensor([2, 3, 8])), are_disjoint(one, torch.tensor([5]))
        (True, False)
    """
    for indices in (first, second):
        check_indices(indices)
    if not first.is_cpu:
        return body_for(are_disjoint_torch, first.device)(first, second)
    return not _meet(array_of(first), array_of(second))


def are_disjoint_torch(first: Tensor, second: Tensor) -> bool:
    """:func:`are_disjoint` in torch operations, on any device."""
    places = torch.searchsorted(second, first)
    inside = places < second.numel()
    return not bool((second[places[inside]] == first[inside]).any())


def _check(indices: Tensor, values: Tensor, out: Tensor) -> None:
    check_target(out)
    check_pairs(indices, values)


def check_pairs(indices: Tensor, values: Tensor) -> None:
    """Raise :class:`ConfigError` unless these are a vector of int64 and as many float32."""
    check_indices(indices)
    if values.dtype != torch.float32 or values.shape != indices.shape:
        raise ConfigError(
            f"{indices.numel()} indices need as many float32, got {values.dtype} of shape {tuple(values.shape)}"
        )


def _check_order_torch(indices: Tensor, out: Tensor) -> None:
    # Another device would be waited for; indices in messages are checked where they are decoded, on the CPU.
    if indices.numel() == 0 or not indices.is_cpu:
        return
    rises = bool((indices[1:] > indices[:-1]).all())
    if not rises or int(indices[0]) < 0 or int(indices[-1]) >= out.numel():
        raise out_of_order(out.numel())


def place_ranges(count: int) -> list[tuple[int, int]]:
    """``[0, count)`` cut for the threads, whose work is to reach so many places of a long vector.

    Example:
        >>> place_ranges(100)
        [(0, 100)]
    """
    return [(start // _MISS, stop // _MISS) for start, stop in shares(count * _MISS, _MISS)]


def _run(indices: Tensor, values: Tensor, out: Tensor, factor: float, kept: bool) -> None:
    places, numbers, total = array_of(indices), array_of(values), array_of(out)
    ranges = place_ranges(places.size)
    if len(ranges) == 1:
        if not _scatter_checked(places, numbers, total, np.float32(factor), kept):
            raise out_of_order(total.size)
        return
    # A pass of its own, a twentieth of the time: nothing is written before everything is known to be right.
    check_ascending(places, total.size)
    # The places ascend, so every thread writes to a range of its own.
    calls = [(places[start:stop], numbers[start:stop], total, np.float32(factor), kept) for start, stop in ranges]
    run(_scatter, calls)


@kernel
def _meet(first: Any, second: Any) -> bool:
    i: Any = 0
    j: Any = 0
    while i < first.size and j < second.size:
        one, other = first[i], second[j]
        if one == other:
            return True
        # Which of the two is behind cannot be predicted: no branch.
        i += np.int64(one < other)
        j += np.int64(other < one)
    return False


@kernel
def _scatter_checked(indices: Any, values: Any, out: Any, factor: Any, kept: bool) -> bool:
    """One call where two would take longer than a few entries."""
    if not ascend_within(indices, out.size):
        return False
    _scatter(indices, values, out, factor, kept)
    return True


@kernel
def _scatter(indices: Any, values: Any, out: Any, factor: Any, kept: bool) -> None:
    # Checked to be in range: as unsigned numbers they are not compared with zero again.
    if kept:
        for j in range(indices.size):
            out[np.uint64(indices[j])] += values[j] * factor
    else:
        for j in range(indices.size):
            out[np.uint64(indices[j])] = values[j]
