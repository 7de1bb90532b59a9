"""Kernels for the largest entries of long segments, each read by many programs.

A *row* of the table describes a segment (the columns are below); a *chunk* is the part of it that one program reads. A
lower bound of the k-th magnitude is taken from a sample; what reaches it, the *candidates*, is compacted, and the
exact selection is made among them, by its bits, eight at a time. Whether the bound was good is known on the device
alone. Where it was not, the candidates' chunks are empty, and those of the whole segment are not: every later kernel
is launched for both, and a program whose chunk is empty ends at once. Numbers of int64 throughout, but bits.
"""

from typing import Any

import triton
import triton.language as tl

from thinwire.kernels.flat.entries_triton import load_entries
from thinwire.kernels.select.short_triton import COUNT, ORIGIN, PLACE, SIZE, kth_magnitude, magnitudes_of

FIRST = tl.constexpr(4)  # number of the first chunk of the segment
LAST = tl.constexpr(5)  # of the first that is not the segment's
FIRST_FOUND = tl.constexpr(6)  # of the first chunk of its candidates
ROOM = tl.constexpr(7)  # where its candidates go
CAPACITY = tl.constexpr(8)  # how many have room
SAMPLE = tl.constexpr(9)  # how many entries are looked at for the bound
RANK = tl.constexpr(10)  # which of them, the largest being 1, is the bound
CHUNK = tl.constexpr(11)  # entries of a chunk
BOUND = tl.constexpr(12)  # written by the kernel that takes the sample
COLUMNS = tl.constexpr(13)
BINS = tl.constexpr(256)
LANES = tl.constexpr(16)


@triton.jit
def take_bounds(
    x: tl.tensor, residual: tl.tensor, decay: tl.tensor, table: tl.tensor, ADD: tl.constexpr, ENTRIES: tl.constexpr
) -> None:
    """One program for a segment: the bound, from at most ``ENTRIES`` entries, one in each of as many equal parts."""
    row = table + tl.program_id(0).to(tl.int64) * COLUMNS
    size, num = tl.load(row + SIZE), tl.load(row + SAMPLE)
    numbers = tl.arange(0, ENTRIES)
    # Spread out without a period; a bad sample costs time, never exactness.
    mixed = (numbers.to(tl.uint32) + 1) * 0x9E3779B1
    mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA77
    part = size // tl.maximum(num, 1)
    places = numbers * part + ((mixed ^ (mixed >> 13)) >> 1).to(tl.int64) % tl.maximum(part, 1)
    inside = numbers < num
    u = load_entries(x, residual, decay, tl.load(row + ORIGIN) + places, inside, ADD)
    bound = kth_magnitude(tl.where(inside, magnitudes_of(u), -1), tl.load(row + RANK))
    tl.store(row + BOUND, bound.to(tl.int64))


