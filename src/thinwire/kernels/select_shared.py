"""Selection in one segment by all threads.

Each thread gathers candidates from every n-th piece of the segment, so that no thread meets all the large entries where
they cluster. How far they lie above the bound is counted, which leaves a few among which the threshold is found; each
thread then keeps and writes its own.
"""

from typing import Any

import numpy as np

from thinwire.kernels import threads
from thinwire.kernels.numba_tools import kernel
from thinwire.kernels.select_segment import (
    NUM_MAXIMA,
    ROOM,
    candidates_of,
    gather,
    is_dense,
    sample_bound,
    select_segment,
)
from thinwire.kernels.select_threshold import cut, kth_largest
from thinwire.kernels.select_vectors import MAGNITUDE, NOTHING

_PIECE = 1 << 14
"""Entries that one thread handles before the next takes its turn."""

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
    calls = [(*share, rows[thread], capacity, thread, num_threads) for thread in range(num_threads)]
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
    # A row for each thread: neighbouring counts are in one line of the cache, which two threads would fight over.
    counted = np.zeros((num_threads, -(-(stop - start) // _PIECE)), np.int64)
    left = threads.run(
        _keep_share,
        [(rows[thread], capacity, nums[thread], threshold, start, counted[thread]) for thread in range(num_threads)],
    )
    if sum(left) == count:
        pieces = counted.sum(0)
        ends = np.cumsum(pieces)
        target = (chosen, kept.view(np.uint32))
        threads.run(
            _copy_share,
            [(rows[thread], capacity, pieces, ends, thread, num_threads, *target) for thread in range(num_threads)],
        )
        return
    # More entries than are wanted equal the threshold: the first of them in the order of places.
    found, firsts = _found(rows, capacity, left)
    _merge(rows, firsts, found, threshold, ties, start, chosen, kept.view(np.uint32))


def _threshold(rows: Any, capacity: int, nums: list[int], bound: Any, count: int) -> Any:
    """:func:`kth_largest` of the candidates of all threads, all of which reach the bound."""
    counted = np.zeros((len(rows), _BINS), np.int64)
    shares = [(rows[thread], capacity, num, bound) for thread, num in enumerate(nums)]
    threads.run(_count_share, [(*share, bins) for share, bins in zip(shares, counted, strict=True)])
    place, wanted = cut(counted.sum(0), count)
    if place == _BINS - 1:
        # The bound is far below: rather the serial way than a second count.
        found, firsts = _found(rows, capacity, nums)
        return kth_largest(found, firsts[-1], count, np.uint32(0))
    sizes = counted[:, place].tolist()
    members = threads.run(_members_of_share, [(*share, place, size) for share, size in zip(shares, sizes, strict=True)])
    together = np.concatenate([*members, np.zeros(64, np.uint32)])
    return kth_largest(together, sum(sizes), wanted, np.uint32(bound + np.uint32(place << _SHIFT)))


def _found(rows: Any, capacity: int, nums: list[int]) -> tuple[Any, Any]:
    """The bits of all threads' candidates and 64 more, and where those of each thread begin, and the last's end."""
    firsts = np.cumsum([0, *nums])
    found = np.empty(firsts[-1] + 64, np.uint32)
    for thread, num in enumerate(nums):
        found[firsts[thread] : firsts[thread + 1]] = candidates_of(rows[thread], capacity)[1][:num]
    return found, firsts


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
    thread: int,
    num_threads: int,
) -> int:
    """Candidates of the pieces ``thread``, ``thread + num_threads``, ... of a segment, as :func:`gather`."""
    places, bits = candidates_of(scratch, capacity)
    num = 0
    for first in range(start + thread * _PIECE, stop, num_threads * _PIECE):
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
    members = np.empty(size + 1, np.uint32)
    found: Any = np.int64(0)
    for j in range(num):
        # Written before it is known to be a member.
        magnitude = bits[j] & np.uint32(MAGNITUDE)
        members[np.uint64(found)] = magnitude
        found += np.int64((magnitude - bound) >> np.uint32(_SHIFT) == np.uint32(place))
    return members[:size]


@kernel
def _keep_share(scratch: Any, capacity: int, num: int, threshold: Any, start: int, pieces: Any) -> Any:
    """Move a thread's candidates that reach the threshold to the front, and count them by piece; how many they are."""
    places, bits = candidates_of(scratch, capacity)
    left: Any = np.int64(0)
    for j in range(num):
        # Which reach it cannot be predicted: each is written, and the next one over it if it does not.
        place, value = places[j], bits[j]
        places[np.uint64(left)] = place
        bits[np.uint64(left)] = value
        reached = np.int64((value & np.uint32(MAGNITUDE)) >= threshold)
        left += reached
        pieces[np.uint64(place - start) // np.uint64(_PIECE)] += reached
    return left


@kernel
def _copy_share(
    scratch: Any, capacity: int, pieces: Any, ends: Any, thread: int, num_threads: int, indices: Any, values: Any
) -> None:
    """Each of a thread's pieces to its place among those of all threads."""
    places, bits = candidates_of(scratch, capacity)
    done = 0
    for piece in range(thread, pieces.size, num_threads):
        size = pieces[piece]
        first = ends[piece] - size
        for j in range(size):
            indices[first + j] = places[done + j]
            values[first + j] = bits[done + j]
        done += size


@kernel
def _merge(
    rows: Any, firsts: Any, found: Any, threshold: Any, ties: int, start: int, indices: Any, values: Any
) -> None:
    """Write the wanted candidates of all threads in the order of their places.

    The bits of thread ``t`` are those ``found`` from ``firsts[t]`` on; its row begins with the places.
    """
    num_threads = rows.shape[0]
    cursors = firsts.copy()
    left: Any = ties
    written = 0
    piece = 0
    while written < indices.size:
        thread = piece % num_threads
        end = start + (piece + 1) * _PIECE
        cursor = cursors[thread]
        while cursor < firsts[thread + 1] and rows[thread, cursor - firsts[thread]] < end:
            value = found[cursor]
            magnitude = value & np.uint32(MAGNITUDE)
            if magnitude > threshold or (magnitude == threshold and left > 0):
                left -= np.int64(magnitude == threshold)
                indices[written] = rows[thread, cursor - firsts[thread]]
                values[written] = value
                written += 1
            cursor += 1
        cursors[thread] = cursor
        piece += 1
