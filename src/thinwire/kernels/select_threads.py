"""Selection in all segments of a vector, on several threads.

A segment is handled by one thread, on the memory that its cache holds, and the threads get about equal numbers of
entries. Only a segment that is a large part of the vector is shared: each thread gathers candidates from every n-th
piece of it, so that no thread meets all the large entries where they cluster, and one thread selects among them all.
"""

from typing import Any

import numpy as np

from thinwire.kernels import buffers, threads
from thinwire.kernels.numba_tools import kernel
from thinwire.kernels.select_segment import (
    NUM_MAXIMA,
    ROOM,
    gather,
    is_dense,
    sample_bound,
    select_segment,
)
from thinwire.kernels.select_threshold import kth_largest
from thinwire.kernels.select_vectors import MAGNITUDE, NOTHING

_PIECE = 1 << 14
"""Entries of a shared segment, or about those of a group of short segments, that one thread handles together."""

_SHARED = 1 << 18
"""A segment of fewer entries is not worth the start of a thread."""

_TINY = 32


def select_all(
    x: Any, residual: Any, decay: float, add: bool, out: Any, offsets: Any, counts: Any, ends: Any
) -> tuple[Any, Any]:
    """Accumulate all of ``out`` if ``add``, and the largest ``counts[s]`` entries of each segment.

    Arguments are arrays; segment ``s`` has the results from ``ends[s]`` to ``ends[s + 1] - 1``. Without ``add`` the
    first two arrays are ``out`` itself.
    """
    indices, values = buffers.empty(int(ends[-1]), np.int64), buffers.empty(int(ends[-1]), np.float32)
    problem = (x, residual, np.float32(decay), add, out, offsets, ends)
    num_threads = len(threads.shares(out.size))
    least_shared = max(_SHARED, out.size // (4 * num_threads)) if num_threads > 1 else out.size + 1
    capacity = _capacity(offsets, counts, num_threads, least_shared)
    row = capacity + capacity // 2 + 33
    scratch = buffers.empty(row * num_threads, np.int64)
    if num_threads == 1:
        _select_range(*problem, 0, counts.size, indices, values, scratch, capacity)
        return indices, values
    rows = scratch.reshape(num_threads, row)
    runs, sizes, shared = _list_runs(offsets, least_shared)
    # The largest first. Sorted here: Numba takes seconds to compile a sort.
    owners = _deal(sizes, np.argsort(-sizes, kind="stable"), num_threads)
    for segment in shared.tolist():
        _select_shared(problem, segment, indices, values, rows, capacity)
    if owners.size:
        calls = [
            (*problem, runs[owners == thread], indices, values, rows[thread], capacity) for thread in range(num_threads)
        ]
        threads.run(_select_runs, calls)
    return indices, values


@kernel
def _capacity(offsets: Any, counts: Any, num_threads: int, least_shared: int) -> int:
    """Candidates that a thread may have to hold at once, at any segment."""
    most = 0
    for segment in range(counts.size):
        size = offsets[segment + 1] - offsets[segment]
        count = counts[segment]
        if not is_dense(size, count):
            most = max(most, 2 * count // num_threads if size >= least_shared else count + count // 2)
    return most + ROOM


@kernel
def _list_runs(offsets: Any, least_shared: int) -> Any:
    """Runs of segments ``[runs, 2]``, the entries of each run, and the segments that all threads share."""
    num_segments = offsets.size - 1
    runs = np.empty((num_segments, 2), np.int64)
    sizes = np.empty(num_segments, np.int64)
    shared = np.empty(num_segments, np.int64)
    num_runs = 0
    num_shared = 0
    first = 0
    for segment in range(num_segments):
        size = offsets[segment + 1] - offsets[segment]
        is_shared = size >= least_shared
        last = segment if is_shared else segment + 1
        before = offsets[last] - offsets[first]
        if last > first and (is_shared or before >= _PIECE or last == num_segments):
            runs[num_runs, 0] = first
            runs[num_runs, 1] = last
            sizes[num_runs] = before
            num_runs += 1
            first = last
        if is_shared:
            shared[num_shared] = segment
            num_shared += 1
            first = segment + 1
    return runs[:num_runs], sizes[:num_runs], shared[:num_shared]


@kernel
def _deal(sizes: Any, order: Any, num_threads: int) -> Any:
    """The thread that handles each run: in that order, each goes to the thread that has the least."""
    owners = np.empty(sizes.size, np.int64)
    loads = np.zeros(num_threads, np.int64)
    for run in order:
        owner = np.argmin(loads)
        owners[run] = owner
        loads[owner] += sizes[run]
    return owners


@kernel
def _select_runs(
    x: Any,
    residual: Any,
    decay: Any,
    add: bool,
    out: Any,
    offsets: Any,
    ends: Any,
    runs: Any,
    indices: Any,
    values: Any,
    scratch: Any,
    capacity: int,
) -> None:
    for run in range(runs.shape[0]):
        first, last = runs[run]
        _select_range(x, residual, decay, add, out, offsets, ends, first, last, indices, values, scratch, capacity)


@kernel
def _select_range(
    x: Any,
    residual: Any,
    decay: Any,
    add: bool,
    out: Any,
    offsets: Any,
    ends: Any,
    first: int,
    last: int,
    indices: Any,
    values: Any,
    scratch: Any,
    capacity: int,
) -> None:
    """Segments ``first`` to ``last - 1``."""
    maxima = np.empty(NUM_MAXIMA, np.uint32)
    places, bits = _parts(scratch, capacity)
    for segment in range(first, last):
        start, size = offsets[segment], offsets[segment + 1] - offsets[segment]
        count = ends[segment + 1] - ends[segment]
        if size <= _TINY and (count <= 1 or count == size):
            # A call would cost more than the work.
            if add:
                for j in range(start, start + size):
                    out[j] = residual[j] * decay + x[j]
            _select_tiny(out, start, size, ends[segment], count, indices, values)
            continue
        select_segment(
            x,
            residual,
            decay,
            add,
            out,
            offsets[segment],
            offsets[segment + 1],
            indices[ends[segment] : ends[segment + 1]],
            values[ends[segment] : ends[segment + 1]],
            places,
            bits,
            maxima,
        )


@kernel
def _select_tiny(entries: Any, start: int, size: int, written: int, count: int, indices: Any, values: Any) -> None:
    """All of a segment's entries, or its largest, or none."""
    bits = entries.view(np.uint32)
    if count == size:
        for j in range(size):
            indices[written + j] = start + j
            values[written + j] = entries[start + j]
    elif count == 1:
        best = start
        for j in range(start + 1, start + size):
            if (bits[j] & np.uint32(MAGNITUDE)) > (bits[best] & np.uint32(MAGNITUDE)):
                best = j
        indices[written] = best
        values[written] = entries[best]


@kernel
def _parts(scratch: Any, capacity: int) -> Any:
    """Room for the places of candidates, and for their bits and 64 more."""
    return scratch[:capacity], scratch[capacity:].view(np.uint32)[: capacity + 64]


def _select_shared(problem: tuple[Any, ...], segment: int, indices: Any, values: Any, rows: Any, capacity: int) -> None:
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
    found = np.empty(sum(nums) + 64, np.uint32)
    firsts = np.cumsum([0, *nums])
    for thread in range(num_threads):
        found[firsts[thread] : firsts[thread + 1]] = _parts(rows[thread], capacity)[1][: nums[thread]]
    threshold, ties = kth_largest(found, firsts[-1], count, np.uint32(0))
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
    firsts = np.cumsum([0, *left])
    for thread in range(num_threads):
        found[firsts[thread] : firsts[thread + 1]] = _parts(rows[thread], capacity)[1][: left[thread]]
    _merge(rows, firsts, found, threshold, ties, start, chosen, kept.view(np.uint32))


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
    places, bits = _parts(scratch, capacity)
    num = 0
    for first in range(start + thread * _PIECE, stop, num_threads * _PIECE):
        end = min(first + _PIECE, stop)
        num, bound = gather(x, residual, decay, add, out, first, end, bound, count, places, bits, num)
    return num


@kernel
def _keep_share(scratch: Any, capacity: int, num: int, threshold: Any, start: int, pieces: Any) -> Any:
    """Move a thread's candidates that reach the threshold to the front, and count them by piece; how many they are."""
    places, bits = _parts(scratch, capacity)
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
    places, bits = _parts(scratch, capacity)
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
