"""Keep random entries."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.amount import check_amount, draw_counts, kept_share
from thinwire.compressors.base import Compressor, Traits, sparsified
from thinwire.compressors.identity import Identity
from thinwire.compressors.top_k import kept_segments
from thinwire.config import register
from thinwire.errors import ConfigError
from thinwire.kernels.subset import random_subset
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class RandK:
    """``C(x) = V(x_S)`` with S a uniformly random k-subset of each segment.

    ``E||C(x) - x||^2 = (1 - k/d) ||x||^2`` exactly (Stich et al. 2018); ``unbiased=True`` multiplies the kept
    values by d/k, which gives ``E C(x) = x`` with ``omega = d/k - 1`` and needs no memory. ``0 < k < 1`` keeps
    one random entry with probability k, else nothing (ultra-sparsification; not available unbiased).

    Args:
        density: kept share of each segment, in (0, 1]; at least one entry of a segment is kept.
        k: kept entries of each segment, at most its size; or a probability below 1.
        values: what becomes of the k kept values, segment by segment.
        unbiased: scale the kept values by d/k.

    Raises:
        ConfigError: neither or both of ``density`` and ``k``; either out of range; ``unbiased`` with ``k < 1``.

    Example:
        >>> import torch
        >>> payload = RandK(k=2).compress(torch.ones(5), Key(0), Segments.whole(5))
        >>> payload.to_dense().sum().item()
        2.0
    """

    density: float | None = None
    k: float | None = None
    values: Compressor = Identity()
    unbiased: bool = False

    def __post_init__(self) -> None:
        check_amount(self.k, self.density)
        if self.unbiased and self.k is not None and self.k < 1.0:
            raise ConfigError(f"unbiased rand-k with k = {self.k} was asked for; it needs k of at least 1")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        """The drawn indices, ascending, and their compressed values."""
        counts = draw_counts(self.k, self.density, segments, key)
        starts = segments.offsets()
        sizes = starts.diff().tolist()
        drawn = [
            random_subset(key.fold("segment", number).bits64(), size, count) + start
            for number, (start, size, count) in enumerate(zip(starts.tolist(), sizes, counts.tolist(), strict=False))
            if count
        ]
        indices = torch.cat(drawn) if drawn else torch.empty(0, dtype=torch.int64)
        kept = x[indices]
        if self.unbiased:
            kept *= (starts.diff() / counts.clamp_min(1)).to(torch.float32).repeat_interleave(counts)
        return Sparse(
            x.numel(), indices, self.values.compress(kept, key.fold("values"), kept_segments(segments, counts))
        )

    def traits(self, numel: int) -> Traits:
        """A contraction in expectation, or unbiased with ``omega = (d/k)(1 + omega_values) - 1``."""
        share = kept_share(self.k, self.density, numel)
        values = self.values.traits(max(1, round(share * numel)))
        if self.unbiased:
            return Traits(unbiased=values.unbiased, error=(1.0 + values.error) / share - 1.0)
        return sparsified(share, values)
