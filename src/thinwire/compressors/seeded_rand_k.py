"""Keep random entries that the receiver can draw itself."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.amount import check_amount, draw_counts, kept_segments, kept_share, most_counts
from thinwire.compressors.base import Compressor, Traits, check_vector, sparsified
from thinwire.compressors.bernoulli import sampled
from thinwire.compressors.identity import Identity
from thinwire.compressors.shortening import magnified
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.layout import Segments
from thinwire.payloads import SeededSparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSeedRandK:
    """``C(x) = V(x_S)`` with S a uniformly random k-subset of each segment that only a 64-bit key names.

    The same operator, and with the same key the same entries, as :class:`thinwire.compressors.rand_k.RandK`, without
    the indices on the wire. ``shared=True`` draws S from a key that all workers of a step have in common: then all
    messages of the step have the same support, and their sum stays as sparse as one of them.

    Constant: ``E||C(x) - x||^2 = (1 - k/d) ||x||^2``, an equality, as is ``omega = d/k - 1`` with ``unbiased=True``.
    Bits: 32 (or ``values``) for each kept entry, and 64 for the key.
    Paper: Konecny and Richtarik 2018, section 4 (shared seed); Stich, Cordonnier, Jaggi 2018 (rand-k).
    Use it when: bits are dear and a random choice of entries is good enough; ``shared`` when messages are summed on
        the way. With memory, a shared support leaves all workers the same entries for later.

    Args:
        density: kept share of each segment, in (0, 1]; at least one entry of a segment is kept.
        k: kept entries of each segment, at most its size; or a probability below 1.
        values: what becomes of the k kept values, segment by segment.
        unbiased: scale the kept values by d/k.
        shared: the same support on all workers.

    Raises:
        ConfigError: neither or both of ``density`` and ``k``; either out of range; ``unbiased`` with ``k < 1``.

    Example:
        >>> first, second = (Key(0).fold("exchange", 3, "rank", rank) for rank in (0, 1))
        >>> operator = SharedSeedRandK(k=2, shared=True)
        >>> one, other = (operator.compress(torch.ones(9), key, Segments.whole(9)) for key in (first, second))
        >>> torch.equal(one.to_dense(), other.to_dense())
        True
    """

    density: Share | None = None
    k: float | None = None
    values: Compressor = Identity()
    unbiased: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_amount(self.k, self.density)
        if self.unbiased and self.k is not None and self.k < 1.0:
            raise ConfigError(f"unbiased rand-k with k = {self.k} was asked for; it needs k of at least 1")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> SeededSparse:
        """The compressed values of the drawn entries."""
        check_vector(x, segments)
        support = common_key(key) if self.shared else key
        counts = draw_counts(self.k, self.density, segments, support)
        address = support.fold("indices").bits64()
        kept = x.index_select(0, segment_subsets(address, segments.offsets(), counts, x.device))
        if self.unbiased:
            kept = magnified(kept, to_device(upscales(segments, counts), x.device))
        # As many segments as the vector has, even where nothing is kept of the only one.
        cut = kept_segments(segments, counts) if kept.numel() else Segments.of_sizes(counts.tolist())
        return SeededSparse(self.values.compress(kept, key.fold("values"), cut), cut, address, segments)

    def outline(self, segments: Segments) -> SeededSparse:
        """As many entries as can be kept."""
        cut = kept_segments(segments, most_counts(self.k, self.density, segments))
        return SeededSparse(self.values.outline(cut), cut, 0, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction in expectation, or unbiased with ``omega = (d/k)(1 + omega_values) - 1``; linear if shared."""
        share = kept_share(self.k, self.density, numel)
        values = self.values.traits(max(1, round(share * numel)))
        traits = sampled(share, values) if self.unbiased else sparsified(share, values)
        return replace(traits, linear=self.shared and values.linear)


def common_key(key: Key) -> Key:
    """The key without the rank: the same for all workers that differ in nothing else.

    A worker's key has ``"rank", r`` in its path, behind what all workers have in common (seed, exchange). The last
    such pair is left out; a key that has none is common already.

    Example:
        >>> common_key(Key(1, ("exchange", 5, "rank", 3, "values"))).path
        ('exchange', 5, 'values')
    """
    path = key.path
    for place in range(len(path) - 2, -1, -1):
        if path[place] == "rank" and not isinstance(path[place + 1], str):
            return Key(key.seed, path[:place] + path[place + 2 :])
    return key


def upscales(segments: Segments, counts: Tensor) -> Tensor:
    """For every kept entry its segment's size divided by its count: f32 ``[counts.sum()]``.

    Example:
        >>> upscales(Segments.of_sizes([4, 3]), torch.tensor([2, 1])).tolist()
        [2.0, 2.0, 3.0]
    """
    factors = segments.offsets().diff().to(torch.float32) / counts.clamp(min=1).to(torch.float32)
    return factors.repeat(int(counts[0])) if segments.count == 1 else factors.repeat_interleave(counts)
