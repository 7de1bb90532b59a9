"""A few indices of many, each set of them equally likely."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.numba_tools import kernel, tensor_of
from thinwire.kernels.philox import check_stream, fill_words, random_words_torch

_MAX_NUMEL = 2**48


def random_subset(
    key: int, numel: int, count: int, stream_offset: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """``count`` different indices below ``numel``, ascending, uniform over all such sets.

    Candidate ``j`` is ``(w_{2j} + 2**32 * w_{2j+1}) mod numel`` with the words ``w`` of
    :func:`thinwire.kernels.philox.random_words` from ``stream_offset`` on; the first ``count`` different
    candidates are kept. For ``count > numel / 2`` the rest is drawn instead and left out. The modulo favours
    small indices by less than ``numel / 2**64``.

    Args:
        key: in ``[0, 2**64)``.
        numel: 0 to ``2**48``.
        count: 0 to ``numel``.
        stream_offset: number of the first word that is used. About ``3 * count`` words are, so subsets that
            are to be
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
    if 2 * count > numel:
        return _complement(random_subset(key, numel, numel - count, stream_offset), numel)
    chosen = np.empty(count, np.int64)
    _draw(np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), stream_offset, numel, chosen)
    chosen.sort()
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


@kernel
def _draw(k0: Any, k1: Any, stream_offset: int, numel: int, chosen: Any) -> None:
    size = 16
    while size < 2 * chosen.size:
        size *= 2
    table = np.full(size, -1, np.int64)
    lanes = np.empty((4, 128), np.uint32)
    fresh = np.empty(512, np.uint32)
    words = np.empty(513, np.uint64)
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
            fill_words(k0, k1, block, lanes, fresh)
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
