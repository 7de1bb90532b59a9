"""Rounding at random to a small number of levels, on CUDA: norms, levels, what they leave out and packing at once.

Buckets that fit into a program are read once. Longer segments are read twice: a pass measures them, another rounds.
"""

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import array_of, to_device
from thinwire.kernels.bitpack.bits_triton import packed_room, store_packed
from thinwire.kernels.flat.entries_triton import load_entries
from thinwire.kernels.flat.finite import LARGEST
from thinwire.kernels.flat.segments_triton import common_size, cut_at, segments_of
from thinwire.kernels.jit.launches import BLOCK, Argument, launch
from thinwire.kernels.quantize.dither import Norm
from thinwire.kernels.random.philox_triton import key_argument, philox
from thinwire.kernels.reduce.block_trees_triton import levels_of, sum_segments
from thinwire.kernels.reduce.segment_sums_triton import max_segments

_LARGEST = tl.constexpr(float(np.float32(LARGEST)))
_ENTRIES = tl.constexpr(1024)
"""Entries whose random numbers belong together: a program's."""


def quantize(
    x: Tensor, offsets: Tensor, num_levels: int, norm: Norm, key: int, shrink: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See :func:`thinwire.kernels.quantize.dither.quantize_torch`.

    Buckets of a power of two up to 1024 take one pass over memory, other segments two.
    """
    return _run(x.detach().contiguous(), None, 1.0, None, offsets, num_levels, norm, key, shrink)


def accumulate_quantize(
    x: Tensor,
    residual: Tensor,
    decay: float,
    out: Tensor,
    offsets: Tensor,
    num_levels: int,
    norm: Norm,
    key: int,
    shrink: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See :func:`thinwire.kernels.quantize.dither.accumulate_quantize_torch`; passes as of :func:`quantize`."""
    return _run(x.detach().contiguous(), residual, decay, out, offsets, num_levels, norm, key, shrink)


def _run(
    x: Tensor, residual: Tensor | None, decay: float, out: Tensor | None, offsets: Tensor, num_levels: int, norm: Norm,
    key: int, shrink: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    num_segments, numel = offsets.numel() - 1, x.numel()
    factors = torch.ones(1, dtype=torch.float32, device=x.device) if shrink is None else to_device(shrink, x.device)
    # Not where the scales go: of a few numbers, warps would read what others had written.
    factors = factors.expand(num_segments).contiguous()
    scales = torch.empty(num_segments, dtype=torch.float32, device=x.device)
    width = (2 * num_levels).bit_length()
    packed, target = packed_room(numel, width, x.device)
    ends = array_of(offsets)
    size = triton.next_power_of_2(numel) if num_segments == 1 else common_size(ends)
    power = 2 if norm == "l2" else 0
    source: list[Argument] = [x, x if residual is None else residual, float(decay), x if out is None else out]
    rest: list[Argument] = [target, float(num_levels), key_argument(key)]
    constants = {"REMEMBERS": residual is not None, "WIDTH": width}
    programs = triton.cdiv(numel, BLOCK)
    if 0 < size <= BLOCK and BLOCK % size == 0:
        arguments = [*source, factors, scales, *rest, numel]
        log = size.bit_length() - 1
        launch(_quantize_buckets, programs, arguments, {"POWER": power, "LOG": log, **constants})
        return packed, scales
    units = _measure(x, residual, decay, offsets, num_levels, power, (factors, scales))
    cut = cut_at(offsets, x.device)
    arguments = [*source, units, *rest, *cut.arguments]
    launch(_quantize_segments, programs, arguments, {"UNIFORM": cut.is_uniform, **constants})
    return packed, scales


def _measure(
    x: Tensor, residual: Tensor | None, decay: float, offsets: Tensor, num_levels: int, power: int,
    scaled: tuple[Tensor, Tensor],
) -> Tensor:  # fmt: skip
    """The units of all segments, their inverses and the units of what is sent: f32 ``[3, s]``; and their scales.

    ``scaled`` has factors, and where the scales go.
    """
    scales = scaled[1]
    if power == 2:
        measures = torch.zeros(scales.numel(), dtype=torch.float64, device=x.device)
        if x.numel():
            sum_segments(x, residual, decay, levels_of(offsets, x.device), 2, measures)
    else:
        measures = max_segments(x, residual, decay, offsets)
    units = torch.empty((3, scales.numel()), dtype=torch.float32, device=x.device)
    arguments: list[Argument] = [measures, *scaled, units, scales.numel(), float(num_levels)]
    launch(_scale, triton.cdiv(scales.numel(), BLOCK), arguments, {"POWER": power, "BLOCK": BLOCK})
    return units


@triton.jit
def scale_of(measures: tl.tensor, factors: tl.tensor, num_levels: tl.tensor, POWER: tl.constexpr) -> Any:
    """Units of segments, their inverses, units of what is sent, and scales, from squares or largest magnitudes."""
    norms = measures
    if POWER == 2:
        # Of f64: the root is rounded as IEEE 754 says.
        norms = tl.sqrt(measures).to(tl.float32)
    # Of finite entries; they are clipped there.
    norms = tl.where((norms > _LARGEST) & (measures < float("inf")), _LARGEST, norms)
    most = tl.zeros_like(norms) + num_levels
    units = tl.div_rn(norms, most)
    scales = norms * factors
    return units, tl.div_rn(tl.zeros_like(units) + 1.0, units), tl.div_rn(scales, most), scales


@triton.jit
def dither(group: tl.tensor, STAGE: tl.constexpr, key: tl.tensor) -> Any:
    """The high (stage 0) or the low (1) 16 bits of the random numbers of the 1024 entries of a group, f32."""
    w0, w1, w2, w3 = philox(group * 128 + tl.arange(0, 128), STAGE, key)
    # In this order a thread's own entries take its own numbers.
    words = tl.join(tl.join(w1, w0), tl.join(w3, w2))
    halves = tl.permute(tl.join(words & 0xFFFF, words >> 16), (2, 0, 1, 3))
    return tl.reshape(halves, (_ENTRIES,)).to(tl.float32)


@triton.jit
def round_entries(
    u: tl.tensor, units: tl.tensor, inverses: tl.tensor, num_levels: tl.tensor, group: tl.tensor, key: tl.tensor
) -> Any:
    """The signed levels (int32) of the 1024 entries of a group, of any shape; units and inverses broadcast to it."""
    magnitudes = tl.abs(u)
    ratios = magnitudes * inverses
    usual = (units > 2.0**-100) & (units < 2.0**100)
    # Both branches are rare, and the same for all entries of a program.
    if tl.min(tl.reshape(usual.to(tl.int32), (usual.numel,)), 0) == 0:
        ratios = tl.where(usual, ratios, tl.div_rn(magnitudes, tl.broadcast_to(units, u.shape)))
    # Written so that a NaN ends at num_levels.
    ratios = tl.where(ratios < num_levels, ratios, num_levels)
    floors = tl.floor(ratios)
    excess = (ratios - floors) * 65536.0 - tl.reshape(dither(group, 0, key), u.shape)
    up = (excess >= 1.0).to(tl.int32)
    open_ = ((excess > 0.0) & (excess < 1.0)).to(tl.int32)
    if tl.max(tl.reshape(open_, (_ENTRIES,)), 0) > 0:
        fine = tl.reshape(dither(group, 1, key), u.shape)
        up = (fine * 2.0**-16 < excess).to(tl.int32)
    levels = tl.where(units > 0.0, floors.to(tl.int32) + up, 0)
    return tl.where(u < 0.0, -levels, levels)


@triton.jit
def codes_of(levels: tl.tensor, num_levels: tl.tensor, inside: tl.tensor) -> Any:
    """What is packed of levels; 0 outside."""
    # A sum, since the interpreter's numbers have no types.
    return tl.where(inside, levels + (tl.zeros([], tl.float32) + num_levels).to(tl.int32), 0)


@triton.jit
def fold_rows(numbers: tl.tensor, ROWS: tl.constexpr, LOG: tl.constexpr) -> Any:
    """Sums of the rows of ``[ROWS, 2**LOG]`` by halving, ``a = a[:n/2] + a[n/2:]``."""
    # Halved along the first axis: along the second, LLVM does not come to an end where the numbers are used again.
    numbers = tl.trans(numbers)
    for level in tl.static_range(LOG):
        # A sum of two is the same in any order.
        numbers = tl.sum(tl.reshape(numbers, (2, 1 << (LOG - 1 - level), ROWS)), 0)
    return tl.reshape(numbers, (ROWS,))


@triton.jit(do_not_specialize=["key"])
def _quantize_buckets(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, out: tl.tensor, factors: tl.tensor, scales: tl.tensor,
    target: tl.tensor, num_levels: tl.tensor, key: tl.tensor, numel: tl.tensor,
    REMEMBERS: tl.constexpr, POWER: tl.constexpr, LOG: tl.constexpr, WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    size: tl.constexpr = 1 << LOG
    rows: tl.constexpr = _ENTRIES // size
    group = tl.program_id(0).to(tl.int64)
    places = group * _ENTRIES + tl.arange(0, _ENTRIES)
    inside = places < numel
    u = load_entries(x, residual, decay, places, inside, REMEMBERS)
    # Chosen last: outside, zero times the factor may be NaN.
    u = tl.reshape(tl.where(inside, u, 0.0), (rows, size))
    if POWER == 2:
        wide = u.to(tl.float64)
        measures = fold_rows(wide * wide, rows, LOG)
    else:
        # Of bits: NaN is the largest.
        measures = tl.max(u.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 1).to(tl.float32, bitcast=True)
    buckets = group * rows + tl.arange(0, rows)
    known = buckets * size < numel
    factor = tl.load(factors + buckets, mask=known, other=1.0)
    units, inverses, sent, scale = scale_of(measures, factor, num_levels, POWER)
    tl.store(scales + buckets, scale, mask=known)
    levels = round_entries(u, units[:, None], inverses[:, None], num_levels, group, key)
    if REMEMBERS:
        left = u - sent[:, None] * levels.to(tl.float32)
        tl.store(out + places, tl.reshape(left, (_ENTRIES,)), mask=inside)
    codes = codes_of(tl.reshape(levels, (_ENTRIES,)), num_levels, inside)
    store_packed(codes, group * _ENTRIES, numel, target, WIDTH, _ENTRIES)


@triton.jit
def _scale(
    measures: tl.tensor, factors: tl.tensor, scales: tl.tensor, table: tl.tensor, num_segments: tl.tensor,
    num_levels: tl.tensor,
    POWER: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Scales, and the rows of ``table``: units, inverses, units of what is sent."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < num_segments
    factor = tl.load(factors + places, mask=inside, other=1.0)
    found = scale_of(tl.load(measures + places, mask=inside, other=0.0), factor, num_levels, POWER)
    for row in tl.static_range(3):
        tl.store(table + row * num_segments + places, found[row], mask=inside)
    tl.store(scales + places, found[3], mask=inside)


@triton.jit(do_not_specialize=["key"])
def _quantize_segments(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, out: tl.tensor, numbers: tl.tensor, target: tl.tensor,
    num_levels: tl.tensor, key: tl.tensor,
    table: tl.tensor, num_segments: tl.tensor, size: tl.tensor, numel: tl.tensor,
    REMEMBERS: tl.constexpr, UNIFORM: tl.constexpr, WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    group = tl.program_id(0).to(tl.int64)
    places = group * _ENTRIES + tl.arange(0, _ENTRIES)
    inside = places < numel
    u = load_entries(x, residual, decay, places, inside, REMEMBERS)
    u = tl.where(inside, u, 0.0)
    found = numbers + segments_of(table, num_segments, size, numel, group * _ENTRIES, UNIFORM, _ENTRIES)
    levels = round_entries(u, tl.load(found), tl.load(found + num_segments), num_levels, group, key)
    if REMEMBERS:
        sent = tl.load(found + num_segments + num_segments)
        tl.store(out + places, u - sent * levels.to(tl.float32), mask=inside)
    codes = codes_of(levels, num_levels, inside)
    store_packed(codes, group * _ENTRIES, numel, target, WIDTH, _ENTRIES)
