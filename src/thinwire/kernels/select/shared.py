"""Selection in one segment by all threads.

Each thread gathers candidates from the next piece of the segment that none has taken: a core of which the system takes
a part gets fewer of them, and no thread meets all the large entries where they cluster. How far they lie above the
bound is counted, which leaves a few among which the threshold is found; what reaches it is counted in each piece, so
that each thread knows where to write its own.
"""

from typing import Any

import numpy as np

from thinwire.kernels.jit import threads
from thinwire.kernels.jit.compiling import kernel
from thinwire.kernels.jit.intrinsics import empty, first_from, take_number
from thinwire.kernels.select.kth_largest import cut, kth_largest
from thinwire.kernels.select.segment import (
    NUM_MAXIMA,
    ROOM,
    candidates_of,
    gather,
    is_dense,
    sample_bound,
    select_segment,
    take_wanted,
)
from thinwire.kernels.select.top_k_simd import MAGNITUDE, NOTHING

_PIECE = 1 << 14
"""Entries that a thread takes at once."""

_MOST = 1.4
"""Pieces that one thread takes at most, in equal shares: there is room for the candidates of so many."""

_BINS, _SHIFT = 2048, 13
"""Magnitudes are counted up to about four times the bound, each bin a thousandth of it wide."""


def select_shared(problem: tuple[Any, ...], segment: int, indices: Any, values: Any, rows: Any, capacity: int) -> None:
    """One segment by all threads: a bound, the candidates of each thread, and the exact selection among them."""
    x, residual, decay, add, out, offsets, ends = problem
    start, stop, first, end = (
        int(number) for number in (*offsets[segment : segment + 2], *ends[segment : segment + 2])
    )
    count = end - first
    num_threads = len(rows)
    dense = is_dense(stop - start, count)
    bound = NOTHING if dense or count == 0 else sample_bound(x, residual, decay, add, start, stop, count)
    share = (x, residual, decay, add, out, start, stop, np.uint32(bound), count)
    num_pieces = -(-(stop - start) // _PIECE)
    # A row for each thread: neighbouring counts are in one line of the cache, which two threads would fight over.
    pieces = np.zeros((num_threads, 4, num_pieces), np.int64)
    turns = (np.zeros(1, np.int64), int(_MOST * num_pieces / num_threads) + 1)
    calls = [(*share, row, capacity, *turns, own[0]) for row, own in zip(rows, pieces, strict=True)]
    nums = threads.run(_gather_share, calls) if add or bound != NOTHING else [0]
    if count == 0:
        return
    chosen, kept = indices[first:end], values[first:end]
    if dense or min(nums) < 0 or sum(nums) < count:
        # Too many are wanted, or the sample misled. The sums are in `out` already.
        room = ROOM + (0 if dense else count)
        scratch = np.empty(room, np.int64), np.empty(room + 64, np.uint32), np.empty(NUM_MAXIMA, np.uint32)
        select_segment(out, out, decay, False, out, start, stop, chosen, kept, *scratch)
        return
    threshold, ties = _threshold(rows, capacity, nums, np.uint32(bound), count)
    counts = zip(rows, nums, pieces, strict=True)
    threads.run(_count_pieces, [(row, capacity, num, threshold, start, *own) for row, num, own in counts])
    _, firsts, above, equal = pieces.sum(0)
    # Of what equals the threshold the first are wanted, in the order of places.
    taken = np.clip(ties - (np.cumsum(equal) - equal), 0, equal)
    borders = np.cumsum(np.append(0, above + taken))
    target = (threshold, firsts, taken, borders, chosen, kept.view(np.uint32))
    threads.run(_write_pieces, [(row, capacity, own[0], *target) for row, own in zip(rows, pieces, strict=True)])


def _threshold(rows: Any, capacity: int, nums: list[int], bound: Any, count: int) -> Any:
    """:func:`kth_largest` of the candidates of all threads, all of which reach the bound."""
    counted = np.zeros((len(rows), _BINS), np.int64)
    shares = [(rows[thread], capacity, num, bound) for thread, num in enumerate(nums)]
    threads.run(_count_share, [(*share, bins) for share, bins in zip(shares, counted, strict=True)])
    place, wanted = cut(counted.sum(0), count)
    if place == _BINS - 1:
        # The bound is far below: rather the serial way than a second count.
        found = [candidates_of(row, capacity)[1][:num] for row, num in zip(rows, nums, strict=True)]
        return kth_largest(_with_room(found), sum(nums), count, np.uint32(0))
    sizes = counted[:, place].tolist()
    members = threads.run(_members_of_share, [(*share, place, size) for share, size in zip(shares, sizes, strict=True)])
    return kth_largest(_with_room(members), sum(sizes), wanted, np.uint32(bound + np.uint32(place << _SHIFT)))


def _with_room(parts: list[Any]) -> Any:
    """Magnitudes together, and the room that :func:`kth_largest` needs behind them."""
    return np.concatenate([*parts, np.zeros(64, np.uint32)])


@kernel
def _gather_share(
    x: Any,
    residual: Any,
    decay: Any,
    add: bool,
    out: Any,
    start: int,
    stop: int,
    bound: Any,
    count: int,
    scratch: Any,
    capacity: int,
    num_taken: Any,
    most: int,
    is_own: Any,
) -> int:
    """Candidates of at most so many pieces of a segment that no other thread takes, as :func:`gather`."""
    places, bits = candidates_of(scratch, capacity)
    num = 0
    for _ in range(most):
        piece = take_number(num_taken)
        if piece >= is_own.size:
            break
        is_own[piece] = 1
        first = start + piece * _PIECE
        end = min(first + _PIECE, stop)
        num, bound = gather(x, residual, decay, add, out, first, end, bound, count, places, bits, num)
    return num


@kernel
def _count_share(scratch: Any, capacity: int, num: int, bound: Any, counted: Any) -> None:
    """How many of a thread's candidates lie how far above the bound; in the last bin, all that lie further."""
    _, bits = candidates_of(scratch, capacity)
    for j in range(num):
        above = ((bits[j] & np.uint32(MAGNITUDE)) - bound) >> np.uint32(_SHIFT)
        counted[np.uint64(min(above, np.uint32(_BINS - 1)))] += 1


@kernel
def _members_of_share(scratch: Any, capacity: int, num: int, bound: Any, place: int, size: int) -> Any:
    """The magnitudes of a thread's candidates in one bin, which are ``size``."""
    _, bits = candidates_of(scratch, capacity)
    members = empty(size + 1, np.uint32)
    found: Any = np.int64(0)
    for j in range(num):
        # Written before it is known to be a member.
        magnitude = bits[j] & np.uint32(MAGNITUDE)
        members[np.uint64(found)] = magnitude
        found += np.int64((magnitude - bound) >> np.uint32(_SHIFT) == np.uint32(place))
    return members[:size]


@kernel
def _count_pieces(
    scratch: Any,
    capacity: int,
    num: int,
    threshold: Any,
    start: int,
    is_own: Any,
    firsts: Any,
    above: Any,
    equal: Any,
) -> None:
    """Of each of a thread's pieces: its first candidate, and how many are above the threshold and equal to it."""
    places, bits = candidates_of(scratch, capacity)
    first: Any = 0
    for piece in range(is_own.size):
        if not is_own[piece]:
            continue
        last = first + first_from(places[first:num], start + (piece + 1) * _PIECE)
        num_above, num_equal = np.int64(0), np.int64(0)
        for value in bits[first:last]:
            magnitude = value & np.uint32(MAGNITUDE)
            num_above += np.int64(magnitude > threshold)
            num_equal += np.int64(magnitude == threshold)
        firsts[piece] = first
        above[piece] = num_above
        equal[piece] = num_equal
        first = last


@kernel
def _write_pieces(
    scratch: Any,
    capacity: int,
    is_own: Any,
    threshold: Any,
    firsts: Any,
    taken: Any,
    borders: Any,
    indices: Any,
    values: Any,
) -> None:
    """The wanted candidates of a thread's pieces to their places among those of all threads."""
    places, bits = candidates_of(scratch, capacity)
    for piece in range(is_own.size):
        if not is_own[piece]:
            continue
        begin, end = borders[piece], borders[piece + 1]
        take_wanted(places, bits, firsts[piece], threshold, taken[piece], indices, values, begin, end)
