"""Keep what is larger than a threshold."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import CPU, to_device
from thinwire.compressors.amount import check_either, check_share, kept_segments, sparse_outline
from thinwire.compressors.base import Compressor, Traits, check_vector, sparsified
from thinwire.compressors.gspar import segment_counts
from thinwire.compressors.identity import Identity
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import segment_of_each
from thinwire.kernels.sample.bernoulli import entries_above
from thinwire.kernels.sample.subset import segment_subsets
from thinwire.kernels.select.top_k import top_k_entries
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key

LEAST_SAMPLE = 4096
"""Shorter segments are sampled in full: fewer entries than these estimate a high quantile badly and save no time."""

_LEAST = 2.0**-149


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """``C(x) = V(x_S)`` with S the entries of magnitude at least t: gradient dropping.

    With ``density`` t is a quantile of each segment's magnitudes, estimated on a random sample; so the number of kept
    entries is random too, near ``density * d``, and all entries equal to t are kept. With ``threshold`` t is given. An
    entry that is 0 is never sent. Unlike the paper, which samples 0.1 % of all entries, at least
    4096 entries of a segment are sampled.

    Constant: ``gamma = k_s / d`` with ``k_s = density * s`` the sample's own entries of at least t, of s: what is
        guaranteed for every x and every sample; near ``density`` on average. None for a given ``threshold``.
    Bits: for each kept entry index + 32 (or ``values``).
    Paper: Aji and Heafield 2017, Sparse communication for distributed gradient descent (drop ratio 99 %, sample 0.1 %).
    Use it when: the number of kept entries need not be exact; ``TopK`` is exact at about the same cost here.

    Args:
        density: share of entries to keep, in (0, 1]; one minus the paper's drop ratio.
        threshold: the least magnitude that is sent, above 0.
        sample: share of the entries that the quantile is estimated on, in (0, 1].
        values: what becomes of the kept values, segment by segment.

    Raises:
        ConfigError: neither or both of ``density`` and ``threshold``; a number out of its range.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 2.0])
        >>> Threshold(threshold=2.0).compress(x, Key(0), Segments.whole(3)).to_dense().tolist()
        [0.0, -3.0, 2.0]
    """

    density: Share | None = None
    threshold: float | None = None
    sample: Share = 0.001
    values: Compressor = Identity()

    def __post_init__(self) -> None:
        check_types(self)
        check_either("density", self.density, "threshold", self.threshold)
        check_share("density", self.density)
        if self.threshold is not None and not 0.0 < self.threshold < math.inf:
            raise ConfigError(f"a threshold of {self.threshold} was given; it must be above 0 and finite")
        check_share("sample", self.sample)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        """The large entries, in order."""
        check_vector(x, segments)
        if self.threshold is not None:
            bounds = x.new_full((segments.count,), max(self.threshold, _LEAST))
        else:
            bounds = self._quantiles(x, key, segments)
        indices, kept = entries_above(x, segments.offsets(), bounds)
        cut = kept_segments(segments, segment_counts(indices, segments))
        return Sparse(x.numel(), indices, self.values.compress(kept, key.fold("values"), cut))

    def _quantiles(self, x: Tensor, key: Key, segments: Segments) -> Tensor:
        offsets = segments.offsets()
        sizes = offsets.diff()
        counts = torch.minimum(
            sizes, (sizes.to(torch.float32) * self.sample).ceil().to(torch.int64).clamp(min=LEAST_SAMPLE)
        )
        if torch.equal(counts, sizes):
            return sample_quantiles(x, sizes, self._wanted(sizes))
        places = segment_subsets(key.fold("sample").bits64(), offsets, counts, x.device)
        return sample_quantiles(x.index_select(0, places), counts, self._wanted(counts))

    def _wanted(self, counts: Tensor) -> Tensor:
        wanted = (counts.to(torch.float32) * (self.density or 1.0) + 0.5).floor().to(torch.int64).clamp(min=1)
        return torch.minimum(wanted, counts)

    def outline(self, segments: Segments) -> Sparse:
        """Every entry kept."""
        return sparse_outline(segments.offsets().diff(), self.values, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction if there is a density: the sample's own large entries are among the kept."""
        if self.density is None:
            return Traits(unbiased=False, error=max(1.0, self.values.traits(max(numel, 1)).error))
        sampled = min(numel, max(math.ceil(numel * self.sample), LEAST_SAMPLE))
        share = int(self._wanted(torch.tensor([sampled], dtype=torch.int64, device=CPU))) / max(numel, 1)
        # Ties are all kept, so any number of entries may be.
        return sparsified(min(1.0, share), self.values.traits(max(numel, 1)))


def sample_quantiles(sampled: Tensor, sizes: Tensor, wanted: Tensor) -> Tensor:
    """The ``wanted[s]``-th largest magnitude of each segment of ``sizes[s]`` entries, but above 0; inf of an empty one.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 2.0])
        >>> sample_quantiles(x, torch.tensor([3, 0]), torch.tensor([2, 0])).tolist()
        [2.0, inf]
    """
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    magnitudes = top_k_entries(sampled, offsets, wanted)[1].abs()
    least = torch.full((sizes.numel(),), torch.inf, dtype=torch.float32, device=sampled.device)
    owner = to_device(segment_of_each(wanted), sampled.device)
    return least.scatter_reduce_(0, owner, magnitudes, "amin").clamp_(min=_LEAST)
