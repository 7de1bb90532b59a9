"""A few indices of many, each set of them equally likely.

Indices are drawn one after another, and one that was drawn before is drawn again. A bit for each index that there is
remembers them, and read in order they are sorted; only where few of very many are drawn is there a table and a sort.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import offsets_array, selection_arrays
from thinwire.kernels.jit import threads
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline
from thinwire.kernels.jit.intrinsics import count_trailing_zeros, empty, zeros
from thinwire.kernels.random.philox import check_stream, fill_words, random_words_torch

_MAX_NUMEL = 2**48

STREAM = 2**34
"""Words between the streams of two segments."""

_MAX_COUNT = 2**32
_MAX_SEGMENTS = 2**28

_SPARSE = 1 << 12
"""With more indices for each that is drawn, a table of those drawn is cheaper than bits for all."""


def segment_subsets(key: int, offsets: Tensor, counts: Tensor) -> Tensor:
    """``counts[s]`` different positions in each segment ``s``, uniform over all such sets.

    Those of segment ``s`` are ``random_subset(key, size, counts[s], stream_offset=2**34 * s)``, moved to where the
    segment begins: they depend on the key, the number, the size and the count of the segment, and on no other.

    Args:
        key: in ``[0, 2**64)``.
        offsets: int64 ``[s + 1]``, ascending from 0: where the segments begin; ``s`` is at most ``2**28``.
        counts: int64 ``[s]``, 0 to the size of the segment, at most ``2**32``.

    Returns:
        int64 ``[counts.sum()]`` on the device of ``offsets``, ascending.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> segment_subsets(7, torch.tensor([0, 4, 6]), torch.tensor([0, 2])).tolist()
        [4, 5]
    """
    numel = check_segments(key, offsets, counts)
    if not offsets.is_cpu:
        return body_for(segment_subsets_torch, offsets.device)(key, offsets, counts)
    starts, _, ends = selection_arrays(offsets, counts, numel)
    chosen = np.empty(ends[-1], np.int64)
    # Ranges of segments in which about equal numbers are drawn.
    parts = threads.shares(chosen.size)
    borders = np.searchsorted(ends[:-1], [start for start, _ in parts]).tolist()
    borders[0] = 0
    arguments = (np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), starts, ends)
    bounds = zip(borders, [*borders[1:], starts.size - 1], strict=True)
    threads.run(_draw_segments, [(*arguments, first, last, chosen) for first, last in bounds])
    return tensor_of(chosen)


def segment_subsets_torch(key: int, offsets: Tensor, counts: Tensor) -> Tensor:
    """:func:`segment_subsets` in torch operations, on any device."""
    drawn = [torch.empty(0, dtype=torch.int64, device=offsets.device)]
    for number, (start, size, count) in enumerate(
        zip(offsets.tolist(), offsets.diff().tolist(), counts.tolist(), strict=False)
    ):
        drawn.append(random_subset_torch(key, size, count, number * STREAM, offsets.device) + start)
    return torch.cat(drawn)


def random_subset(
    key: int, numel: int, count: int, stream_offset: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """``count`` different indices below ``numel``, ascending, uniform over all such sets.

    Candidate ``j`` is ``(w_{2j} + 2**32 * w_{2j+1}) mod numel`` with the words ``w`` of
    :func:`thinwire.kernels.random.philox.random_words` from ``stream_offset`` on; the first ``count`` different
    candidates are kept. For ``count > numel / 2`` the rest is drawn instead and left out. The modulo favours
    small indices by less than ``numel / 2**64``.

    Args:
        key: in ``[0, 2**64)``.
        numel: 0 to ``2**48``.
        count: 0 to ``numel``.
        stream_offset: number of the first word that is used. About ``3 * count`` words are, so subsets that are to be
            independent need different keys, or offsets far apart.
        device: where the indices are made; the bits do not depend on it.

    Returns:
        int64 ``[count]``.

    Raises:
        ConfigError: an argument out of its range.

    Example:
        >>> random_subset(key=3, numel=10, count=10).tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> len(set(random_subset(key=3, numel=2**40, count=100).tolist()))
        100
    """
    if not 0 <= count <= numel <= _MAX_NUMEL:
        raise ConfigError(f"{count} of {numel} indices were asked for; at most {numel} of at most 2**48 can be")
    check_stream(key, stream_offset, 8 * count)
    if torch.device(device).type != "cpu":
        return random_subset_torch(key, numel, count, stream_offset, device)
    chosen = np.empty(count, np.int64)
    k0, k1 = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    if count * _SPARSE < numel:
        _draw_sparse(k0, k1, stream_offset, numel, chosen)
        chosen.sort()
    else:
        _draw(k0, k1, stream_offset, 0, numel, np.zeros((numel + 63) // 64, np.uint64), chosen)
    return tensor_of(chosen)


def random_subset_torch(
    key: int, numel: int, count: int, stream_offset: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """:func:`random_subset` in torch operations, on any device."""
    if 2 * count > numel:
        return _complement(random_subset_torch(key, numel, numel - count, stream_offset, device), numel)
    num_candidates = count + count // 2 + 64
    while count:
        words = random_words_torch(key, stream_offset, 2 * num_candidates, device)
        candidates = _modulo(words[0::2] | (words[1::2] << 32), numel)
        ordered, draws = candidates.sort(stable=True)
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        first_draws = draws[is_first].sort().values
        if first_draws.numel() >= count:
            return candidates[first_draws[:count]].sort().values
        num_candidates *= 2
    return torch.empty(0, dtype=torch.int64, device=device)


def _modulo(words: Tensor, numel: int) -> Tensor:
    # int64 holds an unsigned word: halve it so that it is not negative, and put the lowest bit back
    # afterwards.
    half = (words >> 1) & (2**63 - 1)
    return (half % numel * 2 + (words & 1)) % numel


def _complement(indices: Tensor, numel: int) -> Tensor:
    left = torch.ones(numel, dtype=torch.bool, device=indices.device)
    left[indices] = False
    return left.nonzero().squeeze(1)


def check_segments(key: int, offsets: Tensor, counts: Tensor) -> int:
    """The number of entries that the segments have; ConfigError if the draws cannot be addressed.

    Example:
        >>> check_segments(7, torch.tensor([0, 4, 6]), torch.tensor([0, 2]))
        6
    """
    numel = int(offsets[-1]) if offsets.numel() else 0
    check_stream(key, 0, 0)
    starts = offsets_array(offsets, numel)
    if starts.size - 1 > _MAX_SEGMENTS or numel > _MAX_NUMEL or (counts.numel() and int(counts.max()) > _MAX_COUNT):
        raise ConfigError(
            f"{starts.size - 1} segments of {numel} entries in all; at most 2**28 of 2**48 can be drawn from, and at"
            " most 2**32 entries of each"
        )
    return numel


@kernel
def _draw_segments(k0: Any, k1: Any, starts: Any, ends: Any, first: int, last: int, chosen: Any) -> None:
    most = 0
    for segment in range(first, last):
        most = max(most, starts[segment + 1] - starts[segment])
    marks = zeros((most + 63) // 64, np.uint64)
    for segment in range(first, last):
        if ends[segment + 1] > ends[segment]:
            part = chosen[ends[segment] : ends[segment + 1]]
            _draw(k0, k1, segment << 34, starts[segment], starts[segment + 1] - starts[segment], marks, part)


@kernel
def _draw(k0: Any, k1: Any, stream_offset: int, start: int, numel: int, marks: Any, chosen: Any) -> None:
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
def _draw_sparse(k0: Any, k1: Any, stream_offset: int, numel: int, chosen: Any) -> None:
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
