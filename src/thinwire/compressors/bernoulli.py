"""Keep each entry on its own, around a centre: a message of random length."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.amount import check_share, kept_segments, sparse_outline
from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.gspar import segment_counts
from thinwire.compressors.identity import Identity
from thinwire.compressors.shortening import shortened
from thinwire.config import Share, check_types, register
from thinwire.kernels.reduce.truncated_sums import tail_sums
from thinwire.kernels.sample.bernoulli import draw_entries
from thinwire.kernels.sample.probabilities import MANY, density_bounds
from thinwire.layout import Segments
from thinwire.payloads import Constant, Payload, Sparse, Sum
from thinwire.random import Key

_ALTERNATIONS = 8
"""Rounds of optimal probabilities and optimal centre; what further ones gain is small."""


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Bernoulli:
    """``C(x)_i = mu + (x_i - mu) / p_i`` with probability ``p_i``, else ``mu``: the encoder of variable size.

    The probabilities add up to ``density * d``. ``"uniform"`` ones are all equal: uniform sampling (UniSp).
    ``"optimal"`` ones have the least variance, ``p_i = min(1, c |x_i - mu|)``, ``c`` by water-filling. The centre
    ``mu`` of each segment is 0, its mean (optimal for equal probabilities), or ``"optimal"``: in turns the
    probabilities for the centre and the centre for the probabilities, the mean weighted by ``1 / p_i - 1``, eight
    times from the mean on; the variance falls in every turn, slowly, and the centre drifts towards the median. An
    entry equal to the centre holds the centre there.

    Constant: ``omega = 1 / density - 1``, an equality for equal probabilities and ``x`` orthogonal to the constant
        vector (for any x where the centre is 0). Exactly, ``sum (1 / p_i - 1) (x_i - mu)^2``.
    Bits: for each kept entry index + 32 (or ``values``), and 32 for each segment's centre unless it is 0. The papers
        have a flag for each entry (``d``) or an index of ``ceil(log2 d)`` bits for each that is kept; a message takes
        the shorter of these and of gaps between the indices, which come near the entropy of the support. Their shared
        seed is :class:`thinwire.compressors.fixed_size.FixedSize`.
    Paper: Konecny and Richtarik 2018, Randomized distributed mean estimation: accuracy vs. communication, sections 3
        and 6.
    Use it when: the entries lie around a centre that is not 0; otherwise ``GSpar`` sends the same in fewer bits.

    Args:
        density: expected kept share of each segment, above 0, at most 1.
        probabilities: how the share is spread over the entries.
        center: the node centre of each segment.
        values: what becomes of the kept values, segment by segment.

    Raises:
        ConfigError: a density out of its range, or a name that is not known.

    Example:
        >>> x = torch.tensor([2.0, 2.0, 2.0])
        >>> Bernoulli(density=0.1, center="mean").compress(x, Key(0), Segments.whole(3)).to_dense().tolist()
        [2.0, 2.0, 2.0]
    """

    density: Share
    probabilities: Literal["uniform", "optimal"] = "uniform"
    center: Literal["zero", "mean", "optimal"] = "zero"
    values: Compressor = Identity()

    def __post_init__(self) -> None:
        check_types(self)
        check_share("density", self.density)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """The centres, unless they are 0, and what the kept entries add to them."""
        check_vector(x, segments)
        return shortened(lambda x: self._compress(x, key, segments), x)

    def _compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        offsets = segments.offsets()
        centres = x.new_zeros(segments.count) if self.center == "zero" else segment_means(x, segments)
        if self.probabilities == "uniform":
            bounds = torch.full_like(centres, torch.inf)
            bases = torch.full_like(centres, self.density)
        elif self.center == "optimal":
            centres, bounds = optimal_centres(x, offsets, centres, self.density)
            bases = torch.zeros_like(centres)
        else:
            bounds = density_bounds(x, offsets, centres, self.density, MANY)
            bases = torch.zeros_like(centres)
        indices, sent = draw_entries(x, offsets, centres, bounds, bases, key.fold("indices").bits64())
        cut = kept_segments(segments, segment_counts(indices, segments))
        kept = Sparse(x.numel(), indices, self.values.compress(sent, key.fold("values"), cut))
        return kept if self.center == "zero" else Sum((Constant(centres, segments), kept))

    def outline(self, segments: Segments) -> Payload:
        """Every entry kept."""
        kept = sparse_outline(segments.offsets().diff(), self.values, segments)
        if self.center == "zero":
            return kept
        return Sum((Constant(torch.empty(segments.count, dtype=torch.float32, device="meta"), segments), kept))

    def traits(self, numel: int) -> Traits:
        """Unbiased if the values are; of one entry the mean is all there is to know."""
        if numel <= 1 and self.center != "zero":
            return Traits(unbiased=True, error=0.0)
        return sampled(self.density, self.values.traits(max(numel, 1)))


def sampled(share: float, values: Traits) -> Traits:
    """Traits of a quantizer on entries that are divided by the probabilities with which they are kept.

    The kept vector ``y`` has ``E||y||^2 <= ||x||^2 / share`` and ``E||y - x||^2 <= (1 / share - 1) ||x||^2``. An
    unbiased quantizer adds ``omega E||y||^2``; of a biased one only the norms of both errors are known to add up.

    Example:
        >>> sampled(0.25, Traits(unbiased=True, error=1.0)).error
        7.0
    """
    omega = 1.0 / share - 1.0
    added = values.error / share
    error = omega + added if values.unbiased else float((omega**0.5 + added**0.5) ** 2)
    return Traits(unbiased=values.unbiased, error=error)


def segment_means(x: Tensor, segments: Segments) -> Tensor:
    """The mean of each segment, rounded to f32: ``[segments.count]``; 0 for an empty one.

    Example:
        >>> segment_means(torch.tensor([1.0, 3.0, 5.0]), Segments.of_sizes([2, 0, 1])).tolist()
        [2.0, 0.0, 5.0]
    """
    none = x.new_zeros(segments.count)
    sums = tail_sums(x, segments.offsets(), none, none, "entries")
    sizes = to_device(segments.offsets(), x.device).diff().clamp(min=1)
    return ((sums[:, 1] - sums[:, 2]) / sizes).to(torch.float32)


def optimal_centres(
    x: Tensor, offsets: Tensor, centres: Tensor, density: float, alternations: int = _ALTERNATIONS
) -> tuple[Tensor, Tensor]:
    """Better centres than the given ones, and the bounds of the optimal probabilities for them.

    Example:
        >>> x = torch.tensor([0.0, 0.1, -0.1, 0.2, 9.0])
        >>> optimal_centres(x, torch.tensor([0, 5]), x.mean()[None], 0.5)[0].item() < x.mean().item()
        True
    """
    bounds = density_bounds(x, offsets, centres, density, MANY)
    for _ in range(alternations):
        sums = tail_sums(x, offsets, centres, bounds, "weights")
        step = ((sums[:, 1] - sums[:, 2]) / sums[:, 0]).nan_to_num(0.0, 0.0, 0.0)
        moved = (centres.to(torch.float64) + step).to(torch.float32)
        if torch.equal(moved, centres):
            break
        centres = moved
        bounds = density_bounds(x, offsets, centres, density, MANY)
    return centres, bounds
