"""Keep the largest entries."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.compressors.amount import check_amount, draw_counts, kept_share
from thinwire.compressors.base import Compressor, Traits, sparsified
from thinwire.compressors.identity import Identity
from thinwire.config import register
from thinwire.kernels.select import top_k
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """``C(x) = V(top_k(x))``: the k entries of largest magnitude, their values compressed by ``values``.

    Contraction with ``gamma = k/d`` for exact values, for every x (Stich et al. 2018, Def. 2.1); with a
    quantizer on the values see :func:`thinwire.compressors.base.sparsified` (Basu et al. 2019, Lemmas 1-3).
    ``0 < k < 1`` keeps the largest entry with probability k (ultra-sparsification). Ties are broken towards
    the lowest index.

    Args:
        density: kept share of each segment, in (0, 1]; at least one entry of a segment is kept.
        k: kept entries of each segment, at most its size; or a probability below 1.
        values: what becomes of the k kept values, segment by segment.

    Raises:
        ConfigError: neither or both of ``density`` and ``k``; either out of range.

    Example:
        >>> import torch
        >>> TopK(k=2).compress(torch.tensor([1.0, -3.0, 2.0]), Key(0), Segments.whole(3)).to_dense().tolist()
        [0.0, -3.0, 2.0]
    """

    density: float | None = None
    k: float | None = None
    values: Compressor = Identity()

    def __post_init__(self) -> None:
        check_amount(self.k, self.density)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        """The kept indices, ascending, and their compressed values."""
        counts = draw_counts(self.k, self.density, segments, key)
        indices = top_k(x, segments.offsets(), counts)
        kept = kept_segments(segments, counts)
        return Sparse(x.numel(), indices, self.values.compress(x[indices], key.fold("values"), kept))

    def traits(self, numel: int) -> Traits:
        """A contraction, unless the value quantizer's variance is 1 or more."""
        share = kept_share(self.k, self.density, numel)
        return sparsified(share, self.values.traits(max(1, round(share * numel))))


def kept_segments(segments: Segments, counts: Tensor) -> Segments:
    """The cut of the kept values that follows the cut of the vector."""
    return Segments.whole(int(counts.sum())) if segments.count == 1 else Segments.of_sizes(counts.tolist())
