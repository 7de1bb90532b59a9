"""The (s, k) search: levels and kept entries of a quantized top-k that take the fewest bits for a contraction."""

import math
from dataclasses import dataclass

from torch import Tensor

from thinwire.compressors import QSGD, TopK
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.random import Key
from thinwire.wire import encoded_num_bytes

# Sign and level bits together stay below what a QSGD message may have.
_LEVELS = tuple((1 << bits) - 1 for bits in range(1, 13))


@dataclass(frozen=True, slots=True)
class Pair:
    """A scaled QTopk with a proven ``gamma``.

    Args:
        levels: s of QSGD.
        k: kept entries.
        gamma: ``k / (d (1 + beta))`` with ``beta = min(k / s^2, sqrt(k) / s)``.
        formula_bits: ``k (1 + ceil(log2(s + 1))) + 32``, and for the indices ``k ceil(log2 d)`` or a bitmap of ``d``.
    """

    levels: int
    k: int
    gamma: float
    formula_bits: int

    def num_bytes(self, x: Tensor) -> int:
        """What the message of a vector takes, frame and all."""
        compressor = TopK(k=self.k, values=QSGD(levels=self.levels, scaled=True, coding="entropy"))
        return encoded_num_bytes(compressor.compress(x, Key(0), Segments.whole(x.numel())))


def exact_num_bytes(x: Tensor, gamma: float) -> int:
    """What a top-k of exact values with the same ``gamma`` takes: ``k = gamma d``.

    Example:
        >>> import torch
        >>> exact_num_bytes(torch.arange(1000.0), 0.01) < 100
        True
    """
    compressor = TopK(k=math.ceil(gamma * x.numel()))
    return encoded_num_bytes(compressor.compress(x, Key(0), Segments.whole(x.numel())))


def pairs(numel: int, gamma: float) -> list[Pair]:
    """For each s = 1, 3, 7, ... the smallest k whose scaled QTopk is a contraction with ``gamma``, fewest bits first.

    Basu et al. 2019 advise this search: few levels make ``beta`` large, which takes more entries; many levels make
    each entry longer. What a message really takes is less than the formula, since indices are coded by their gaps.

    Raises:
        ConfigError: no entries, or a gamma outside of (0, 1].

    Example:
        >>> best = pairs(7850, 0.01)[0]
        >>> best.levels, best.k, best.formula_bits
        (63, 81, 1652)
    """
    if numel < 1 or not 0.0 < gamma <= 1.0:
        raise ConfigError(
            f"{numel} entries and gamma = {gamma} were given; give at least 1 entry and a gamma in (0, 1]"
        )
    found = []
    for levels in _LEVELS:
        k = _smallest(numel, gamma, levels)
        if k is not None:
            indices = min(k * math.ceil(math.log2(numel)), numel)
            num_bits = k * (1 + math.ceil(math.log2(levels + 1))) + indices + 32
            found.append(Pair(levels, k, _gamma(numel, k, levels), num_bits))
    return sorted(found, key=lambda pair: (pair.formula_bits, pair.levels))


def _smallest(numel: int, gamma: float, levels: int) -> int | None:
    """The smallest k that is enough; gamma grows with k."""
    if _gamma(numel, numel, levels) < gamma:
        return None
    low, high = 0, numel
    while high - low > 1:
        middle = (low + high) // 2
        if _gamma(numel, middle, levels) >= gamma:
            high = middle
        else:
            low = middle
    return high


def _gamma(numel: int, k: int, levels: int) -> float:
    beta = min(k / levels**2, math.sqrt(k) / levels)
    return k / (numel * (1.0 + beta))
