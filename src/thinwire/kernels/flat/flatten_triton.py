"""Many tensors into one vector in one pass, which also finds what is not finite, on CUDA."""

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import tensor_of, to_device
from thinwire.kernels.flat.flatten import pieces_of
from thinwire.kernels.flat.segments_triton import segments_of
from thinwire.kernels.jit.launches import BLOCK, Argument, launch


def flatten_unread(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None = None) -> Tensor:
    """See :func:`thinwire.kernels.flat.flatten.flatten_unread_torch`; one pass, one launch for all tensors."""
    first = torch.full((), out.numel(), dtype=torch.int64, device=out.device)
    # Copies of tensors with gaps or of 16 bits live until the launch is made; the stream orders what comes after.
    sources = [tensor.detach().to(torch.float32).contiguous() for tensor in tensors if tensor.numel()]
    if not sources:
        return first
    base = out if minuend is None else minuend
    arguments: list[Argument] = [table_of(sources, out.device), len(sources), out.numel(), base, out, first]
    constants = {"SUBTRACTS": minuend is not None, "BLOCK": BLOCK}
    launch(_flatten, triton.cdiv(out.numel(), BLOCK), arguments, constants)
    return first


def table_of(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Where contiguous tensors begin in memory, then 0 and up to which entry of the flat vector each goes.

    For other kernels: int64 ``[2 n + 1]`` on the device, copied there without a wait. The ends are its
    ``n + 1`` last numbers, as offsets of segments.
    """
    return to_device(tensor_of(np.insert(pieces_of(tensors), len(tensors), 0)), device)


@triton.jit
def addresses_of(table: tl.tensor, num_tensors: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    """Where in memory the program's entries of the flat vector lie; of those past the end, anything."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    places = start + tl.arange(0, BLOCK)
    ends = table + num_tensors
    numbers = segments_of(ends, num_tensors, 0, numel, start, False, BLOCK)
    begins = tl.load(ends + numbers)
    return tl.load(table + numbers).to(tl.pointer_type(tl.float32)) + (places - begins)


@triton.jit
def _flatten(
    table: tl.tensor, num_tensors: tl.tensor, numel: tl.tensor, minuend: tl.tensor, out: tl.tensor, first: tl.tensor,
    SUBTRACTS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < numel
    entries = tl.load(addresses_of(table, num_tensors, numel, BLOCK), mask=inside, other=0.0)
    bits = entries.to(tl.uint32, bitcast=True) & 0x7FFFFFFF
    found = tl.min(tl.where(inside & (bits >= 0x7F800000), places, numel), 0)
    tl.atomic_min(first, found, mask=found < numel)
    if SUBTRACTS:
        entries = tl.load(minuend + places, mask=inside, other=0.0) - entries
    tl.store(out + places, entries, mask=inside)
