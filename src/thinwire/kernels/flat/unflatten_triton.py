"""A vector onto many tensors, on CUDA: a dense one in one pass, a sparse one without being written out before."""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.kernels.flat.flatten_triton import FLOAT, MIXED, format_of, pieces_at, table_of
from thinwire.kernels.flat.order_triton import first_disorder
from thinwire.kernels.flat.segments_triton import search_each
from thinwire.kernels.jit.launches import BLOCK, Argument, launch


def unflatten(x: Tensor, tensors: Sequence[Tensor]) -> None:
    """See :func:`thinwire.kernels.flat.unflatten.unflatten_torch`; one pass, one launch for all tensors."""
    targets = [tensor for tensor in tensors if tensor.numel()]
    if targets:
        arguments: list[Argument] = [table_of(targets, x.device), len(targets), x.numel(), x]
        constants = {"FORMAT": format_of(targets), "BLOCK": BLOCK}
        launch(_unflatten, triton.cdiv(x.numel(), BLOCK), arguments, constants)


def unflatten_sparse(indices: Tensor, values: Tensor, tensors: Sequence[Tensor]) -> None:
    """See :func:`thinwire.kernels.flat.unflatten.unflatten_sparse_torch`; zeros in one launch, the values in another.

    Indices that do not ascend strictly within the tensors leave them unchanged and raise nothing: that would wait.
    """
    targets = [tensor for tensor in tensors if tensor.numel()]
    if not targets:
        return
    device, numel = targets[0].device, sum(tensor.numel() for tensor in targets)
    indices, values = to_device(indices, device).contiguous(), to_device(values.detach(), device).contiguous()
    disorder, table = first_disorder(indices, numel), table_of(targets, device)
    place: list[Argument] = [table, len(targets), numel, disorder, indices.numel()]
    constants = {"BLOCK": BLOCK}
    launch(_clear, triton.cdiv(numel, BLOCK), place, constants)
    launch(_put, triton.cdiv(indices.numel(), BLOCK), [*place, indices, values], constants)


@triton.jit
def narrowed(x: tl.tensor) -> tl.tensor:
    """Numbers rounded to the nearest of bf16, ties to even, as int16."""
    word = x.to(tl.uint32, bitcast=True)
    rounded = (word + 0x7FFF + ((word >> 16) & 1)) >> 16
    # Rounding would carry a NaN's bits into those of another number.
    is_nan = (word & 0x7FFFFFFF) > 0x7F800000
    return tl.where(is_nan, (word >> 16) | 64, rounded).to(tl.uint16).to(tl.int16, bitcast=True)


@triton.jit
def _unflatten(
    table: tl.tensor, num_tensors: tl.tensor, numel: tl.tensor, x: tl.tensor, FORMAT: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    """Onto tensors of f32 and of bf16."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < numel
    entries = tl.load(x + places, mask=inside, other=0.0)
    begins, within, formats = pieces_at(table, num_tensors, numel, BLOCK)
    if FORMAT != MIXED:
        formats = tl.full((BLOCK,), FORMAT, tl.int64)
    if FORMAT != FLOAT:
        halves = begins.to(tl.pointer_type(tl.int16)) + within
        tl.store(halves, narrowed(entries), mask=inside & (formats != FLOAT))
    if (FORMAT == FLOAT) | (FORMAT == MIXED):
        targets = begins.to(tl.pointer_type(tl.float32)) + within
        tl.store(targets, entries, mask=inside & (formats == FLOAT))


@triton.jit
def _clear(
    table: tl.tensor, num_tensors: tl.tensor, numel: tl.tensor, disorder: tl.tensor, count: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < tl.where(tl.load(disorder) == count, numel, 0)
    begins, within, _ = pieces_at(table, num_tensors, numel, BLOCK)
    tl.store(begins.to(tl.pointer_type(tl.float32)) + within, tl.zeros([BLOCK], tl.float32), mask=inside)


@triton.jit
def _put(
    table: tl.tensor, num_tensors: tl.tensor, numel: tl.tensor, disorder: tl.tensor, count: tl.tensor,
    indices: tl.tensor, values: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    # Nothing is inside if the indices are out of order.
    inside = places < tl.where(tl.load(disorder) == count, count, 0)
    index = tl.load(indices + places, mask=inside, other=0)
    value = tl.load(values + places, mask=inside, other=0.0)
    ends = table + num_tensors
    zero = tl.zeros([BLOCK], tl.int64)
    numbers = search_each(ends, zero, zero + (num_tensors - 1), num_tensors + tl.zeros([], tl.int64), index)
    begins = tl.load(ends + numbers)
    targets = tl.load(table + numbers).to(tl.pointer_type(tl.float32)) + (index - begins)
    tl.store(targets, value, mask=inside)
