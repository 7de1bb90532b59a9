"""Keep random entries."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import to_device
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
from thinwire.compressors.shortening import magnified
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.kernels.select.accumulate import accumulate_take
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class RandK:
    """``C(x) = V(x_S)`` with S a uniformly random k-subset of each segment.

    ``unbiased=True`` multiplies the kept values by d/k, which gives ``E C(x) = x`` and needs no memory. ``0 < k < 1``
    keeps one random entry with probability k, else nothing (ultra-sparsification; not available unbiased).

    Constant: gamma = ``k/d``, an equality for every x: ``E||C(x) - x||^2 = (1 - k/d) ||x||^2``; with ``unbiased=True``
        omega = ``d/k - 1``, an equality too, or ``(d/k) (1 + omega) - 1`` with ``values`` of that omega.
    Bits: 32 (or ``values``) for each of the k entries, and its index: about ``log2(d/k) + 1.5``.
    Paper: Stich, Cordonnier and Jaggi 2018 (Mem-SGD), Def. 2.1; Konecny and Richtarik 2018.
    Use it when: a baseline is needed. ``SharedSeedRandK`` keeps the same entries without sending their indices, and
        ``TopK`` keeps better ones.

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

    density: Share | None = None
    k: float | None = None
    values: Compressor = Identity()
    unbiased: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_amount(self.k, self.density)
        if self.unbiased and self.k is not None and self.k < 1.0:
            raise ConfigError(f"unbiased rand-k with k = {self.k} was asked for; it needs k of at least 1")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        """The drawn indices, ascending, and their compressed values."""
        check_vector(x, segments)
        counts = draw_counts(self.k, self.density, segments, key)
        indices = segment_subsets(key.fold("indices").bits64(), segments.offsets(), counts, x.device)
        return self._payload(indices, x.index_select(0, indices), counts, key, segments)

    def compress_residual(
        self, x: Tensor, residual: Tensor, decay: float, out: Tensor, key: Key, segments: Segments
    ) -> Sparse:
        """Compress ``u = decay * residual + x``, leave ``u`` minus the decoded payload in ``out``: one pass."""
        check_vector(x, segments)
        counts = draw_counts(self.k, self.density, segments, key)
        indices = segment_subsets(key.fold("indices").bits64(), segments.offsets(), counts, x.device)
        payload = self._payload(indices, accumulate_take(x, residual, decay, out, indices), counts, key, segments)
        payload.add_to(out, -1.0)
        return payload

    def _payload(self, indices: Tensor, kept: Tensor, counts: Tensor, key: Key, segments: Segments) -> Sparse:
        """The message that has the entries ``kept``, which it may overwrite."""
        if self.unbiased:
            sizes = segments.offsets().diff()
            factors = sizes.to(torch.float32) / counts.clamp_min(1).to(torch.float32)
            kept = magnified(kept, to_device(factors.repeat_interleave(counts), kept.device))
        values = self.values.compress(kept, key.fold("values"), kept_segments(segments, counts))
        return Sparse(segments.numel, indices, values)

    def outline(self, segments: Segments) -> Sparse:
        """As many entries as can be kept."""
        return sparse_outline(most_counts(self.k, self.density, segments), self.values, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction in expectation, or unbiased with ``omega = (d/k)(1 + omega_values) - 1``."""
        share = kept_share(self.k, self.density, numel)
        values = self.values.traits(max(1, round(share * numel)))
        if self.unbiased:
            return Traits(unbiased=values.unbiased, error=(1.0 + values.error) / share - 1.0)
        return sparsified(share, values)
