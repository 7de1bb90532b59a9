"""Quantization of a rotated vector to a Gaussian codebook: what EDEN and DRIVE share."""

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.shortening import shortened
from thinwire.kernels.quantize.codebook import nearest_codes
from thinwire.kernels.quantize.lloyd_max import LARGEST_BITS, gaussian_table
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.kernels.sample.halves import split_marked, subset_marks
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.kernels.transform.hadamard import hadamard_blocks, hadamard_rotate
from thinwire.layout import Segments
from thinwire.payloads import Codebook, Concat, Payload, Rotated, SeededSparse, Sum
from thinwire.random import Key

Scale = Literal["unbiased", "contraction"]
LEAST_BLOCK = 64
"""Entries of a block from which on two rounds leave a squared bias of .0005 or less on all vectors that were tried."""

_WORST = (0.5, 0.3064, 0.0968, 0.0275, 0.00748, 0.00208, 0.000618, 0.000222)
"""Bounds of ``E (z - Q(z))**2`` for 1 to 8 bits over all ``z = sum a_j s_j`` with ``sum a_j**2 = 1`` and random signs.

For one bit, after the best scale, ``1 - (E|z|)**2 <= 1/2`` by Khintchine's inequality with Szarek's constant. For more
the least bound that follows from ``E z**2 = 1``, ``E|z| >= 1/sqrt(2)`` and ``E z**(2p) <= (2p - 1)!!``, p = 2, 3, 4: a
linear program. An entry of a rotated vector is such a sum, whatever the vector.
"""


def rotate_and_quantize(
    x: Tensor, key: Key, segments: Segments, bits: float, rounds: Literal[1, 2], scale: Scale
) -> Payload:
    """The payload of :class:`thinwire.compressors.eden.EDEN`.

    Blocks of a rotation must not reach over the border of a segment. One segment, or equal ones of a power of two, are
    rotated in one go; of other cuts each segment is a part of its own.
    """
    return shortened(lambda x: _all_segments(x, key, segments, bits, rounds, scale), x)


def _all_segments(x: Tensor, key: Key, segments: Segments, bits: float, rounds: Literal[1, 2], scale: Scale) -> Payload:
    block = _common_block(segments)
    if segments.count <= 1 or block is not None:
        return _one(x, key, block, bits, rounds, scale)
    sizes: list[int] = segments.offsets().diff().tolist()
    parts = [
        _one(part, key.fold("segment", number), None, bits, rounds, scale)
        for number, part in enumerate(torch.split(x, sizes))
        if part.numel()
    ]
    return Concat(tuple(parts)) if parts else _one(x, key, None, bits, rounds, scale)


def worst_error(numel: int, bits: float, scale: Scale) -> float:
    """The least proven bound of the error for one segment, over all vectors.

    A magnitude and its number ascend together, so ``<r, q>**2 >= sum r_i**2 q_i**2 >= ||r||**2 ||q||**2 / n`` for a
    block of n entries (Chebyshev's sum inequality). With the unbiased scale the error is thus at most ``n - 1``. Two
    codebooks do not ascend together, but the bound stays: with ``z = r sqrt(n) / ||r||`` it says
    ``<z, q>**2 >= ||q||**2``. An entry of magnitude at most 1 has too little on the left only if its number is larger
    than that of an entry above 1; then their product, which is on the left twice, is more than what is missing. With
    the other scale the error is at most the mean of the two codebooks' :data:`_WORST`, and ``1 - (k/n) / 2`` where k
    entries are kept.
    """
    return max((_block_error(size, bits, scale) for size in set(_block_sizes(numel, None))), default=0.0)


def is_unbiased(numel: int, rounds: int, scale: Scale) -> bool:
    """Whether the mean is the vector, as far as can be measured: two rounds, and no block that is small.

    All of a vector may lie in its smallest block: of 65,540 entries in the last four.
    """
    sizes = [size for size in _block_sizes(numel, None) if size > 1]
    return not sizes or (scale == "unbiased" and rounds == 2 and min(sizes) >= LEAST_BLOCK)


def split_counts(size: int, bits: float) -> tuple[int, int]:
    """Entries of a block that get the smaller codebook, none for one, and those that get the larger one."""
    if bits >= LARGEST_BITS:
        return 0, size
    larger = int((bits - int(bits)) * size)
    if bits < 1.0:
        larger = max(1, larger)
        return size - larger, larger
    # The two halves of a block would be drawn as the same set.
    larger -= 1 if 0 < 2 * larger == size else 0
    return size - larger, larger


