"""Keep the largest entries."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from thinwire.compressors.amount import (
    check_amount,
    draw_counts,
    kept_segments,
    kept_share,
    most_counts,
    sparse_outline,
)
from thinwire.compressors.base import Compressor, Traits, check_vector, sparsified
from thinwire.compressors.identity import Identity
from thinwire.config import Share, check_types, register
from thinwire.kernels.select.accumulate import accumulate_top_k
from thinwire.kernels.select.difference import top_k_of_difference
from thinwire.kernels.select.top_k import top_k_entries
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """``C(x) = V(top_k(x))``: the k entries of largest magnitude, their values compressed by ``values``.

    ``0 < k < 1`` keeps the largest entry with probability k (ultra-sparsification). Ties are broken towards
    the lowest index.

    Constant: gamma = ``k/d`` for exact values, for every x, attained by entries of equal magnitude. With a quantizer
        on the values ``(1 - e) k/d``, ``e`` its error on k entries, as long as ``e < 1``: ``k / (d (1 + beta))`` for
        QSGD that is scaled. An unbiased quantizer with ``beta >= 1`` makes it no contraction: scale it.
    Bits: 32 (or ``values``) for each of the k entries, and its index: about ``log2(d/k) + 1.5``, less where kept
        entries lie close together.
    Paper: Stich, Cordonnier and Jaggi 2018 (Mem-SGD), Def. 2.1; Basu et al. 2019 (Qsparse-local-SGD), Lemmas 1-3.
    Use it when: fewer than about 2 bits an entry can be spent and there is a memory: under error feedback it is the
        best sparsifier, the more so the heavier the tails. With ``values=Sign()`` on light tails, with 3 to 6 bits a
        value on heavy ones.

    Args:
        density: kept share of each segment, in (0, 1], or text such as ``"1%"``; at least one entry of each.
        k: kept entries of each segment, at most its size; or a probability below 1.
        values: what becomes of the k kept values, segment by segment.

    Raises:
        ConfigError: neither or both of ``density`` and ``k``; either out of range.

    Example:
        >>> import torch
        >>> TopK(k=2).compress(torch.tensor([1.0, -3.0, 2.0]), Key(0), Segments.whole(3)).to_dense().tolist()
        [0.0, -3.0, 2.0]
    """

    density: Share | None = None
    k: float | None = None
    values: Compressor = Identity()

    def __post_init__(self) -> None:
        check_types(self)
        check_amount(self.k, self.density)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        """The kept indices, ascending, and their compressed values."""
        check_vector(x, segments)
        counts = draw_counts(self.k, self.density, segments, key)
        indices, kept = top_k_entries(x, segments.offsets(), counts)
        return Sparse(
            x.numel(), indices, self.values.compress(kept, key.fold("values"), kept_segments(segments, counts))
        )

    def compress_residual(
        self, x: Tensor, residual: Tensor, decay: float, out: Tensor, key: Key, segments: Segments
    ) -> Sparse:
        """Compress ``u = decay * residual + x``, leave ``u`` minus the decoded payload in ``out``: one pass."""
        check_vector(x, segments)
        counts = draw_counts(self.k, self.density, segments, key)
        indices, kept = accumulate_top_k(x, residual, decay, out, segments.offsets(), counts)
        values = self.values.compress(kept, key.fold("values"), kept_segments(segments, counts))
        payload = Sparse(x.numel(), indices, values)
        payload.add_to(out, -1.0)
        return payload

    def can_compress_difference(self, segments: Segments) -> bool:
        """Of one segment."""
        return segments.count == 1

    def compress_difference(
        self, reference: Tensor, tensors: Sequence[Tensor], residual: Tensor, decay: float, key: Key, segments: Segments
    ) -> Sparse:
        """The message for ``decay * residual + (reference - tensors)``; the vector is made in no memory."""
        counts = draw_counts(self.k, self.density, segments, key)
        indices, kept = top_k_of_difference(reference, tensors, residual, decay, int(counts.sum()))
        values = self.values.compress(kept, key.fold("values"), kept_segments(segments, counts))
        return Sparse(reference.numel(), indices, values)

    def outline(self, segments: Segments) -> Sparse:
        """As many entries as can be kept."""
        return sparse_outline(most_counts(self.k, self.density, segments), self.values, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction, unless the value quantizer's variance is 1 or more."""
        share = kept_share(self.k, self.density, numel)
        return sparsified(share, self.values.traits(max(1, round(share * numel))))
