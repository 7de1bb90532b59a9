"""The loops of :mod:`.hadamard`: blocks of a few entries, tiles that lie in the second cache, and further passes."""

import math
from typing import Any

import numpy as np

from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.intrinsics import empty, seen_as
from thinwire.kernels.jit.simd import LANES
from thinwire.kernels.random.philox import fill_words
from thinwire.kernels.transform.hadamard_simd import (
    last_levels_down,
    last_levels_up,
    levels_down,
    levels_up,
    square_log,
    squares_down,
    squares_up,
)

_ROOM_LOG = 12
"""log2 of the entries that are transformed while they lie in the first cache."""

_PITCH = (1 << _ROOM_LOG) + LANES
"""From one room to the next: multiples of a page would lie on the same lines of the first cache."""

TILE_LOG = _ROOM_LOG + 3
"""log2 of the entries that are transformed while they lie in the second cache."""

SWEEP = 3
"""Levels that one further pass over memory does: more rows at once would fall onto the same lines of a cache."""

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


@helper
def _transform_tiles(
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
    """Signs and the lowest ``log`` levels, 8 to 15, of aligned blocks of ``2**log`` entries."""
    one = np.float32(1.0)
    # Three storeys: squares in registers, a room of squares in the first cache, the tile in the second. A room may hold
    # several small blocks.
    upper = max(log, _ROOM_LOG) - _ROOM_LOG
    room_log = log - upper
    size = 1 << (_ROOM_LOG + upper)
    tile = empty(_PITCH << upper, np.float32)
    pairs, words = empty(size // 64, np.uint64), empty(size // 32, np.uint32)
    bits = seen_as(words, np.uint8)
    for begin in range(start, stop, size):
        fill_words(k0, k1, (first_word + begin // 32) // 4, pairs, words)
        room = min(1 << _ROOM_LOG, stop - begin)
        if inverse:
            last_levels_down(source, begin, room, tile, 0, _PITCH, room // LANES, upper, one)
        for number in range(1 << upper):
            place, first = number * _PITCH, number * room
            if not inverse:
                squares_up(source, begin + first, tile, place, room, bits, first // 8, one, target, begin + first)
            # Three levels a step leave registers free.
            num_steps = (room_log - square_log() + 2) // 3
            for step in range(num_steps):
                bottom = square_log() + 3 * (num_steps - 1 - step if inverse else step)
                top = min(bottom + 3, room_log)
                width = 1 << bottom
                for left in range(place, place + room, 1 << top):
                    if inverse:
                        levels_down(tile, left, width, tile, left, width, width // LANES, top - bottom, one)
                    else:
                        levels_up(tile, left, width, tile, left, width, width // LANES, top - bottom, one)
            if inverse:
                squares_down(tile, place, target, begin + first, room, bits, first // 8, scale, target, begin + first)
        if not inverse:
            last_levels_up(tile, 0, _PITCH, target, begin, room, room // LANES, upper, scale)


@kernel
def sweep(
    source: Any, target: Any, start: int, stop: int, low: int, num_levels: int, scale: Any, inverse: bool
) -> None:
    """Levels from ``low`` on, 1 to 3 of them, for the strips of columns that have entries ``start`` to ``stop``.

    A block is a matrix of ``2**num_levels`` rows of ``2**low`` entries; a strip is ``STRIP`` columns of it.
    """
    width = 1 << low
    rows, strips = 1 << num_levels, width // STRIP
    for strip in range(start // (rows * STRIP), stop // (rows * STRIP)):
        corner = strip // strips * (rows * width) + strip % strips * STRIP
        if inverse:
            last_levels_down(source, corner, width, target, corner, width, STRIP // LANES, num_levels, scale)
        else:
            last_levels_up(source, corner, width, target, corner, width, STRIP // LANES, num_levels, scale)


@kernel
def transform_halls(
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
    """Signs and the lowest ``log`` levels, 8 or more, of aligned halls of ``2**log`` entries.

    All levels of a hall are done before the next one: further passes over one that lies in the third cache do not wait
    for memory.
    """
    tile = min(log, TILE_LOG)
    num_sweeps = (log - tile + SWEEP - 1) // SWEEP
    size = 1 << log if num_sweeps else stop - start
    one = np.float32(1.0)
    for begin in range(start, stop, size):
        end = begin + size
        if not inverse:
            factor = scale if num_sweeps == 0 else one
            _transform_tiles(source, target, begin, end, tile, k0, k1, first_word, factor, False)
        read = source if inverse else target
        for number in range(num_sweeps):
            low = tile + SWEEP * (num_sweeps - 1 - number if inverse else number)
            num_levels = min(SWEEP, log - low)
            factor = scale if number == num_sweeps - 1 and not inverse else one
            sweep(read, target, begin, end, low, num_levels, factor, inverse)
            read = target
        if inverse:
            _transform_tiles(read, target, begin, end, tile, k0, k1, first_word, scale, True)
