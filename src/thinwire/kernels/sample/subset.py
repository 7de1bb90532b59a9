"""A few indices of many, each set of them equally likely.

Indices are drawn one after another, and one that was drawn before is drawn again. A bit for each index that there is
remembers them, and read in order they are sorted; only where few of very many are drawn is there a table and a sort.
"""

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import offsets_array, selection_arrays
from thinwire.kernels.jit import threads
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.random.philox import check_stream, random_words_torch
from thinwire.kernels.sample.subset_numba import draw, draw_segments, draw_sparse

_MAX_NUMEL = 2**48

STREAM = 2**34
"""Words between the streams of two segments."""

_MAX_COUNT = 2**32
_MAX_SEGMENTS = 2**28

_SPARSE = 1 << 12
"""With more indices for each that is drawn, a table of those drawn is cheaper than bits for all."""


def segment_subsets(key: int, offsets: Tensor, counts: Tensor, device: torch.device | str | None = None) -> Tensor:
    """``counts[s]`` different positions in each segment ``s``, uniform over all such sets.

    Those of segment ``s`` are ``random_subset(key, size, counts[s], stream_offset=2**34 * s)``, moved to where the
    segment begins: they depend on the key, the number, the size and the count of the segment, and on no other.

    Args:
        key: in ``[0, 2**64)``.
        offsets: int64 ``[s + 1]``, ascending from 0: where the segments begin; ``s`` is at most ``2**28``.
        counts: int64 ``[s]``, 0 to the size of the segment, at most ``2**32``.
        device: where the positions are made; by default where ``offsets`` lie. The bits do not depend on it.

    Returns:
        int64 ``[counts.sum()]``, ascending.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> segment_subsets(7, torch.tensor([0, 4, 6]), torch.tensor([0, 2])).tolist()
        [4, 5]
    """
    numel = check_segments(key, offsets, counts)
    starts, _, ends = selection_arrays(offsets, counts, numel)
    device = offsets.device if device is None else torch.device(device)
    if device.type != "cpu":
        return body_for(segment_subsets_torch, device)(key, offsets, counts, device)
    chosen = np.empty(ends[-1], np.int64)
    # Ranges of segments in which about equal numbers are drawn.
    parts = threads.shares(chosen.size)
    borders = np.searchsorted(ends[:-1], [start for start, _ in parts]).tolist()
    borders[0] = 0
    arguments = (np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), starts, ends)
    bounds = zip(borders, [*borders[1:], starts.size - 1], strict=True)
    threads.run(draw_segments, [(*arguments, first, last, chosen) for first, last in bounds])
    return tensor_of(chosen)


def segment_subsets_torch(key: int, offsets: Tensor, counts: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """:func:`segment_subsets` in torch operations, on any device."""
    drawn = [torch.empty(0, dtype=torch.int64, device=device)]
    for number, (start, size, count) in enumerate(
        zip(offsets.tolist(), offsets.diff().tolist(), counts.tolist(), strict=False)
    ):
        drawn.append(random_subset_torch(key, size, count, number * STREAM, device) + start)
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
        draw_sparse(k0, k1, stream_offset, numel, chosen)
        chosen.sort()
    else:
        draw(k0, k1, stream_offset, 0, numel, np.zeros((numel + 63) // 64, np.uint64), chosen)
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
