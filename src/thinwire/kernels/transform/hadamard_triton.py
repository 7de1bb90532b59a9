"""The randomised Hadamard transform on CUDA: tiles in registers, then rows that lie far apart, seven levels a pass.

All blocks of the vector, the smaller ones at its end too, are transformed by the same launches. Entry ``i`` of ``d``
lies in a block of ``2**b`` entries, ``b`` the highest bit of ``i ^ d`` or that of the largest block: the blocks follow
one another as the binary digits of ``d`` do.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.kernels.jit.launches import launch
from thinwire.kernels.random.philox_triton import key_argument, words_in_order

_LOG = 12
"""log2 of the entries of a program."""

_WARPS = 8
"""Groups of threads of a program: 16 entries for each thread, so that none of its numbers leaves the registers."""

_COLUMNS_LOG = 5
"""log2 of the neighbouring entries that a further pass reads at least: a line of the cache."""

_ROUND = 1 << 58
"""Blocks of four words of the stream between the signs of one round and those of the next."""

_ROOT: tl.constexpr = tl.constexpr(0.5**0.5)


def hadamard_rotate(x: Tensor, key: int, rounds: int = 1, *, inverse: bool = False, block: int | None = None) -> Tensor:
    """See :func:`thinwire.kernels.transform.hadamard.hadamard_rotate_torch`.

    A round takes one pass for blocks of up to ``2**12`` entries, two up to ``2**19``, three up to ``2**26``.
    """
    return rotate_by_tiles(x, key, rounds, inverse, block, _LOG)


def rotate_by_tiles(x: Tensor, key: int, rounds: int, inverse: bool, block: int | None, log: int) -> Tensor:
    """:func:`hadamard_rotate` with tiles of ``2**log`` entries, at least 256, by which no bit changes."""
    out = torch.empty(x.numel(), dtype=torch.float32, device=x.device)
    if not x.numel():
        return out
    top = x.numel().bit_length() - 1
    top = top if block is None else min(top, block.bit_length() - 1)
    source = x.detach().contiguous()
    for number in range(rounds)[:: -1 if inverse else 1]:
        _round(source, out, key_argument(key), number * _ROUND, inverse, top, log)
        source = out
    return out


def _round(source: Tensor, out: Tensor, key: int, first_block: int, inverse: bool, top: int, log: int) -> None:
    step, numel = log - _COLUMNS_LOG, out.numel()
    sweeps = [(low, min(step, top - low)) for low in range(log, top, step)]
    tiles = -(-numel >> log)
    constants = {"LEVELS": min(log, top), "MORE": top > log, "INVERSE": inverse, "LOG": log}
    if not inverse:
        launch(_tiles, tiles, [source, out, numel, key, first_block, top], constants, num_warps=_WARPS)
        source = out
    for low, levels in reversed(sweeps) if inverse else sweeps:
        programs = -(-numel >> (low + levels)) << (low + levels - log)
        of_rows = {"LOW": low, "LEVELS": levels, "MORE": top > low + levels, "INVERSE": inverse}
        launch(
            _rows,
            programs,
            [source, out, numel],
            {**of_rows, "COPIES": source is not out, "LOG": log},
            num_warps=_WARPS,
        )
        source = out
    if inverse:
        launch(_tiles, tiles, [source, out, numel, key, first_block, top], constants, num_warps=_WARPS)


@triton.jit
def _butterfly(u: tl.tensor, is_active: tl.tensor, BIT: tl.constexpr, LOG: tl.constexpr) -> tl.tensor:
    """``(a, b) -> (a + b, a - b)`` of entries whose numbers differ in a bit."""
    bits = tl.reshape(u.to(tl.int32, bitcast=True), (1 << (LOG - 1 - BIT), 2, 1 << BIT))
    # The sum of both, which wraps around, less the one is the other.
    partner = tl.reshape(tl.sum(bits, 1, keep_dims=True) - bits, (1 << LOG,)).to(tl.float32, bitcast=True)
    is_upper = (tl.arange(0, 1 << LOG) >> BIT) & 1
    return tl.where(is_active, partner + tl.where(is_upper != 0, -u, u), u)


@triton.jit
def _highest_bit(number: tl.tensor) -> tl.tensor:
    """Of a whole number from 1 to ``2**24``, by the exponent of the float; below 0 for 0."""
    return (number.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def _scale(log: tl.tensor) -> tl.tensor:
    """``2**(-log / 2)`` rounded to f32, by its bits: a power of two, times the root of a half if ``log`` is odd."""
    power = ((127 - (log >> 1)) << 23).to(tl.float32, bitcast=True)
    return tl.where((log & 1) != 0, power * _ROOT, power)


@triton.jit
def _negated(u: tl.tensor, first: tl.tensor, key: tl.tensor, LOG: tl.constexpr) -> tl.tensor:
    """Each entry with the other sign where its random bit is set."""
    words = words_in_order(first, 0, key, 1 << (LOG - 5)).to(tl.int32, bitcast=True)
    words = tl.reshape(tl.broadcast_to(words[:, None], (1 << (LOG - 5), 32)), (1 << LOG,))
    sign = (words >> (tl.arange(0, 1 << LOG) & 31)) << 31
    return (u.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["key", "first_block", "top"])
def _tiles(
    source: tl.tensor, target: tl.tensor, numel: tl.tensor, key: tl.tensor, first_block: tl.tensor, top: tl.tensor,
    LEVELS: tl.constexpr, MORE: tl.constexpr, INVERSE: tl.constexpr, LOG: tl.constexpr,
) -> None:  # fmt: skip
    """Signs, and the levels within ``2**LOG`` neighbouring entries; ``MORE`` if there are higher levels."""
    start = tl.program_id(0).to(tl.int64) << LOG
    lanes = tl.arange(0, 1 << LOG)
    inside = start + lanes < numel
    u = tl.load(source + start + lanes, mask=inside, other=0.0)
    first = (start >> 7) + first_block
    if not INVERSE:
        u = _negated(u, first, key, LOG)
    # From the tile's own bits on, the same for all its entries.
    above = (start ^ numel) >> LOG
    # Of int64, since Triton makes a constant of a length of 1.
    rest = ((tl.zeros([], tl.int64) + numel) & ((1 << LOG) - 1)).to(tl.int32)
    apart = tl.where(above != 0, 1 << LOG, lanes ^ rest)
    log = tl.minimum(_highest_bit(apart), LEVELS)
    for level in tl.static_range(LEVELS - 1 if INVERSE else 0, -1 if INVERSE else LEVELS, -1 if INVERSE else 1):
        u = _butterfly(u, log > level, level, LOG)
    factor = _scale(log)
    if MORE:
        if INVERSE:
            whole = _log_of(above, LOG, top)
            factor = tl.where(above > 1, _scale(whole), factor)
        else:
            factor = tl.where(above > 1, 1.0, factor)
    u = u * factor
    if INVERSE:
        u = _negated(u, first, key, LOG)
    tl.store(target + start + lanes, u, mask=inside)


@triton.jit
def _log_of(above: tl.tensor, LOG: tl.constexpr, top: tl.tensor) -> tl.tensor:
    """log2 of the block of a tile that is not larger."""
    log = tl.zeros([], tl.int32) + LOG
    while above > 1:
        above = above >> 1
        log += 1
    return tl.minimum(log, tl.zeros([], tl.int32) + top)


@triton.jit
def _rows(
    source: tl.tensor, target: tl.tensor, numel: tl.tensor,
    LOW: tl.constexpr, LEVELS: tl.constexpr, MORE: tl.constexpr, INVERSE: tl.constexpr, COPIES: tl.constexpr,
    LOG: tl.constexpr,
) -> None:  # fmt: skip
    """Levels from ``LOW`` on: ``2**LEVELS`` rows of ``2**LOW`` entries, of which a program takes some columns.

    Of blocks without these levels the entries stay as they are, and are not written unless they are to be copied.
    """
    COLUMNS: tl.constexpr = LOG - LEVELS
    number = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, 1 << LOG)
    corner = ((number >> (LOW - COLUMNS)) << (LOW + LEVELS)) + ((number & ((1 << (LOW - COLUMNS)) - 1)) << COLUMNS)
    places = corner + ((lanes >> COLUMNS).to(tl.int64) << LOW) + (lanes & ((1 << COLUMNS) - 1))
    apart = tl.minimum((places ^ numel) >> (LOW + 1), 1 << LEVELS).to(tl.int32)
    inside = places < numel
    if not COPIES:
        inside = inside & (apart != 0)
    u = tl.load(source + places, mask=inside, other=0.0)
    count = tl.maximum(_highest_bit(apart) + 1, 0)
    for level in tl.static_range(LEVELS - 1 if INVERSE else 0, -1 if INVERSE else LEVELS, -1 if INVERSE else 1):
        u = _butterfly(u, count > level, COLUMNS + level, LOG)
    if not INVERSE:
        factor = _scale(LOW + tl.minimum(count, LEVELS))
        if MORE:
            factor = tl.where(count > LEVELS, 1.0, factor)
        u = u * factor
    tl.store(target + places, u, mask=inside)
