"""The signs of numbers as packed bits, and with the mean magnitude of each segment, on CUDA."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.flat.entries_triton import load_entries
from thinwire.kernels.flat.segments_triton import segments_of
from thinwire.kernels.jit.launches import BLOCK, Argument, launch
from thinwire.kernels.reduce.block_trees_triton import fold, levels_of, sum_segments


def sign_bits(x: Tensor) -> Tensor:
    """See :func:`thinwire.kernels.quantize.signs.sign_bits_torch`; one pass."""
    bits = _room(x)
    launch(_sign_bits, triton.cdiv(x.numel(), BLOCK), [x.detach().contiguous(), bits, x.numel()], {"BLOCK": BLOCK})
    return bits


def mean_signs(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`thinwire.kernels.quantize.signs.mean_signs_torch`; passes as :func:`accumulate_signs`."""
    return _run(x.detach().contiguous(), None, 1.0, x, offsets)


def accumulate_signs(x: Tensor, residual: Tensor, decay: float, out: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`thinwire.kernels.quantize.signs.accumulate_signs_torch`.

    One pass where segments have one size, at most 1024 and a multiple of 8; else two.
    """
    return _run(x.detach().contiguous(), residual.detach(), decay, out.detach(), offsets)


def _run(x: Tensor, residual: Tensor | None, decay: float, out: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    bits = _room(x)
    # Zeros for the empty segments.
    scales = torch.zeros(offsets.numel() - 1, dtype=torch.float32, device=x.device)
    if not x.numel():
        return bits, scales
    levels = levels_of(offsets, x.device)
    first = levels[0]
    source: list[Argument] = [x, x if residual is None else residual, float(decay)]
    remembers = {"REMEMBERS": residual is not None}
    if first.is_last and first.cut.size and (first.cut.size % 8 == 0 or first.cut.num_segments == 1):
        arguments = [*source, out, bits, scales, first.cut.size, x.numel()]
        constants = {**remembers, "LOG": max(first.log, 5)}
        launch(_sign_buckets, first.num_blocks, arguments, constants, num_warps=1)
        return bits, scales
    sums = torch.zeros(scales.numel(), dtype=torch.float64, device=x.device)
    sum_segments(x, residual, decay, levels, 1, sums)
    constants = {"UNIFORM": first.cut.is_uniform, "BLOCK": BLOCK}
    launch(_divide, triton.cdiv(scales.numel(), BLOCK), [sums, scales, *first.cut.arguments], constants)
    arguments = [*source, out, bits, scales, *first.cut.arguments]
    launch(_sign_entries, triton.cdiv(x.numel(), BLOCK), arguments, {**remembers, **constants})
    return bits, scales


def _room(x: Tensor) -> Tensor:
    return torch.empty((x.numel() + 7) // 8, dtype=torch.uint8, device=x.device)


@triton.jit
def gathered(flags: tl.tensor, BLOCK: tl.constexpr) -> Any:
    """Bytes (uint8 ``[BLOCK / 8]``) whose bits are the flags, the first one lowest."""
    eights = tl.reshape(flags.to(tl.int32), (BLOCK // 8, 8)) << tl.arange(0, 8)[None, :]
    return tl.sum(eights, 1).to(tl.uint8)


@triton.jit
def _sign_bits(x: tl.tensor, bits: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr) -> None:
    start = tl.program_id(0).to(tl.int64) * BLOCK
    places = start + tl.arange(0, BLOCK)
    u = tl.load(x + places, mask=places < numel, other=0.0)
    octets = start // 8 + tl.arange(0, BLOCK // 8)
    tl.store(bits + octets, gathered(u < 0, BLOCK), mask=octets * 8 < numel)


@triton.jit
def _sign_buckets(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, out: tl.tensor, bits: tl.tensor, scales: tl.tensor,
    size: tl.tensor, numel: tl.tensor,
    REMEMBERS: tl.constexpr, LOG: tl.constexpr,
) -> None:  # fmt: skip
    """A bucket: all that is asked of it while it lies in registers."""
    bucket = tl.program_id(0).to(tl.int64)
    start = bucket * size
    end = tl.minimum(start + size, numel)
    places = start + tl.arange(0, 1 << LOG)
    inside = places < end
    u = tl.where(inside, load_entries(x, residual, decay, places, inside, REMEMBERS), 0.0)
    scale = _mean(fold(tl.abs(u).to(tl.float64), LOG), end - start)
    tl.store(scales + bucket, scale)
    octets = tl.arange(0, 1 << (LOG - 3)) + start // 8
    tl.store(bits + octets, gathered(u < 0, 1 << LOG), mask=octets * 8 < end)
    if REMEMBERS:
        tl.store(out + places, u - tl.where(u < 0, -scale, scale), mask=inside)


@triton.jit
def _mean(total: tl.tensor, count: tl.tensor) -> Any:
    # A quotient of f64 is rounded correctly on every device.
    return (total / count.to(tl.float64)).to(tl.float32)


@triton.jit
def _divide(
    sums: tl.tensor, scales: tl.tensor, table: tl.tensor, num_segments: tl.tensor, size: tl.tensor, numel: tl.tensor,
    UNIFORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Sums to means."""
    segments = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = segments < num_segments
    if UNIFORM:
        count = tl.minimum(numel - segments * size, size)
    else:
        count = tl.load(table + segments + 1, mask=inside, other=1) - tl.load(table + segments, mask=inside, other=0)
    total = tl.load(sums + segments, mask=inside, other=0.0)
    tl.store(scales + segments, _mean(total, tl.maximum(count, 1)), mask=inside)


@triton.jit
def _sign_entries(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, out: tl.tensor, bits: tl.tensor, scales: tl.tensor,
    table: tl.tensor, num_segments: tl.tensor, size: tl.tensor, numel: tl.tensor,
    REMEMBERS: tl.constexpr, UNIFORM: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Bits of whole bytes, wherever segments begin; and what the signs leave out."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    places = start + tl.arange(0, BLOCK)
    inside = places < numel
    u = load_entries(x, residual, decay, places, inside, REMEMBERS)
    octets = start // 8 + tl.arange(0, BLOCK // 8)
    tl.store(bits + octets, gathered((u < 0) & inside, BLOCK), mask=octets * 8 < numel)
    if REMEMBERS:
        segments = segments_of(table, num_segments, size, numel, start, UNIFORM, BLOCK)
        scale = tl.load(scales + segments)
        tl.store(out + places, u - tl.where(u < 0, -scale, scale), mask=inside)
