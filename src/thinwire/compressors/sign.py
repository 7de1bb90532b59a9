"""One bit an entry and the mean magnitude."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Traits
from thinwire.config import register
from thinwire.kernels.bits import pack
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
        return Signs(pack((x < 0).to(torch.uint8), 1), segment_means(x.abs(), segments), segments)

    def traits(self, numel: int) -> Traits:
        """A contraction with ``gamma >= 1/d``."""
        return Traits(unbiased=False, error=1.0 - 1.0 / max(numel, 1))


def segment_means(x: Tensor, segments: Segments) -> Tensor:
    """Mean of each segment, summed in f64 and rounded to f32 once; 0 for an empty segment."""
    if segments.count == 1:
        return x.sum(dtype=torch.float64).div_(max(segments.numel, 1)).to(torch.float32).reshape(1)
    sizes = segments.offsets().diff()
    sums = torch.segment_reduce(x.to(torch.float64), "sum", lengths=sizes, unsafe=True)
    return (sums / sizes.clamp_min(1)).to(torch.float32)
