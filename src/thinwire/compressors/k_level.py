"""Stochastic rounding to equally spaced points from the least entry on."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.arrays import over
from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.flat.finite import LARGEST
from thinwire.kernels.quantize.grid import MOST_CODES, round_to_grid
from thinwire.kernels.reduce.extents import segment_extents
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.layout import Segments
from thinwire.payloads import Grid, Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class KLevel:
    """``C(x)_i`` one of the two points ``min + r s / (k - 1)`` around ``x_i``, right on average (Suresh et al. 2017).

    ``span="range"`` has ``s = max - min``: pi_sk, and with k = 2 stochastic binary quantization, pi_sb. ``span="norm"``
    with ``coding="entropy"`` has ``s = sqrt(2) ||x||``: pi_svk, whose codes lie in few of the levels, so that they take
    O(1 + log(k^2 / d + 1)) bits an entry; k about ``sqrt(d) + 1`` is the paper's choice.
    ``Rotate(values=KLevel(...))`` is pi_srk. Where ``s`` would pass the largest f32 it is that, and entries beyond
    are clipped.

    Constant: omega = ``d / (2 (k-1)^2)`` in the paper. The least entry is always exact, and for the range the largest
        one too: ``(d-2) / (2 (k-1)^2)`` for the range, attained for even k by one entry each of 1 and -1 among zeros,
        and ``(d-1) / (2 (k-1)^2)`` for the norm. The variance is ``sum (max - x_i)(x_i - min)`` for k = 2.
    Bits: ``d ceil(log2 k) + 64`` a segment packed; about the entropy of the codes with ``coding="entropy"``.
    Paper: Suresh, Yu, Kumar and McMahan 2017 (pi_sb, pi_sk, pi_svk).
    Use it when: entries are of one size, as after a rotation; a single large entry makes the grid coarse for all.

    Args:
        levels: k, the number of points, 2 to 65536.
        span: what the grid covers.
        coding: how the wire writes the codes.

    Raises:
        ConfigError: ``levels`` out of range, an unknown span or coding.

    Example:
        >>> payload = KLevel(levels=3).compress(torch.tensor([0.0, 1.0, 2.0]), Key(0), Segments.whole(3))
        >>> payload.to_dense().tolist()
        [0.0, 1.0, 2.0]
    """

    levels: int
    span: Literal["range", "norm"] = "range"
    coding: Literal["packed", "entropy"] = "packed"

    def __post_init__(self) -> None:
        check_types(self)
        if not 2 <= self.levels <= MOST_CODES:
            raise ConfigError(f"{self.levels} levels were asked for; KLevel takes 2 to {MOST_CODES}")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Grid:
        """One code an entry, and the least entry and the step of each segment."""
        check_vector(x, segments)
        offsets = segments.offsets()
        lows, highs = segment_extents(x, offsets)
        if self.span == "range":
            span = highs.double() - lows.double()
        else:
            span = (2.0 * segment_sums(x, offsets, 2)).sqrt()
        steps = over(span, self.levels - 1).clamp_(max=LARGEST / (self.levels - 1)).to(torch.float32)
        codes = round_to_grid(x, offsets, lows, steps, self.levels, key.bits64())
        return Grid(codes, self.levels, lows, steps, segments, self.coding)

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """Unbiased."""
        num_inexact = max(0, numel - 2) if self.span == "range" else max(0, numel - 1)
        return Traits(unbiased=True, error=num_inexact / (2.0 * (self.levels - 1) ** 2))

    def rotated_error(self, numel: int) -> float:
        """What remains of omega after a randomised Hadamard transform: ``(2 ln d + 2) / (k-1)^2`` (their Theorem 3).

        Example:
            >>> KLevel(levels=2).rotated_error(1024) < KLevel(levels=2).traits(1024).error
            True
        """
        error = self.traits(numel).error
        if self.span == "norm" or numel < 1:
            return error
        return min(error, (2.0 * math.log(numel) + 2.0) / (self.levels - 1) ** 2)
