"""The loops of :mod:`.hadamard`: blocks of a few entries, tiles that lie in the second cache, and further passes."""

import math
from typing import Any

import numpy as np

from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.intrinsics import empty
from thinwire.kernels.jit.simd import LANES
from thinwire.kernels.random.philox import fill_words
from thinwire.kernels.transform.hadamard_simd import (
    LARGEST_STEP,
    SQUARE,
    levels_down,
    levels_up,
    square_down,
    square_up,
)

_SQUARE_LOG = SQUARE.bit_length() - 1

ROOM_LOG = _SQUARE_LOG + LARGEST_STEP
"""log2 of the entries that are transformed while they lie in the first cache."""

_ROOM = 1 << ROOM_LOG

STRIP = 4096
"""Neighbouring columns of a row that a further pass works on at a time."""


@kernel
def transform_small(
    source: Any, target: Any, start: int, stop: int, largest: int, k0: Any, k1: Any, first_word: int, inverse: bool
) -> None:
    """Blocks of ``largest`` entries, at most 128, and then of smaller powers of two, from a multiple of 128 on."""
    pairs, words = empty(2, np.uint64), empty(4, np.uint32)
    row, signs = empty(128, np.float32), empty(128, np.float32)
    size = largest
    # 128 entries take the signs of one Philox block.
    for begin in range(start, stop, 128):
        fill_words(k0, k1, (first_word + begin // 32) // 4, pairs, words)
        for i in range(128):
            signs[i] = np.float32(-1.0) if (words[i >> 5] >> np.uint32(i & 31)) & np.uint32(1) else np.float32(1.0)
        numel = min(128, stop - begin)
        first = 0
        while first < numel:
            while size > stop - begin - first:
                size >>= 1
            scale = np.float32(1.0 / math.sqrt(size))
            for i in range(first, first + size):
                row[i] = source[begin + i] if inverse else source[begin + i] * signs[i]
            distance = size >> 1 if inverse else 1
            while 0 < distance < size:
                for low in range(first, first + size, 2 * distance):
                    for i in range(low, low + distance):
                        a, b = row[i], row[i + distance]
                        row[i], row[i + distance] = a + b, a - b
                distance = distance >> 1 if inverse else distance << 1
            for i in range(first, first + size):
                target[begin + i] = row[i] * scale * signs[i] if inverse else row[i] * scale
            first += size


@kernel
def transform_tiles(
    source: Any,
    target: Any,
    start: int,
    stop: int,
    log: int,
    k0: Any,
    k1: Any,
    first_word: int,
    scale: Any,
    inverse: bool,
) -> None:
    """Signs and the lowest ``log`` levels, 8 to 16, of aligned tiles of ``2**log`` entries."""
    size = 1 << log
    one = np.float32(1.0)
    pairs, words = empty(size // 64, np.uint64), empty(size // 32, np.uint32)
    # Three storeys: a square of 256 entries in registers, a room of squares in the first cache, the tile in the second.
    room = min(size, _ROOM)
    middle = min(log, ROOM_LOG) - _SQUARE_LOG
    upper = max(log, ROOM_LOG) - ROOM_LOG
    for begin in range(start, stop, size):
        fill_words(k0, k1, (first_word + begin // 32) // 4, pairs, words)
        read = source
        if inverse and upper > 0:
            levels_down(read, begin, _ROOM, target, begin, _ROOM, _ROOM // LANES, upper, one)
            read = target
        for first in range(begin, begin + size, room):
            squares = range(first, first + room, SQUARE)
            if inverse:
                part = read
                if middle > 0:
                    levels_down(read, first, SQUARE, target, first, SQUARE, SQUARE // LANES, middle, one)
                    part = target
                for square in squares:
                    square_down(part, target, square, words, (square - begin) // 32, scale)
            else:
                factor = scale if middle == 0 else one
                for square in squares:
                    square_up(read, target, square, words, (square - begin) // 32, factor)
                if middle > 0:
                    factor = scale if upper == 0 else one
                    levels_up(target, first, SQUARE, target, first, SQUARE, SQUARE // LANES, middle, factor)
        if upper > 0 and not inverse:
            levels_up(target, begin, _ROOM, target, begin, _ROOM, _ROOM // LANES, upper, scale)


@kernel
def sweep(
    source: Any, target: Any, start: int, stop: int, low: int, num_levels: int, scale: Any, inverse: bool
) -> None:
    """Levels from ``low`` on, 1 to 4 of them, for the strips of columns that have entries ``start`` to ``stop``.

    A block is a matrix of ``2**num_levels`` rows of ``2**low`` entries; a strip is ``STRIP`` columns of it.
    """
    width = 1 << low
    rows, strips = 1 << num_levels, width // STRIP
    for strip in range(start // (rows * STRIP), stop // (rows * STRIP)):
        corner = strip // strips * (rows * width) + strip % strips * STRIP
        if inverse:
            levels_down(source, corner, width, target, corner, width, STRIP // LANES, num_levels, scale)
        else:
            levels_up(source, corner, width, target, corner, width, STRIP // LANES, num_levels, scale)
