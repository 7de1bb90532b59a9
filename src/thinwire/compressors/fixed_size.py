"""Keep a fixed number of random entries, around a centre, with a shared seed."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.amount import check_amount, draw_counts, kept_segments, kept_share, most_counts
from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.bernoulli import sampled, segment_means
from thinwire.compressors.identity import Identity
from thinwire.compressors.seeded_rand_k import upscales
from thinwire.compressors.shortening import shortened
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.layout import Segments
from thinwire.payloads import Constant, Payload, SeededSparse, Sum
from thinwire.payloads.base import per_entry
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSize:
    """``C(x)_i = mu + (d/k) (x_i - mu)`` for i in a random k-subset, else ``mu``: the encoder of fixed size.

    The subset is uniformly random and only its 64-bit key travels. The best centre ``mu`` of a segment is its mean.

    Constant: ``omega = d/k - 1``, an equality for a centre of 0 and for ``x`` orthogonal to the constant vector.
        Exactly, ``(d/k - 1) sum (x_i - mu)^2``.
    Bits: 32 (or ``values``) for each of k entries and 64 for the key; 32 for each segment's centre unless it is 0.
    Paper: Konecny and Richtarik 2018, sections 3 and 4 (sparse communication, seed shared).
    Use it when: an unbiased message of a known length is wanted at very few bits; no other has as little to send an
        entry.

    Args:
        density: kept share of each segment, in (0, 1]; at least one entry of a segment is kept.
        k: kept entries of each segment, a whole number; at most its size are kept.
        center: the node centre of each segment.
        values: what becomes of the kept values, segment by segment.

    Raises:
        ConfigError: neither or both of ``density`` and ``k``; either out of range; a name that is not known.

    Example:
        >>> import torch
        >>> x = torch.tensor([2.0, 2.0, 2.0])
        >>> FixedSize(k=1, center="mean").compress(x, Key(0), Segments.whole(3)).to_dense().tolist()
        [2.0, 2.0, 2.0]
    """

    density: Share | None = None
    k: float | None = None
    center: Literal["zero", "mean"] = "zero"
    values: Compressor = Identity()

    def __post_init__(self) -> None:
        check_types(self)
        check_amount(self.k, self.density)
        if self.k is not None and self.k < 1.0:
            raise ConfigError(f"k = {self.k} was given; sampling of a fixed size needs k of at least 1")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """The centres, unless they are 0, and what the drawn entries add to them."""
        check_vector(x, segments)
        return shortened(lambda x: self._compress(x, key, segments), x)

    def _compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        counts = draw_counts(self.k, self.density, segments, key)
        address = key.fold("indices").bits64()
        kept = x.index_select(0, segment_subsets(address, segments.offsets(), counts, x.device))
        cut = kept_segments(segments, counts)
        if self.center == "zero":
            return self._drawn(kept, cut, counts, address, key, segments)
        centres = segment_means(x, segments)
        kept -= per_entry(centres, cut)
        return Sum((Constant(centres, segments), self._drawn(kept, cut, counts, address, key, segments)))

    def _drawn(
        self, kept: Tensor, cut: Segments, counts: Tensor, address: int, key: Key, segments: Segments
    ) -> SeededSparse:
        kept *= to_device(upscales(segments, counts), kept.device)
        return SeededSparse(self.values.compress(kept, key.fold("values"), cut), cut, address, segments)

    def outline(self, segments: Segments) -> Payload:
        """As many entries as are kept."""
        cut = kept_segments(segments, most_counts(self.k, self.density, segments))
        drawn = SeededSparse(self.values.outline(cut), cut, 0, segments)
        if self.center == "zero":
            return drawn
        return Sum((Constant(torch.empty(segments.count, dtype=torch.float32, device="meta"), segments), drawn))

    def traits(self, numel: int) -> Traits:
        """Unbiased if the values are; of one entry the mean is all there is to know."""
        if numel <= 1 and self.center == "mean":
            return Traits(unbiased=True, error=0.0)
        share = kept_share(self.k, self.density, numel)
        return sampled(share, self.values.traits(max(1, round(share * numel))))
