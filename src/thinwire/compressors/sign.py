"""One bit an entry and the mean magnitude."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Traits
from thinwire.config import register
from thinwire.kernels.signs import sign_bits
from thinwire.kernels.sums import segment_sums
from thinwire.layout import Segments
from thinwire.payloads import Signs
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class Sign:
    """``C(x) = (||x||_1 / d) sign(x)``, the operator of EF-signSGD (Karimireddy et al. 2019), d + 32 bits.

    Contraction with ``gamma = ||x||_1^2 / (d ||x||_2^2) >= 1/d`` (2/pi for Gaussian x). One bit cannot say
    zero: ``sign(0)`` is +1 here, for which the constant holds as an equality.

    Example:
        >>> import torch
        >>> Sign().compress(torch.tensor([1.0, -3.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [2.0, -2.0]
    """

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Signs:
        """A bit for each negative entry, and the mean magnitude of each segment."""
        return Signs(sign_bits(x), segment_means(x, segments), segments)

    def traits(self, numel: int) -> Traits:
        """A contraction with ``gamma >= 1/d``."""
        return Traits(unbiased=False, error=1.0 - 1.0 / max(numel, 1))


def segment_means(x: Tensor, segments: Segments) -> Tensor:
    """Mean magnitude of each segment, summed in f64 and rounded to f32 once; 0 for an empty segment."""
    return segment_sums(x, segments.offsets(), 1).div_(_divisors(segments)).to(torch.float32)


@functools.lru_cache(maxsize=64)
def _divisors(segments: Segments) -> Tensor:
    """The sizes of the segments, at least 1, in f64: shared, do not write to it."""
    return segments.offsets().diff().clamp_(min=1).to(torch.float64)
