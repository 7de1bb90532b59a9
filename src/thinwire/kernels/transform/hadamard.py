"""The randomised Hadamard transform: a rotation that spreads every entry over all, from a seed, in O(d log d).

Reference: Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", SIAM J. Comput. 2009; before quantization:
Suresh, Yu, Kumar and McMahan, "Distributed mean estimation with limited communication", ICML 2017.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU, aligned_array, array_of, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.random.philox import check_stream, random_words_torch
from thinwire.kernels.transform.hadamard_numba import STRIP, SWEEP, TILE_LOG, sweep, transform_halls, transform_small

_LOW = 0xFFFFFFFF
_ROUND = 1 << 60
"""Words of the stream between the signs of one round and those of the next."""

_HALL = TILE_LOG + 2 * SWEEP
"""log2 of the entries, 8 MiB, that are transformed while they lie in the third cache."""

_SMALLEST = 256
"""Entries of the smallest block that is done in vectors."""


def hadamard_rotate(
    x: Tensor,
    key: int,
    rounds: int = 1,
    *,
    inverse: bool = False,
    block: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``R x`` with ``R = (H D_r / sqrt(n)) ... (H D_1 / sqrt(n))``, or ``R^-1 x``, block by block.

    ``H[i, j] = (-1)**popcount(i & j)`` is the Hadamard matrix of a block's ``n`` entries, and ``D_r`` a diagonal of
    random signs: entry ``i`` of the whole vector is negated in round ``r`` (0 or 1) where bit ``i % 32`` of word
    ``r * 2**60 + i // 32`` of the key's stream is set. ``R`` keeps norms and inner products. The length is not padded:
    blocks are those of :func:`hadamard_blocks`.

    The order of operations is part of the definition, so that every machine gets the same bits: the signs, then
    ``(a, b) -> (a + b, a - b)`` on pairs at distance 1, 2, 4, ..., n / 2, then one product with ``1 / sqrt(n)`` rounded
    to f32. The inverse does the same steps in the opposite order. Sums grow up to ``n`` times the largest entry before
    they are scaled.

    Args:
        x: f32 ``[d]``, any ``d``.
        key: in ``[0, 2**64)``.
        rounds: 1 or 2. One round maps some vectors, such as ``(1, 1/2, 1/4, ...)``, to entries far from Gaussian; where
            a method's unbiasedness rests on that, take two.
        inverse: undo the rotation of the same key, rounds and block, up to rounding.
        block: a power of two, the largest block; as large as possible if not given.
        out: contiguous f32 ``[d]`` on the device of ``x``, which may be ``x`` itself; a new vector if not given.

    Returns:
        ``out``.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> spike = torch.tensor([0.0, 0.0, 4.0, 0.0])
        >>> rotated = hadamard_rotate(spike, 7)
        >>> rotated.abs().tolist()
        [2.0, 2.0, 2.0, 2.0]
        >>> hadamard_rotate(rotated, 7, inverse=True).abs().tolist()
        [0.0, 0.0, 4.0, 0.0]
    """
    _check(x, key, rounds, block, out)
    if not x.is_cpu:
        rotated = body_for(hadamard_rotate_torch, x.device)(x, key, rounds, inverse=inverse, block=block)
        return rotated if out is None else out.copy_(rotated)
    source = array_of(x)
    target = aligned_array(source.size, np.float32) if out is None else array_of(out)
    for number in range(rounds)[:: -1 if inverse else 1]:
        _rotate(source, target, key, number * _ROUND, inverse, block)
        source = target
    return tensor_of(target) if out is None else out


