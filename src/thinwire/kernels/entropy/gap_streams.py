"""Streams of gaps written and read by several threads.

Each thread has a range of the gaps. It writes streams of its own, which are then put together bit by bit. To read, it
has to know where its range begins in a unary stream, which the number of 1s before it says, and counts its indices from
there; what they are to be raised by is known when the ranges before it have been read.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thinwire.arrays import empty_array
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.intrinsics import (
    copy_to,
    count_ones,
    count_trailing_zeros,
    load_word_padded,
    write_bits,
)
from thinwire.kernels.jit.threads import count_threads, cut, run

SLACK = 8
"""Bytes that a writer may touch after the last of a stream."""

_COST = 8
"""A gap costs about as much as so many entries of a vector."""

TAKEN = 72
"""Places behind those that are wanted which :func:`take_ones` may write to: a word of 1s, and the rest of a byte's."""

ENDED, PADDING, TOO_LARGE = -1, -2, -3
"""What may be wrong with a code."""

REASONS = {
    ENDED: "the indices go on past the end of the data",
    TOO_LARGE: "an index is not below the vector's length",
}
"""In words; what padding there is, each code says itself."""

Ranges = list[tuple[int, int]]


def gap_ranges(count: int, unit: int) -> Ranges:
    """``[0, count)`` cut for the threads that are worth their start, one each; borders are multiples of ``unit``.

    Example:
        >>> gap_ranges(1000, 8)
        [(0, 1000)]
    """
    return cut(count, unit, count_threads(_COST * count))


def begins_of(unary: Any, ranges: Ranges) -> list[int] | None:
    """The bits of a unary stream before each range, and before what follows the last; None if there are too few 1s.

    Example:
        >>> begins_of(np.array([0b101], np.uint8), [(0, 1), (1, 2)]), begins_of(np.array([0], np.uint8), [(0, 1)])
        ([0, 1, 3], None)
    """
    ends = np.array([0, *(stop for _, stop in ranges)])
    return ends.tolist() if find_ends(unary, ends) else None


def chain(indices: Any, ranges: Ranges, numel: int) -> bool:
    """Raise the indices of each range, counted from its beginning, to follow those before; whether all are below.

    Example:
        >>> indices = np.array([3, 7, 0, 2])
        >>> chain(indices, [(0, 2), (2, 4)], 11), indices.tolist()
        (True, [3, 7, 8, 10])
    """
    bases = [0]
    for start, stop in ranges:
        bases.append(bases[-1] + (int(indices[stop - 1]) + 1 if stop > start else 0))
    if bases[-1] > numel:
        return False
    if len(ranges) > 1:
        run(_raise, [(indices[start:stop], base) for (start, stop), base in zip(ranges[1:], bases[1:-1], strict=True)])
    return True


def write_streams(encode: Callable[..., Any], calls: Sequence[tuple[Any, ...]], data: Any, begin: int) -> None:
    """Two streams from byte ``begin`` of ``data`` on: all parts of the first, bit by bit, then those of the second.

    Each call of ``encode`` is given two empty streams of the length of ``data`` besides,
    writes its parts, zeros after their bits, and returns how many bits they have.
    """
    # What a writer touches after its end must not be the beginning of another stream.
    streams = [empty_array(2 * data.size, np.uint8).reshape(2, -1) for _ in calls]
    counts = run(encode, [(*call, *pair) for call, pair in zip(calls, streams, strict=True)])
    for which in (0, 1):
        end = 8 * begin
        for pair, num_bits in zip(streams, counts, strict=True):
            _append(data, end, pair[which], num_bits[which])
            end += num_bits[which]
        begin = (end + 7) // 8


@helper
def is_padded(stream: Any, end: int) -> bool:
    """Whether the bits from ``end`` to the end of its byte are zero."""
    return not (end % 8 and stream[end >> 3] >> (end % 8))


@helper
def from_byte(data: Any, first: int, num_bytes: int, room: Any) -> Any:
    """``data`` from byte ``first`` on, to read whole words that begin in the next ``num_bytes``.

    Where such a word would end behind ``data``: what is left, in ``room``, with zeros after it.
    """
    if first + num_bytes + 8 <= data.size:
        return data[first:]
    room[:] = 0
    for byte in range(first, min(data.size, first + num_bytes)):
        room[byte - first] = data[byte]
    return room


@kernel
def _append(data: Any, position: int, stream: Any, num_bits: int) -> None:
    first = position >> 3
    kept = np.int64(position & 7)
    if kept == 0:
        size = (num_bits + 7) >> 3
        copy_to(data[first : first + size], stream[:size])
        return
    pending = np.uint64(data[first]) & ((np.uint64(1) << np.uint64(kept)) - np.uint64(1))
    place = (np.int64(first), pending, kept)
    for begin in range(0, num_bits, 56):
        count = np.int64(min(56, num_bits - begin))
        word = load_word_padded(stream, begin >> 3) & ((np.uint64(1) << np.uint64(count)) - np.uint64(1))
        place = write_bits(data, place[0], place[1], place[2], word, count)


@kernel
def find_ends(unary: Any, ends: Any) -> bool:
    """Ascending counts of 1s become the bits up to the last of them; False if there are fewer 1s."""
    seen = np.int64(0)
    position = 0
    which = 0
    while which < ends.size and ends[which] == 0:
        which += 1
    while which < ends.size:
        if position >= unary.size:
            return False
        word = load_word_padded(unary, position)
        ones = np.int64(count_ones(word))
        while which < ends.size and seen + ones >= ends[which]:
            rest = word
            for _ in range(ends[which] - seen - 1):
                rest &= rest - np.uint64(1)
            ends[which] = 8 * position + np.int64(count_trailing_zeros(rest)) + 1
            which += 1
        seen += ones
        position += 8
    return True


@kernel
def _raise(indices: Any, base: int) -> None:
    for j in range(indices.size):
        indices[j] += base
