"""Selection in all segments of a vector, on several threads.

A segment is handled by one thread, on the memory that its cache holds; whichever is free takes the largest that is
left. Only a segment that is a large part of the vector is shared by all (:mod:`thinwire.kernels.select.shared`).
"""

import functools
from typing import Any

import numpy as np

from thinwire import arrays
from thinwire.kernels.jit import threads
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.intrinsics import empty, seen_as, take_number
from thinwire.kernels.select.segment import NUM_MAXIMA, ROOM, candidates_of, is_dense, select_segment
from thinwire.kernels.select.shared import select_shared
from thinwire.kernels.select.top_k_simd import MAGNITUDE

_PIECE = 1 << 14
"""About the entries of a group of short segments that one thread handles together."""

_SHARED = 1 << 22
"""A segment of fewer entries is left to one thread: sharing it hands five jobs over, one after another, and what lies
between them is done by one. Of a million entries two threads took half as long again as one."""

_TINY = 32


def select_all(
    x: Any, residual: Any, decay: float, add: bool, out: Any, offsets: Any, counts: Any, ends: Any
) -> tuple[Any, Any]:
    """Accumulate all of ``out`` if ``add``, and the largest ``counts[s]`` entries of each segment.

    Arguments are arrays; segment ``s`` has the results from ``ends[s]`` to ``ends[s + 1] - 1``. Without ``add`` the
    first two arrays are ``out`` itself.
    """
    indices, values = arrays.empty_array(int(ends[-1]), np.int64), arrays.empty_array(int(ends[-1]), np.float32)
    problem = (x, residual, np.float32(decay), add, out, offsets, ends)
    num_threads = threads.count_threads(out.size, threads.STREAMED_NS)
    least_shared = max(_SHARED, out.size // (4 * num_threads)) if num_threads > 1 else out.size + 1
    if num_threads > 1 and out.size < least_shared and 2 * np.diff(offsets).max() > out.size:
        num_threads = 1  # most of it is one segment, which would be one thread's
    capacity = _capacity(offsets, counts, num_threads, least_shared)
    row = capacity + capacity // 2 + 33
    scratch = arrays.empty_array(row * num_threads, np.int64)
    if num_threads == 1:
        left = (_single_run(counts.size), np.zeros(1, np.int64))
        _select_runs(*problem, *left, indices, values, scratch, capacity)
        return indices, values
    rows = scratch.reshape(num_threads, row)
    runs, sizes, shared = _list_runs(offsets, least_shared)
    for segment in shared.tolist():
        select_shared(problem, segment, indices, values, rows, capacity)
    if runs.size:
        # The largest first. Sorted here: Numba takes seconds to compile a sort.
        left = (runs[np.argsort(-sizes, kind="stable")], np.zeros(1, np.int64))
        threads.run(_select_runs, [(*problem, *left, indices, values, row, capacity) for row in rows])
    return indices, values


@functools.lru_cache(maxsize=64)
def _single_run(num_segments: int) -> Any:
    # Kept: for a few entries, making it costs as much as the work.
    return np.array([[0, num_segments]], np.int64)


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
    sizes = empty(num_segments, np.int64)
    shared = empty(num_segments, np.int64)
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
def _select_runs(
    x: Any,
    residual: Any,
    decay: Any,
    add: bool,
    out: Any,
    offsets: Any,
    ends: Any,
    runs: Any,
    num_taken: Any,
    indices: Any,
    values: Any,
    scratch: Any,
    capacity: int,
) -> None:
    """Those of the runs of segments that no other thread takes."""
    # All in one function: one that this calls would be compiled by itself too, and it is the longest there is.
    maxima = empty(NUM_MAXIMA, np.uint32)
    places, bits = candidates_of(scratch, capacity)
    run = take_number(num_taken)
    while run < len(runs):
        for segment in range(runs[run, 0], runs[run, 1]):
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
        run = take_number(num_taken)


@helper
def _select_tiny(entries: Any, start: int, size: int, written: int, count: int, indices: Any, values: Any) -> None:
    """All of a segment's entries, or its largest, or none."""
    bits = seen_as(entries, np.uint32)
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