def _block_error(size: int, bits: float, scale: Scale) -> float:
    if scale == "unbiased" or size == 1:
        return size - 1.0
    lesser, larger = split_counts(size, bits)
    low, high = _WORST[int(bits) - 1] if bits >= 1 else 1.0, _WORST[min(int(bits), LARGEST_BITS - 1)]
    return min(1.0 - 1.0 / size if bits >= 1 else 1.0, (lesser * low + larger * high) / size)


def _common_block(segments: Segments) -> int | None:
    length = segments.length
    return length if segments.sizes is None and length & (length - 1) == 0 and segments.count > 1 else None


@functools.lru_cache(maxsize=256)
def _block_sizes(numel: int, block: int | None) -> tuple[int, ...]:
    return tuple(hadamard_blocks(numel, block).diff().tolist())


@functools.lru_cache(maxsize=256)
def _blocks(numel: int, block: int | None) -> Segments:
    """The blocks of the rotation as segments, in the form that takes the fewest bytes."""
    sizes = _block_sizes(numel, block)
    if len(set(sizes)) <= 1:
        return Segments.uniform(numel, sizes[0]) if sizes else Segments.whole(0)
    return Segments.of_sizes(sizes)


def _one(x: Tensor, key: Key, block: int | None, bits: float, rounds: Literal[1, 2], scale: Scale) -> Payload:
    address = key.fold("rotation").bits64()
    rotated = hadamard_rotate(x, address, rounds, block=block)
    blocks = _blocks(x.numel(), block)
    sizes = blocks.offsets().diff().to(torch.float64)
    norms = segment_sums(rotated, blocks.offsets(), 2)
    units = (norms / to_device(sizes, x.device)).sqrt_().to(torch.float32)
    if bits >= 1 and float(bits).is_integer():
        whole = _Coded.of(rotated, blocks, int(bits), units)
        scales = whole.fits / whole.squares if scale == "contraction" else norms / whole.fits
        return Rotated(whole.scaled(scales), address, rounds, block)
    drawn = key.fold("drawn").bits64()
    counts = [split_counts(size, bits) for size in _block_sizes(x.numel(), block)]
    few, many = (Segments.of_sizes([count[place] for count in counts]) for place in (1, 0))
    if bits < 1:
        values = rotated.index_select(0, segment_subsets(drawn, blocks.offsets(), few.offsets().diff(), x.device))
        kept = _Coded.of(values, few, 1, units)
        factors = to_device(sizes / few.offsets().diff().clamp_min(1).to(torch.float64), x.device)
        norms = segment_sums(values, few.offsets(), 2)
        scales = kept.fits / kept.squares if scale == "contraction" else norms / kept.fits * factors
        return Rotated(SeededSparse(kept.scaled(scales), few, drawn, blocks), address, rounds, block)
    # Of more than half of a block the same key draws just the rest.
    marks = subset_marks(drawn, blocks.offsets(), few.offsets().diff())
    larger, smaller = split_marked(rotated, to_device(marks, x.device))
    coarse, fine = _Coded.of(smaller, many, int(bits), units), _Coded.of(larger, few, int(bits) + 1, units)
    if scale == "contraction":
        of_coarse, of_fine = coarse.fits / coarse.squares, fine.fits / fine.squares
    else:
        # One scale for both, as in the paper: that is what <C(x), x> = ||x||^2 asks for, at the least error.
        of_coarse = of_fine = norms / (coarse.fits + fine.fits)
    parts = (
        SeededSparse(coarse.scaled(of_coarse), many, drawn, blocks),
        SeededSparse(fine.scaled(of_fine), few, drawn, blocks),
    )
    return Rotated(Sum(parts), address, rounds, block)


@dataclass(frozen=True, slots=True, eq=False)
class _Coded:
    """Codes of what is nearest to ``rotated / units``, and for each segment ``<r, q>`` and ``<q, q>``, f64."""

    codes: Tensor
    table: Tensor
    fits: Tensor
    squares: Tensor
    segments: Segments

    @staticmethod
    def of(rotated: Tensor, segments: Segments, bits: int, units: Tensor) -> "_Coded":
        table = gaussian_table(bits)
        codes, fits, squares = nearest_codes(rotated, segments.offsets(), units, table)
        return _Coded(codes, table, fits, squares, segments)

    def scaled(self, scales: Tensor) -> Codebook:
        # Of nothing, and of nothing but zeros.
        known = torch.where((self.squares > 0) & (self.fits != 0), scales, 0.0)
        return Codebook(self.codes, self.table, known.to(torch.float32), self.segments)
