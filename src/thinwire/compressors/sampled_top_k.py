"""Keep about the largest entries, found by a threshold from a sample."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import CPU, to_device
from thinwire.compressors.amount import check_share, draw_counts, kept_segments, most_counts, sparse_outline
from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.gspar import segment_counts
from thinwire.compressors.identity import Identity
from thinwire.compressors.threshold import LEAST_SAMPLE, sample_quantiles
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import segment_of_each
from thinwire.kernels.random.philox import uniform
from thinwire.kernels.reduce.truncated_sums import tail_sums
from thinwire.kernels.sample.bernoulli import entries_above
from thinwire.kernels.select.top_k import top_k_entries
from thinwire.layout import Segments
from thinwire.payloads import Sparse
from thinwire.random import Key

_LOWER, _UPPER = 0.8, 1.3


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTopK:
    """``C(x) = V(x_S)`` with S about the k largest entries: the selection of Deep Gradient Compression.

    A threshold t is the quantile of a strided sample. While fewer than 0.8 k entries reach it t is multiplied by 0.8.
    If more than 1.3 k do, the k largest of them are kept (``resample``), or t is multiplied by 1.3; ``adaptations``
    times at most. Of what remains the first k by position are kept. An entry that is 0 is never sent. Unlike
    the paper, at least 4096 entries of a segment are sampled.

    As published it is no contraction with a constant: where between k and 1.3 k entries reach t, those behind are cut
    off whatever their size, and a spike at the end of a vector is left out at every step at which that happens.

    Constant: ``1 - gamma <= 1``, and no less for every x (see above); near that of top-k on gradients.
    Bits: for each kept entry, at most k, index + 32 (or ``values``).
    Paper: Lin, Han, Mao, Wang, Dally 2018, Deep gradient compression, section 5, and the authors' code (the
        adaptation).
    Use it when: results are to be compared with DGC's; ``TopK`` is exact at about the same cost here.

    Args:
        density: kept share of each segment, in (0, 1]: ``k = density * d``, at least 1.
        sample: share of the entries that are sampled, in (0, 1].
        adaptations: how often the threshold may be changed.
        resample: select again among too many, where False raises the threshold.
        values: what becomes of the kept values, segment by segment.

    Raises:
        ConfigError: a number out of its range.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 2.0, 0.5])
        >>> SampledTopK(density=0.5).compress(x, Key(0), Segments.whole(4)).to_dense().tolist()
        [0.0, -3.0, 2.0, 0.0]
    """

    density: Share
    sample: Share = 0.01
    adaptations: int = 10
    resample: bool = True
    values: Compressor = Identity()

    def __post_init__(self) -> None:
        check_types(self)
        check_share("density", self.density)
        check_share("sample", self.sample)
        if self.adaptations < 0:
            raise ConfigError(f"{self.adaptations} adaptations were asked for; 0 or more are possible")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sparse:
        """The selected entries, in order."""
        check_vector(x, segments)
        targets = draw_counts(None, self.density, segments, key)
        bounds = self._thresholds(x, key, segments, targets)
        bounds = self._adapt(x, segments, bounds, to_device(targets, x.device))
        indices, kept = entries_above(x, segments.offsets(), bounds)
        counts = segment_counts(indices, segments).cpu()
        if bool((counts > targets).any()):
            indices, kept, counts = self._cut_back(indices, kept, counts, targets)
        values = self.values.compress(kept, key.fold("values"), kept_segments(segments, counts))
        return Sparse(x.numel(), indices, values)

    def _thresholds(self, x: Tensor, key: Key, segments: Segments, targets: Tensor) -> Tensor:
        offsets = segments.offsets()
        sizes = offsets.diff()
        wanted = torch.minimum(
            sizes, (sizes.to(torch.float32) * self.sample).ceil().to(torch.int64).clamp(min=LEAST_SAMPLE)
        )
        if torch.equal(wanted, sizes):
            return sample_quantiles(x, sizes, targets)
        strides = sizes // wanted.clamp(min=1)
        # From a place that varies, so that no entry is left out at every step.
        begin = (uniform(key.fold("sample").bits64(), 0, segments.count) * strides).to(torch.int64)
        counts = torch.where(sizes > 0, (sizes - begin - 1) // strides.clamp(min=1) + 1, sizes)
        owner = segment_of_each(counts)
        rank = torch.arange(owner.numel(), dtype=torch.int64, device=CPU) - (counts.cumsum(0) - counts)[owner]
        places = offsets[owner] + begin[owner] + rank * strides[owner]
        large = torch.minimum((counts.to(torch.float32) * self.density).ceil().to(torch.int64), counts)
        return sample_quantiles(x.index_select(0, to_device(places, x.device)), counts, large)

    def _adapt(self, x: Tensor, segments: Segments, bounds: Tensor, targets: Tensor) -> Tensor:
        offsets = segments.offsets()
        sizes = to_device(offsets, x.device).diff()
        centres = torch.zeros_like(bounds)
        for _ in range(self.adaptations):
            counts = sizes - tail_sums(x, offsets, centres, bounds)[:, 0].to(torch.int64)
            wanted = targets.to(torch.float32)
            few, many = counts < _LOWER * wanted, counts > _UPPER * wanted
            factors = torch.ones_like(bounds)
            factors[few] = _LOWER
            if not self.resample:
                factors[many] = _UPPER
            changed = torch.where(factors < 1, (bounds * factors).clamp_(min=2.0**-149), bounds * factors)
            if torch.equal(changed, bounds):
                break
            bounds = changed
        return bounds

    def _cut_back(
        self, indices: Tensor, kept: Tensor, counts: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most the wanted number of each segment: the largest of far too many, else the first."""
        if self.resample:
            reduced = torch.where(counts > _UPPER * targets.to(torch.float32), targets, counts)
            offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            chosen, kept = top_k_entries(kept, offsets, reduced)
            indices, counts = indices[chosen], reduced
        first = counts.cumsum(0) - counts
        rank = torch.arange(indices.numel(), dtype=torch.int64, device=CPU) - first.repeat_interleave(counts)
        left = to_device(rank < targets.repeat_interleave(counts), indices.device)
        return indices[left], kept[left], torch.minimum(counts, targets)

    def outline(self, segments: Segments) -> Sparse:
        """As many entries as can be kept."""
        return sparse_outline(most_counts(None, self.density, segments), self.values, segments)

    def traits(self, numel: int) -> Traits:
        """No contraction for every x; what is sent is right or left out."""
        return Traits(unbiased=False, error=max(1.0, self.values.traits(max(numel, 1)).error))
