"""Even bins around a centre, on CUDA: the bin of every entry, packed, and what each bin holds, in the CPU's order."""

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.bitpack.bits_triton import packed_room, store_packed
from thinwire.kernels.jit.launches import BLOCK, Argument, launch
from thinwire.kernels.quantize import bins


def fill_bins(x: Tensor, centre: float, step: float, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`thinwire.kernels.quantize.bins.fill_bins_torch`.

    Two passes over ``x``. The sums of a bin in a chunk have one thread each, as their order asks for.
    """
    numel, num_bins, device = x.numel(), 1 << width, x.device
    packed, target = packed_room(numel, width, device)
    places = torch.empty(numel, dtype=torch.uint8, device=device)
    num_chunks = triton.cdiv(numel, bins.CHUNK)
    counts = torch.empty((num_chunks * bins.LANES, num_bins), dtype=torch.int32, device=device)
    parts = torch.empty(counts.shape, dtype=torch.float64, device=device)
    sums = torch.empty(num_bins, dtype=torch.float64, device=device)
    entries = x.detach().contiguous()
    arguments: list[Argument] = [entries, bits_of(centre), bits_of(step), places, target, numel]
    launch(_place, triton.cdiv(numel, BLOCK), arguments, {"WIDTH": width, "BLOCK": BLOCK})
    arguments, constants = [entries, places, counts, parts, numel], {"BINS": num_bins}
    shape = {"CHUNK": bins.CHUNK, "LANES": bins.LANES, **constants}
    launch(_sum, num_chunks, arguments, shape, num_warps=max(1, num_bins // 32))
    launch(_add_rows, 1, [parts, sums, parts.shape[0]], constants, num_warps=1)
    return packed, counts.sum(0), sums


def bits_of(number: float) -> int:
    """A number of 64 bits as a kernel is given it, whose arguments have 32: its bits, as a whole number with a sign.

    Example:
        >>> bits_of(-0.0) == -(2**63)
        True
    """
    return int(np.float64(number).view(np.int64))


@triton.jit
def _number(bits: tl.tensor) -> Any:
    # A sum, since the interpreter holds what is just above 2**31 in 32 bits whatever its type says.
    return (tl.zeros([], tl.int64) + bits).to(tl.float64, bitcast=True)


@triton.jit(do_not_specialize=["centre", "step"])
def _place(
    x: tl.tensor, centre: tl.tensor, step: tl.tensor, bins: tl.tensor, target: tl.tensor, numel: tl.tensor,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * BLOCK
    places = start + tl.arange(0, BLOCK)
    inside = places < numel
    wide = tl.load(x + places, mask=inside, other=0.0).to(tl.float64)
    # A quotient of f64 is rounded correctly on every device.
    found = (wide - _number(centre)) / _number(step) + (1 << WIDTH) / 2
    # NaN is not above 0.
    found = tl.where(found > 0.0, found, 0.0)
    found = tl.where(found < (1 << WIDTH) - 1, found, (1 << WIDTH) - 1)
    # So large a number has no fraction: halves are rounded to even.
    codes = tl.where(inside, ((found + 2.0**52) - 2.0**52).to(tl.int32), 0)
    tl.store(bins + places, codes.to(tl.uint8), mask=inside)
    store_packed(codes, start, numel, target, WIDTH, BLOCK)


@triton.jit
def _sum(
    x: tl.tensor, bins: tl.tensor, counts: tl.tensor, parts: tl.tensor, numel: tl.tensor,
    CHUNK: tl.constexpr, LANES: tl.constexpr, BINS: tl.constexpr,
) -> None:  # fmt: skip
    """Of a chunk: for each lane and bin how many entries there are, and their sum, one after another."""
    chunk = tl.program_id(0).to(tl.int64)
    lanes, numbers = tl.arange(0, LANES), tl.arange(0, BINS)
    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, numel)
    count = tl.zeros((LANES, BINS), tl.int32)
    total = tl.zeros((LANES, BINS), tl.float64)
    for start in range(begin, end, LANES):
        places = start + lanes
        inside = places < end
        entries = tl.load(x + places, mask=inside, other=0.0).to(tl.float64)
        own = tl.load(bins + places, mask=inside, other=0).to(tl.int32)
        held = (own[:, None] == numbers[None, :]) & inside[:, None]
        count += held.to(tl.int32)
        total = tl.where(held, total + entries[:, None], total)
    rows = (chunk * LANES + lanes)[:, None] * BINS + numbers[None, :]
    tl.store(counts + rows, count)
    tl.store(parts + rows, total)


@triton.jit
def _add_rows(parts: tl.tensor, sums: tl.tensor, num_rows: tl.tensor, BINS: tl.constexpr) -> None:
    numbers = tl.arange(0, BINS)
    total = tl.zeros((BINS,), tl.float64)
    for row in range(num_rows):
        total += tl.load(parts + row * BINS + numbers)
    tl.store(sums + numbers, total)
