"""A few bins around the mean, each value replaced by its bin's mean."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.quantize.bins import fill_bins
from thinwire.kernels.reduce.moments import segment_moments
from thinwire.kernels.reduce.truncated_sums import tail_sums
from thinwire.layout import Segments
from thinwire.payloads import Codebook, Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class Bins:
    """``C(x)_i`` is the mean of bin ``clamp(round((x_i - m) / h + B/2), 0, B - 1)``, ``B = 2^bits``, ``h = 6 std / B``.

    m and std are mean and standard deviation (over d - 1) of all values of the message, and the table of bin means is
    that of the message too, whatever its segments: a table for each chunk of 64 values would double their bits. So a
    segment's result does depend on the others, unlike with other compressors; to keep them apart compress them apart.

    Constant: error .179 on Gaussian values at 2 bits (Lloyd-Max has .117: the bins are not even, one is hardly used).
        For every x of d values ``gamma >= e^2 / d``, where ``e std`` is the edge towards the mean of the bin that holds
        ``m + sqrt(1 - 1/d) std``: .75 at 2 bits, .375 at 3; 0 for two values at 2 bits. (The value farthest from the
        mean is at least so far away, and all of its bin lie at least ``e std`` on its side of the mean.)
    Bits: ``bits d + 32 B + 32`` a message.
    Paper: Sarfi, Thérien, Lidin and Belilovsky, "Communication efficient LLM pre-training with SparseLoCo", 2025, after
        the published code; a tensor there is a message here.
    Use it when: the values that a top-k kept are to be sent in 2 bits: SparseLoCo is ``TopK(k=64, values=Bins(2))`` in
        chunks of 4096: 2 bits a value, and 7.5 for its index (the published code takes 12).

    Args:
        bits: of a code, 2 to 8.

    Raises:
        ConfigError: bits out of range.

    Example:
        >>> x = torch.tensor([-3.0, -1.0, 1.0, 3.0])
        >>> Bins(2).compress(x, Key(0), Segments.whole(4)).to_dense().tolist()
        [-3.0, 0.0, 0.0, 3.0]
    """

    bits: int = 2

    def __post_init__(self) -> None:
        check_types(self)
        if self.bits not in range(2, 9):
            raise ConfigError(f"{self.bits} bits were asked for; bins take 2 to 8")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Codebook:
        """A code for each value and the table of the means."""
        check_vector(x, segments)
        mean, spread = _mean_and_deviation(x)
        step = 6.0 * spread / (1 << self.bits)
        # All values alike: any step will do.
        codes, counts, sums = fill_bins(x, mean, step if step > 0.0 else 1.0, self.bits)
        table = _without_gaps(sums / counts, counts > 0)
        whole = Segments.whole(x.numel())
        scales = torch.ones(whole.count, dtype=torch.float32, device=x.device)
        return Codebook(codes, table.to(torch.float32), scales, whole)

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction; the constant is that of a message of one segment."""
        return Traits(unbiased=False, error=1.0 - _edge(self.bits, numel) ** 2 / numel if numel > 1 else 0.0)


@functools.cache
def _edge(bits: int, numel: int) -> float:
    """Where the bin begins that holds the least possible distance of the farthest value, in standard deviations."""
    step = 6.0 / 2.0**bits
    return max(0.0, (math.floor(math.sqrt(1.0 - 1.0 / numel) / step - 0.5) + 0.5) * step)


def _mean_and_deviation(x: Tensor) -> tuple[float, float]:
    """Of all values, in f64; 0 where there are too few."""
    numel = x.numel()
    if numel < 2:
        return (float(x[0]) if numel else 0.0), 0.0
    offsets = Segments.whole(numel).offsets()
    mean = float(segment_moments(x, offsets).sums) / numel
    # About what is nearly the mean: squares about 0 would lose the deviation of values far from there.
    centre = torch.full((1,), mean, dtype=torch.float32, device=x.device)
    squares = float(tail_sums(x, offsets, centre, torch.full_like(centre, math.inf))[0, 2])
    return mean, math.sqrt(max(0.0, squares - numel * (mean - float(centre)) ** 2) / (numel - 1))


def _without_gaps(table: Tensor, is_used: Tensor) -> Tensor:
    """The table with the number below (or else the one above) in each empty bin, so that it ascends."""
    used: Tensor = (
        torch.arange(table.numel(), dtype=torch.int64, device=table.device).where(is_used, -1).cummax(0).values
    )
    if not bool(is_used.any()):
        return torch.zeros_like(table)
    first = is_used.to(torch.int64).argmax()
    return table[torch.where(used < 0, first, used)]