@triton.jit
def add_and_count(
    x: tl.tensor,
    residual: tl.tensor,
    decay: tl.tensor,
    out: tl.tensor,
    table: tl.tensor,
    segments: tl.tensor,
    reached: tl.tensor,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """``u`` to ``out`` if ``ADD``, and how many entries of each chunk reach the bound to ``reached``."""
    chunk = tl.program_id(0).to(tl.int64)
    row = table + tl.load(segments + chunk) * COLUMNS
    bound = tl.load(row + BOUND).to(tl.int32)
    first, start, stop = _whole_chunk(row, chunk)
    total = tl.zeros((BLOCK,), tl.int32)
    for begin in range(first, stop, BLOCK):
        places = _aligned(begin, BLOCK)
        # Without a mask, four entries are read and written at a time.
        if (begin >= start) & (begin + BLOCK <= stop):
            u = load_entries(x, residual, decay, places, tl.full((BLOCK,), True, tl.int1), ADD)
            if ADD:
                tl.store(out + places, u)
            total += (magnitudes_of(u) >= bound).to(tl.int32)
        else:
            inside = (places >= start) & (places < stop)
            u = load_entries(x, residual, decay, places, inside, ADD)
            if ADD:
                tl.store(out + places, u, mask=inside)
            total += (inside & (magnitudes_of(u) >= bound)).to(tl.int32)
    tl.store(reached + chunk, tl.sum(total, 0).to(tl.int64))


@triton.jit
def compact(
    out: tl.tensor,
    table: tl.tensor,
    segments: tl.tensor,
    before: tl.tensor,
    found: tl.tensor,
    found_at: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Entries that reach the bound to ``found`` and their places in the segment to ``found_at``, in order.

    ``before`` has for each chunk how many reach it in the chunks before.
    """
    chunk = tl.program_id(0).to(tl.int64)
    row = table + tl.load(segments + chunk) * COLUMNS
    _, good = _num_found(row, before)
    earlier = tl.load(before + chunk)
    if good & (tl.load(before + chunk + 1) > earlier):
        bound, origin = tl.load(row + BOUND).to(tl.int32), tl.load(row + ORIGIN)
        target = tl.load(row + ROOM) + earlier - tl.load(before + tl.load(row + FIRST))
        first, start, stop = _whole_chunk(row, chunk)
        for begin in range(first, stop, BLOCK):
            places = _aligned(begin, BLOCK)
            if (begin >= start) & (begin + BLOCK <= stop):
                u = tl.load(out + places)
            else:
                u = tl.load(out + places, mask=(places >= start) & (places < stop), other=0.0)
            passes = (places >= start) & (places < stop) & (magnitudes_of(u) >= bound)
            marks = passes.to(tl.int32)
            targets = target + tl.cumsum(marks, 0) - 1
            tl.store(found + targets, u, mask=passes)
            tl.store(found_at + targets, (places - origin).to(found_at.dtype.element_ty), mask=passes)
            target += tl.sum(marks, 0)


@triton.jit
def add_to_histogram(
    out: tl.tensor,
    found: tl.tensor,
    table: tl.tensor,
    segments: tl.tensor,
    before: tl.tensor,
    histograms: tl.tensor,
    DIGIT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """How often each value of bits ``24 - 8 * DIGIT`` and up occurs where the bits above are the threshold's."""
    row, segment, code, base, start, stop = _chunk(table, segments, before)
    if start < stop:
        rows = histograms + segment * (4 * BINS)
        prefix, _ = _digits(rows, tl.load(row + COUNT), DIGIT)
        total = tl.zeros((BINS,), tl.int32)
        for begin in range(start, stop, BLOCK):
            places = begin + tl.arange(0, BLOCK)
            u = _entries(out, found, base, places, stop, code)
            magnitudes = tl.where(places < stop, magnitudes_of(u), -1)
            same = places < stop
            if DIGIT > 0:
                same = same & ((magnitudes >> (32 - 8 * DIGIT)) == prefix)
            total += tl.histogram((magnitudes >> (24 - 8 * DIGIT)) & 255, BINS, mask=same)
        # Sums of whole numbers are the same in any order.
        target = rows + DIGIT * BINS + tl.arange(0, BINS)
        tl.atomic_add(target, total.to(histograms.dtype.element_ty), mask=total > 0, sem="relaxed")


@triton.jit
def tally(
    out: tl.tensor,
    found: tl.tensor,
    table: tl.tensor,
    segments: tl.tensor,
    before: tl.tensor,
    histograms: tl.tensor,
    tallies: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """How many entries of each chunk are above the threshold and how many equal it: ``[chunks, 2]``."""
    row, segment, code, base, start, stop = _chunk(table, segments, before)
    above = tl.zeros((BLOCK,), tl.int32)
    equal = tl.zeros((BLOCK,), tl.int32)
    if start < stop:
        threshold, _ = _digits(histograms + segment * (4 * BINS), tl.load(row + COUNT), 4)
        for begin in range(start, stop, BLOCK):
            places = begin + tl.arange(0, BLOCK)
            u = _entries(out, found, base, places, stop, code)
            magnitudes = tl.where(places < stop, magnitudes_of(u), -1)
            above += (magnitudes > threshold).to(tl.int32)
            equal += (magnitudes == threshold).to(tl.int32)
    target = tallies + 2 * tl.program_id(0).to(tl.int64)
    tl.store(target, tl.sum(above, 0).to(tl.int64))
    tl.store(target + 1, tl.sum(equal, 0).to(tl.int64))


@triton.jit
def take(
    out: tl.tensor,
    found: tl.tensor,
    found_at: tl.tensor,
    table: tl.tensor,
    segments: tl.tensor,
    before: tl.tensor,
    histograms: tl.tensor,
    ranks: tl.tensor,
    indices: tl.tensor,
    values: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """What is above the threshold, and of what equals it the first: positions to ``indices``, entries to ``values``.

    ``ranks``, ``[chunks + 1, 2]``, has the sums of the tallies of the chunks before.
    """
    row, segment, code, base, start, stop = _chunk(table, segments, before)
    if start < stop:
        threshold, ties = _digits(histograms + segment * (4 * BINS), tl.load(row + COUNT), 4)
        own = ranks + 2 * tl.program_id(0).to(tl.int64)
        first = ranks + 2 * tl.load(row + tl.where(code >= 0, FIRST, FIRST_FOUND))
        equal_before = tl.load(own + 1) - tl.load(first + 1)
        target = tl.load(row + PLACE) + tl.load(own) - tl.load(first) + tl.minimum(equal_before, ties)
        origin = tl.load(row + ORIGIN)
        for begin in range(start, stop, BLOCK):
            places = begin + tl.arange(0, BLOCK)
            inside = places < stop
            u = _entries(out, found, base, places, stop, code)
            positions = tl.load(found_at + base + places, mask=places < tl.where(code < 0, stop, 0), other=0)
            positions = origin + tl.where(code < 0, positions.to(tl.int64), places)
            magnitudes = tl.where(inside, magnitudes_of(u), -1)
            equal = (magnitudes == threshold).to(tl.int32)
            chosen = (magnitudes > threshold) | ((equal > 0) & (equal_before + tl.cumsum(equal, 0) <= ties))
            marks = chosen.to(tl.int32)
            targets = target + tl.cumsum(marks, 0) - 1
            tl.store(indices + targets, positions, mask=chosen)
            tl.store(values + targets, u, mask=chosen)
            target += tl.sum(marks, 0)
            equal_before += tl.sum(equal, 0)


@triton.jit
def _whole_chunk(row: tl.tensor, chunk: tl.tensor) -> Any:
    """Where in the vector a chunk of the whole segment begins, without what lies before the segment, and ends.

    It begins at a multiple of :data:`LANES`, the first chunk of a segment maybe before the segment.
    """
    origin, length = tl.load(row + ORIGIN), tl.load(row + CHUNK)
    begin = origin // LANES * LANES + (chunk - tl.load(row + FIRST)) * length
    return begin, tl.maximum(begin, origin), tl.minimum(begin + length, origin + tl.load(row + SIZE))


@triton.jit
def _aligned(begin: tl.tensor, BLOCK: tl.constexpr) -> Any:
    """The places from ``begin`` on, which the compiler is told is a multiple of :data:`LANES`."""
    return tl.max_contiguous(tl.multiple_of(begin + tl.arange(0, BLOCK), LANES), BLOCK)


@triton.jit
def _num_found(row: tl.tensor, before: tl.tensor) -> Any:
    """How many entries of the segment reach the bound; whether they are enough, and have room."""
    num = tl.load(before + tl.load(row + LAST)) - tl.load(before + tl.load(row + FIRST))
    return num, (num >= tl.load(row + COUNT)) & (num <= tl.load(row + CAPACITY))


@triton.jit
def _chunk(table: tl.tensor, segments: tl.tensor, before: tl.tensor) -> Any:
    """Of the program's chunk: row, segment, whether it is of the whole segment or of candidates, base, start and end.

    ``segments`` has ``s`` for a chunk of the whole segment ``s`` and ``-1 - s`` for one of its candidates. Start and
    end are counted from the base in ``out`` or among the candidates.
    """
    chunk = tl.program_id(0).to(tl.int64)
    code = tl.load(segments + chunk)
    whole = code >= 0
    segment = tl.where(whole, code, -1 - code)
    row = table + segment * COLUMNS
    num, good = _num_found(row, before)
    length = tl.where(whole, tl.where(good, 0, tl.load(row + SIZE)), tl.where(good, num, 0))
    length = tl.where(tl.load(row + COUNT) > 0, length, 0)
    step = tl.load(row + CHUNK)
    start = (chunk - tl.load(row + tl.where(whole, FIRST, FIRST_FOUND))) * step
    base = tl.load(row + tl.where(whole, ORIGIN, ROOM))
    return row, segment, code, base, start, tl.minimum(start + step, length)


@triton.jit
def _entries(
    out: tl.tensor, found: tl.tensor, base: tl.tensor, places: tl.tensor, stop: tl.tensor, code: tl.tensor
) -> Any:
    """Entries of the whole segment or its candidates, from ``base`` on; 0 from ``stop`` on."""
    # The interpreter does not know how to combine these masks with whether `code` is negative.
    whole = tl.load(out + base + places, mask=places < tl.where(code < 0, 0, stop), other=0.0)
    few = tl.load(found + base + places, mask=places < tl.where(code < 0, stop, 0), other=0.0)
    return tl.where(code < 0, few, whole)


@triton.jit
def _digits(histograms: tl.tensor, count: tl.tensor, NUM: tl.constexpr) -> Any:
    """The first ``NUM`` digits of the threshold, and how many entries that begin so are wanted."""
    prefix = tl.full((), 0, tl.int32)
    wanted = count
    bins = tl.arange(0, BINS)
    for digit in tl.static_range(NUM):
        members = tl.load(histograms + digit * BINS + bins).to(tl.int64)
        reached = tl.sum(members, 0) - tl.cumsum(members, 0)  # members of the bins above
        chosen = (reached < wanted) & (reached + members >= wanted)
        prefix = (prefix << 8) | tl.sum(tl.where(chosen, bins, 0), 0)
        wanted -= tl.sum(tl.where(chosen, reached, 0), 0)
    return prefix, wanted