def hadamard_rotate_torch(
    x: Tensor, key: int, rounds: int = 1, *, inverse: bool = False, block: int | None = None
) -> Tensor:
    """:func:`hadamard_rotate` in torch operations, on any device."""
    _check(x, key, rounds, block, None)
    places = torch.arange(32, dtype=torch.int64, device=x.device)
    for number in range(rounds)[:: -1 if inverse else 1]:
        words = random_words_torch(key, number * _ROUND, (x.numel() + 31) // 32, x.device)
        negated = ((words.unsqueeze(1) >> places) & 1).view(-1)[: x.numel()] != 0
        x = x if inverse else torch.where(negated, -x, x)
        parts = [_transform_torch(x[a:b], size, inverse) for a, b, size in _runs(x.numel(), block)]
        x = torch.cat(parts) if parts else x.clone()
        x = torch.where(negated, -x, x) if inverse else x
    return x


def hadamard_blocks(numel: int, block: int | None = None) -> Tensor:
    """Where the blocks of :func:`hadamard_rotate` begin, and the end: int64, as offsets of segments.

    As many blocks of ``block`` entries as fit; the rest is cut into smaller powers of two, the largest first. So the
    rotation adds no entry. Each block is rotated on its own, and a quantizer should give each its own scale.

    Raises:
        ConfigError: a negative length, or a block that is not a power of two.

    Example:
        >>> hadamard_blocks(11, block=4).tolist()
        [0, 4, 8, 10, 11]
        >>> hadamard_blocks(11).tolist()
        [0, 8, 10, 11]
    """
    _check_block(numel, block)
    starts = [
        torch.arange(start, stop, size, dtype=torch.int64, device=CPU) for start, stop, size in _runs(numel, block)
    ]
    return torch.cat([*starts, torch.tensor([numel], dtype=torch.int64, device=CPU)])


def _check(x: Tensor, key: int, rounds: int, block: int | None, out: Tensor | None) -> None:
    check_entries(x)
    if rounds not in (1, 2):
        raise ConfigError(f"{rounds} rounds were asked for; a rotation has 1 or 2")
    check_stream(key, 0, x.numel())
    _check_block(x.numel(), block)
    if out is not None and (
        out.dtype != torch.float32 or out.shape != x.shape or not out.is_contiguous() or out.device != x.device
    ):
        raise ConfigError(
            f"the result needs a contiguous vector of {x.numel()} float32 on {x.device}, "
            f"got {out.dtype} of shape {tuple(out.shape)} on {out.device}"
        )


def _check_block(numel: int, block: int | None) -> None:
    if numel < 0:
        raise ConfigError(f"a vector of {numel} entries was given; it must have 0 or more")
    if block is not None and (block < 1 or block & (block - 1)):
        raise ConfigError(f"a block of {block} entries was given; it must be a power of two")


def _runs(numel: int, block: int | None) -> list[tuple[int, int, int]]:
    """``(start, stop, size)`` of neighbouring blocks of one size; every start is a multiple of its size."""
    found, start = [], 0
    while start < numel:
        size = 1 << ((numel - start).bit_length() - 1)
        size = size if block is None else min(size, block)
        stop = start + (numel - start) // size * size
        found.append((start, stop, size))
        start = stop
    return found


def _scale(size: int) -> float:
    return 1 / math.sqrt(size)


def _transform_torch(x: Tensor, size: int, inverse: bool) -> Tensor:
    distances = [1 << level for level in range(size.bit_length() - 1)]
    for distance in reversed(distances) if inverse else distances:
        a, b = x.view(-1, 2, distance).unbind(1)
        x = torch.stack([a + b, a - b], 1).view(-1)
    return x * _scale(size)


def _rotate(source: Any, target: Any, key: int, first_word: int, inverse: bool, block: int | None) -> None:
    """One round of all blocks, from ``source`` to ``target``."""
    stream = (np.uint32(key & _LOW), np.uint32(key >> 32), first_word)
    for start, stop, size in _runs(source.size, block):
        if size < _SMALLEST:
            # From here on all blocks are small, and one call takes all of their sizes.
            rest = shares(source.size - start, 128)
            run(transform_small, [(source, target, start + a, start + b, size, *stream, inverse) for a, b in rest])
            break
        log, scale = size.bit_length() - 1, np.float32(_scale(size))
        hall, one = _hall(stop - start, log), np.float32(1.0)
        cuts = [(start + a, start + b) for a, b in shares(stop - start, 1 << hall)]
        sweeps = [(low, min(low + SWEEP, log)) for low in range(hall, log, SWEEP)]
        if not inverse:
            factor = one if sweeps else scale
            run(transform_halls, [(source, target, a, b, hall, *stream, factor, False) for a, b in cuts])
        read = source if inverse else target
        for low, high in reversed(sweeps) if inverse else sweeps:
            factor = scale if high == log and not inverse else one
            work = shares(stop - start, STRIP << (high - low))
            run(
                sweep,
                [(read[start:stop], target[start:stop], a, b, low, high - low, factor, inverse) for a, b in work],
            )
            read = target
        if inverse:
            run(transform_halls, [(read, target, a, b, hall, *stream, scale, True) for a, b in cuts])


def _hall(numel: int, log: int) -> int:
    """log2 of the entries whose levels are all done before those of others: less if some threads had none of them."""
    hall = min(log, _HALL)
    least = 2 * torch.get_num_threads() if torch.get_num_threads() > 1 else 1
    while hall > TILE_LOG and numel >> hall < least:
        hall = max(TILE_LOG, hall - SWEEP)
    return hall
