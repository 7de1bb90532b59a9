"""A vector onto many tensors: a dense one in one pass, a sparse one without being written out before."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_ascending
from thinwire.kernels.flat.flatten import pieces_of
from thinwire.kernels.flat.sixteen import WRITTEN, formats_of, unflatten_any_format
from thinwire.kernels.jit.compiling import carray, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import copy_to, first_from, pointer
from thinwire.kernels.jit.threads import STREAMED_NS, run, shares

_BLOCK = 4096
"""Entries that are set to zero, and still in the cache when those are written that are not."""


def can_unflatten(tensors: Sequence[Tensor]) -> bool:
    """Whether :func:`unflatten` takes the tensors as they lie in memory.

    Example:
        >>> can_unflatten([torch.zeros(2).bfloat16()]), can_unflatten([torch.zeros(2, 3).T])
        (True, False)
    """
    return {each.dtype for each in tensors} <= WRITTEN and all(map(Tensor.is_contiguous, tensors))


def can_unflatten_sparse(tensors: Sequence[Tensor]) -> bool:
    """Whether :func:`unflatten_sparse` takes the tensors as they lie in memory.

    Example:
        >>> can_unflatten_sparse([torch.zeros(2, 3)]), can_unflatten_sparse([torch.zeros(2).half()])
        (True, False)
    """
    return all(each.dtype == torch.float32 and each.is_contiguous() for each in tensors)


def unflatten(x: Tensor, tensors: Sequence[Tensor]) -> None:
    """The tensors, one after another, become ``x``.

    Torch copies one tensor after another, each on all threads: of the 161 tensors of ResNet-50 most are so short that
    threads wait for each other longer than they copy.

    Args:
        x: contiguous f32 ``[d]`` that shares no memory with them.
        tensors: contiguous f32 or bf16 on the device of ``x``, ``d`` entries in all; written to. Numbers are
            rounded to the nearest of 16 bits, ties to even.

    Raises:
        ConfigError: dtypes, shapes or a device that is not as described; nothing is written then.

    Example:
        >>> one, other = torch.ones(1, 2), torch.ones(())
        >>> unflatten(torch.tensor([1.0, 2.0, 3.0]), [one, other])
        >>> one.tolist(), other.tolist()
        ([[1.0, 2.0]], 3.0)
    """
    if x.dtype != torch.float32 or x.dim() != 1 or not x.is_contiguous() or not can_unflatten(tensors):
        raise ConfigError(
            "a vector of float32 and contiguous tensors of float32 or bfloat16 are needed, got "
            f"{x.dtype} {tuple(x.shape)}"
        )
    numel = sum(map(Tensor.numel, tensors))
    if numel != x.numel() or not {tensor.device for tensor in tensors} <= {x.device}:
        raise ConfigError(f"{x.numel()} entries on {x.device} do not fill {numel} places, or not there")
    if not x.is_cpu:
        body_for(unflatten_torch, x.device)(x, tensors)
        return
    pieces, source = pieces_of(tensors), array_of(x)
    ranges = shares(numel, 1, STREAMED_NS)
    if {tensor.dtype for tensor in tensors} - {torch.float32}:
        formats = formats_of(tensors)
        run(unflatten_any_format, [(pieces, formats, source, start, stop) for start, stop in ranges])
        return
    run(_copy, [(pieces, source, start, stop) for start, stop in ranges])


def unflatten_torch(x: Tensor, tensors: Sequence[Tensor]) -> None:
    """:func:`unflatten` in torch operations, on any device."""
    parts = torch.split(x, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.detach().copy_(part.view(tensor.shape))


def unflatten_sparse(indices: Tensor, values: Tensor, tensors: Sequence[Tensor]) -> None:
    """The tensors, one after another, become the vector that is ``values`` at ``indices`` and else 0.

    Args:
        indices: int64 ``[k]``, strictly ascending, in ``[0, d)``.
        values: f32 ``[k]``.
        tensors: contiguous f32 on one device, ``d`` entries in all; written to.

    Raises:
        ConfigError: dtypes, shapes or indices that are not as described; nothing is written then.

    Example:
        >>> one, other = torch.ones(1, 2), torch.ones(2)
        >>> unflatten_sparse(torch.tensor([1, 2]), torch.tensor([5.0, -1.0]), [one, other])
        >>> one.tolist(), other.tolist()
        ([[0.0, 5.0]], [-1.0, 0.0])
    """
    if (
        indices.dtype != torch.int64
        or values.dtype != torch.float32
        or indices.dim() != 1
        or len(values) != len(indices)
    ):
        raise ConfigError(
            f"int64 indices and as many float32 are needed, got {len(indices)} of {indices.dtype} and {len(values)} of "
            f"{values.dtype}"
        )
    if not can_unflatten_sparse(tensors):
        raise ConfigError("the tensors that are written to must be contiguous float32")
    if not all(tensor.is_cpu for tensor in tensors):
        body_for(unflatten_sparse_torch, tensors[0].device)(indices, values, tensors)
        return
    addresses = np.array([tensor.data_ptr() for tensor in tensors], np.int64)
    ends = np.cumsum([tensor.numel() for tensor in tensors], dtype=np.int64)
    numel = int(ends[-1]) if tensors else 0
    places = array_of(indices)
    check_ascending(places, numel)
    ranges = shares(numel, 1, STREAMED_NS)
    run(_unflatten, [(places, array_of(values), addresses, ends, start, stop) for start, stop in ranges])


def unflatten_sparse_torch(indices: Tensor, values: Tensor, tensors: Sequence[Tensor]) -> None:
    """:func:`unflatten_sparse` in torch operations, on any device."""
    begin = 0
    for tensor in tensors:
        end = begin + tensor.numel()
        inside = (indices >= begin) & (indices < end)
        tensor.detach().zero_().view(-1)[indices[inside] - begin] = values[inside]
        begin = end


@kernel
def _copy(pieces: Any, x: Any, start: int, stop: int) -> None:
    addresses, ends = pieces[: pieces.size // 2], pieces[pieces.size // 2 :]
    begin = 0
    for number in range(addresses.size):
        end = ends[number]
        first, last = max(start, begin), min(stop, end)
        if first < last:
            target = carray(pointer(addresses[number]), (end - begin,), np.float32)
            copy_to(target[first - begin : last - begin], x[first:last])
        begin = end


@kernel
def _unflatten(indices: Any, values: Any, addresses: Any, ends: Any, start: int, stop: int) -> None:
    """Entries ``start`` to ``stop - 1`` of the vector."""
    cursor = first_from(indices, start)
    begin = 0
    for number in range(addresses.size):
        end = ends[number]
        target = carray(pointer(addresses[number]), (end - begin,), np.float32)
        for base in range(max(start, begin), min(stop, end), _BLOCK):
            last = min(base + _BLOCK, stop, end)
            target[base - begin : last - begin] = 0.0
            while cursor < indices.size and indices[cursor] < last:
                target[indices[cursor] - begin] = values[cursor]
                cursor += 1
        begin = end
