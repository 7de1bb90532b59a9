"""Keep entries with probabilities that follow their magnitudes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.amount import check_either, check_share, kept_segments, sparse_outline
from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.identity import Identity
from thinwire.compressors.shortening import shortened
from thinwire.compressors.sign import Sign
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.quantize.signs import sign_bits
from thinwire.kernels.sample.bernoulli import split_draws
from thinwire.kernels.sample.probabilities import density_bounds, variance_bounds
from thinwire.layout import Segments
from thinwire.payloads import Signs, Sparse, Sum
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class GSpar:
    """``C(x)_i = Z_i x_i / p_i`` with ``Z_i ~ Bernoulli(p_i)``, ``p_i = min(1, lambda |x_i|)``.

    No other independent probabilities give the same variance with fewer expected entries. All entries with ``p_i < 1``
    are sent as ``sign(x_i) / lambda``: a sign each and one number a segment. Those with ``p_i = 1`` are sent exactly,
    or by ``values``. ``lambda`` is either what meets a given variance exactly (the paper's closed form, found without
    a sort) or what comes near a given density from below (the paper's greedy rounds). Two of these leave less than 1 %
    of a density of .3 or less unused, on Cauchy data too; there they leave 3 % of .5 and 14 % of .9, and ten rounds
    less than 1 % of any. An entry that is 0 is never sent.

    With QSGD's ``lambda = 1 / ||x||_2`` this is QSGD with one level: of the same family, at a density that cannot be
    chosen.

    Constant: ``omega = variance`` exactly, for every x. With ``density`` ``omega <= 1 / density - 1``, that of uniform
        sampling, attained by entries of equal magnitude. For a density above 3/4 the first greedy round can do worse
        than uniform sampling; the bound that holds there for any number of rounds is
        ``1 / (8 density (2 density - 1))``. ``values`` add their own constant.
    Bits: for each segment 32; index + 32 (or ``values``) for an entry with ``p_i = 1``, index + 1 for each other.
    Paper: Wangni, Wang, Liu, Zhang 2018, Gradient sparsification for communication-efficient distributed optimization.
    Use it when: messages must be unbiased, without memory, and magnitudes differ widely. At a fixed number of bits
        below one an entry EDEN has less variance on light tails, top-k with memory on heavy ones.

    Args:
        density: expected kept share of each segment, above 0, at most 1 (which keeps all that is not 0).
        variance: omega, above 0.
        rounds: greedy rounds for ``density``, 0 or more; each is a pass over the vector. Without effect on
            ``variance``.
        values: what becomes of the entries with ``p_i = 1``, segment by segment.

    Raises:
        ConfigError: neither or both of ``density`` and ``variance``; a number out of its range.

    Example:
        >>> payload = GSpar(variance=0.5).compress(torch.tensor([8.0, 1.0]), Key(0), Segments.whole(2))
        >>> payload.to_dense().tolist()[0] > 0
        True
    """

    density: Share | None = None
    variance: float | None = None
    rounds: int = 2
    values: Compressor = Identity()

    def __post_init__(self) -> None:
        check_types(self)
        check_either("density", self.density, "variance", self.variance)
        check_share("density", self.density)
        if self.variance is not None and not (0.0 < self.variance < math.inf):
            raise ConfigError(f"variance {self.variance} was given; it must be above 0 and finite")
        if self.rounds < 0:
            raise ConfigError(f"{self.rounds} rounds were asked for; 0 or more are possible")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sum:
        """The certain entries, and the signs of the drawn ones: no entry is in both."""
        check_vector(x, segments)
        return shortened(lambda x: self._compress(x, key, segments), x)

    def _compress(self, x: Tensor, key: Key, segments: Segments) -> Sum:
        offsets = segments.offsets()
        if self.density is not None:
            bounds = density_bounds(x, offsets, x.new_zeros(segments.count), self.density, self.rounds)
        else:
            bounds = variance_bounds(x, offsets, self.variance or 0.0)
        certain_at, certain, drawn_at, drawn = split_draws(x, offsets, bounds, key.fold("indices").bits64())
        certain_cut = _cut(certain_at, segments)
        drawn_cut = _cut(drawn_at, segments)
        values = self.values.compress(certain, key.fold("values"), certain_cut)
        # One segment of which nothing is drawn is no segment: it has no scale either.
        signs = Signs(sign_bits(drawn), bounds[: drawn_cut.count], drawn_cut)
        return Sum((Sparse(x.numel(), certain_at, values), Sparse(x.numel(), drawn_at, signs)))

    def outline(self, segments: Segments) -> Sum:
        """Every entry certain, and every entry drawn."""
        counts = segments.offsets().diff()
        drawn = sparse_outline(counts, Sign(), segments)
        return Sum((sparse_outline(counts, self.values, segments), drawn))

    def traits(self, numel: int) -> Traits:
        """Unbiased if the values are; the errors of the two parts add up."""
        values = self.values.traits(max(numel, 1))
        error = self.variance if self.variance is not None else density_error(self.density or 1.0)
        return Traits(unbiased=values.unbiased, error=error + values.error)


def density_error(density: float) -> float:
    """The least omega that holds for every x and any number of greedy rounds.

    With ``c = 1 / density`` and magnitudes of mean 1 the first round's variance is ``sum max(c a - a^2, 0)``. A
    multiple ``E`` of ``a^2`` plus a line through ``a = 1`` lies above each term: with ``E = c - 1`` while
    ``c >= 4/3``, else with ``E = c^2 / (8 (2 - c))``. Later rounds only add to the probabilities.

    Example:
        >>> density_error(0.1), density_error(1.0)
        (9.0, 0.0)
    """
    if density >= 1.0:
        return 0.0
    c = 1.0 / density
    return c - 1.0 if c >= 4.0 / 3.0 else c * c / (8.0 * (2.0 - c))


def _cut(indices: Tensor, segments: Segments) -> Segments:
    """The segments of the entries at ``indices``, which follow those of the vector."""
    return kept_segments(segments, segment_counts(indices, segments))


def segment_counts(indices: Tensor, segments: Segments) -> Tensor:
    """How many of the ascending ``indices`` lie in each segment: int64 ``[segments.count]``.

    Example:
        >>> segment_counts(torch.tensor([0, 4]), Segments.of_sizes([3, 0, 2])).tolist()
        [1, 0, 1]
    """
    return torch.searchsorted(indices, to_device(segments.offsets(), indices.device)).diff()
