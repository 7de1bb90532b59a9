"""The loops of :mod:`.subset`."""

from typing import Any

import numpy as np

from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.hints import always_inline
from thinwire.kernels.jit.intrinsics import count_trailing_zeros, empty, zeros
from thinwire.kernels.random.philox import fill_words


@kernel
def draw_segments(k0: Any, k1: Any, starts: Any, ends: Any, first: int, last: int, chosen: Any) -> None:
    """Of segments ``first`` to ``last`` the indices that are drawn, in order."""
    most = 0
    for segment in range(first, last):
        most = max(most, starts[segment + 1] - starts[segment])
    marks = zeros((most + 63) // 64, np.uint64)
    for segment in range(first, last):
        if ends[segment + 1] > ends[segment]:
            part = chosen[ends[segment] : ends[segment + 1]]
            draw(k0, k1, segment << 34, starts[segment], starts[segment + 1] - starts[segment], marks, part)


@kernel
def draw(k0: Any, k1: Any, stream_offset: int, start: int, numel: int, marks: Any, chosen: Any) -> None:
    """Draw from ``numel`` indices and write them, moved by ``start``, in order. ``marks`` is zero before and after."""
    count = chosen.size
    inverted = 2 * count > numel
    mark_drawn(k0, k1, stream_offset, numel, numel - count if inverted else count, marks)
    written = 0
    for row in range((numel + 63) // 64):
        word = marks[row]
        marks[row] = np.uint64(0)
        if inverted:
            word = ~word
        while word != np.uint64(0) and written < count:
            chosen[written] = start + 64 * row + np.int64(count_trailing_zeros(word))
            written += 1
            word &= word - np.uint64(1)


@helper
def mark_drawn(k0: Any, k1: Any, stream_offset: int, numel: int, num_drawn: int, marks: Any) -> None:
    """Draw ``num_drawn`` of ``numel`` indices and set their bits in ``marks``, where those of all are 0."""
    # The numbers come in lots; few are wanted of a short segment.
    num_blocks = 8 if num_drawn <= 12 else 128
    pairs = empty(2 * num_blocks, np.uint64)
    words = empty(4 * num_blocks + 1, np.uint32)
    fresh = words[1:]
    block = stream_offset >> 2
    used = 4 * num_blocks + 1
    if num_drawn:
        fill_words(k0, k1, block, pairs, fresh)
        used = 1 + (stream_offset & 3)
    found: Any = 0
    while found < num_drawn:
        # No more are taken than are missing, so that none has to be checked for being the last.
        count = min((words.size - used) // 2, num_drawn - found)
        if count:
            found += _mark_candidates(words[used : used + 2 * count], numel, marks)
            used += 2 * count
            continue
        # One word may be left of the last lot.
        last = words[words.size - 1]
        block += num_blocks
        fill_words(k0, k1, block, pairs, fresh)
        if used < words.size:
            words[0] = last
            used = 0
        else:
            used = 1


@helper
def _mark_candidates(words: Any, numel: int, marks: Any) -> Any:
    """Set the bits of the candidates that two words each give; how many were not set before."""
    always_inline()
    found = np.int64(0)
    # The remainder of a power of two is its lowest bits; a division takes most of the time.
    low = np.uint64(numel - 1)
    if numel & (numel - 1) == 0:
        for j in range(0, words.size, 2):
            word = np.uint64(words[j]) | (np.uint64(words[j + 1]) << np.uint64(32))
            found += _mark(word & low, marks)
    else:
        for j in range(0, words.size, 2):
            word = np.uint64(words[j]) | (np.uint64(words[j + 1]) << np.uint64(32))
            found += _mark(word % np.uint64(numel), marks)
    return found


@helper
def _mark(candidate: Any, marks: Any) -> Any:
    always_inline()
    bit = np.uint64(1) << (candidate & np.uint64(63))
    place = candidate >> np.uint64(6)
    before = marks[place]
    marks[place] = before | bit
    return np.int64(before & bit == np.uint64(0))


@kernel
def draw_sparse(k0: Any, k1: Any, stream_offset: int, numel: int, chosen: Any) -> None:
    """Draw with a table of what was drawn; not sorted."""
    size = 16
    while size < 2 * chosen.size:
        size *= 2
    table = np.full(size, -1, np.int64)
    pairs = empty(256, np.uint64)
    fresh = empty(512, np.uint32)
    words = empty(513, np.uint64)
    skip = stream_offset & 3
    block = stream_offset >> 2
    found = 0
    available = 0
    used = 0
    while found < chosen.size:
        if used + 2 > available:
            kept = available - used
            if kept:
                words[0] = words[used]
            fill_words(k0, k1, block, pairs, fresh)
            for j in range(skip, 512):
                words[kept + j - skip] = fresh[j]
            available = kept + 512 - skip
            used = 0
            skip = 0
            block += 128
        word = words[used] | (words[used + 1] << np.uint64(32))
        used += 2
        candidate = np.int64(word % np.uint64(numel))
        slot = np.int64((np.uint64(candidate) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & (size - 1)
        while table[slot] != -1 and table[slot] != candidate:
            slot = (slot + 1) & (size - 1)
        if table[slot] == -1:
            table[slot] = candidate
            chosen[found] = candidate
            found += 1
