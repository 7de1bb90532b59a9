"""Many tensors into one vector in one pass, which also finds what is not finite, on CUDA."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import tensor_of, to_device
from thinwire.kernels.flat.flatten import pieces_of
from thinwire.kernels.flat.segments_triton import segments_of
from thinwire.kernels.flat.sixteen import FORMATS, formats_of
from thinwire.kernels.jit.launches import BLOCK, Argument, launch

FLOAT = tl.constexpr(FORMATS[torch.float32])
HALF = tl.constexpr(FORMATS[torch.float16])
MIXED = tl.constexpr(len(FORMATS))


def flatten_unread(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None = None) -> Tensor:
    """See :func:`thinwire.kernels.flat.flatten.flatten_unread_torch`; one pass, one launch for all tensors."""
    first = torch.full((), out.numel(), dtype=torch.int64, device=out.device)
    # Copies of tensors with gaps live until the launch is made; the stream orders what comes after.
    sources = [tensor.detach().contiguous() for tensor in tensors if tensor.numel()]
    if not sources:
        return first
    base = out if minuend is None else minuend
    arguments: list[Argument] = [table_of(sources, out.device), len(sources), out.numel(), base, out, first]
    constants = {"FORMAT": format_of(sources), "SUBTRACTS": minuend is not None, "BLOCK": BLOCK}
    launch(_flatten, triton.cdiv(out.numel(), BLOCK), arguments, constants)
    return first


def table_of(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Where contiguous tensors begin in memory, 0 and up to which entry of the flat vector each goes, their formats.

    For other kernels: int64 ``[3 n + 1]`` on the device, copied there without a wait. The ends are its ``n + 1``
    numbers from ``n`` on, as offsets of segments; formats are numbers of :data:`FORMATS`.
    """
    pieces = np.insert(pieces_of(tensors), len(tensors), 0)
    return to_device(tensor_of(np.concatenate((pieces, formats_of(tensors)))), device)


def format_of(tensors: Sequence[Tensor]) -> int:
    """The number of the format that tensors have in common; :data:`MIXED` if there is none.

    Example:
        >>> format_of([torch.ones(1).half()]), format_of([torch.ones(1), torch.ones(1).half()])
        (2, 3)
    """
    formats = {tensor.dtype for tensor in tensors}
    return FORMATS[formats.pop()] if len(formats) == 1 else int(MIXED.value)


@triton.jit
def pieces_at(table: tl.tensor, num_tensors: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr) -> Any:
    """Of the program's entries of the flat vector: where their tensors begin in memory, places there, and formats.

    Of those past the end, anything.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    places = start + tl.arange(0, BLOCK)
    ends = table + num_tensors
    numbers = segments_of(ends, num_tensors, 0, numel, start, False, BLOCK)
    formats = tl.load(ends + num_tensors + 1 + numbers)
    return tl.load(table + numbers), places - tl.load(ends + numbers), formats


@triton.jit
def widened(halves: tl.tensor, formats: tl.tensor) -> Any:
    """Numbers of 16 bits, as int16, in f32: the bits of :mod:`thinwire.kernels.flat.sixteen`."""
    bits = halves.to(tl.uint32) & 0xFFFF
    # The exponent's bits are moved to where f32 has them, and a product sets the rest right, denormals too.
    magnitudes = ((bits & 0x7FFF) << 13).to(tl.float32, bitcast=True) * 2.0**112
    # Infinity and NaN have the largest exponent in either format.
    special = tl.where((bits & 0x7C00) == 0x7C00, 0x7F800000, 0).to(tl.uint32)
    of_half = magnitudes.to(tl.uint32, bitcast=True) | ((bits & 0x8000) << 16) | special
    return tl.where(formats == HALF, of_half, bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def _flatten(
    table: tl.tensor, num_tensors: tl.tensor, numel: tl.tensor, minuend: tl.tensor, out: tl.tensor, first: tl.tensor,
    FORMAT: tl.constexpr, SUBTRACTS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < numel
    begins, within, formats = pieces_at(table, num_tensors, numel, BLOCK)
    if FORMAT != MIXED:
        formats = tl.full((BLOCK,), FORMAT, tl.int64)
    entries = tl.zeros((BLOCK,), tl.float32)
    if FORMAT != FLOAT:
        halves = begins.to(tl.pointer_type(tl.int16)) + within
        entries = widened(tl.load(halves, mask=inside & (formats != FLOAT), other=0), formats)
    if (FORMAT == FLOAT) | (FORMAT == MIXED):
        sources = begins.to(tl.pointer_type(tl.float32)) + within
        own = tl.load(sources, mask=inside & (formats == FLOAT), other=0.0)
        entries = tl.where(formats == FLOAT, own, entries)
    bits = entries.to(tl.uint32, bitcast=True) & 0x7FFFFFFF
    found = tl.min(tl.where(inside & (bits >= 0x7F800000), places, numel), 0)
    tl.atomic_min(first, found, mask=found < numel)
    if SUBTRACTS:
        entries = tl.load(minuend + places, mask=inside, other=0.0) - entries
    tl.store(out + places, entries, mask=inside)
