"""One bit an entry and no scale: what majority votes count."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.config import register
from thinwire.kernels.quantize.signs import sign_bits
from thinwire.layout import Segments
from thinwire.payloads import Payload, Signs
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class PlainSign:
    """``C(x)_i = sign(x_i)``, 1 or -1 whatever the size of ``x``; ``sign(0)`` is +1, for either zero.

    The size of the vector is lost, so there is no bound of ``||C(x) - x||^2`` by ``||x||^2``: zeros become ones.

    Constant: none (``error`` is inf): neither unbiased nor a contraction. Under error feedback take ``Sign``.
    Bits: d + 32 a segment (the 32 say 1).
    Paper: Bernstein et al. 2018 (signSGD, Signum, majority vote).
    Use it when: the exchange votes, or the optimizer looks at signs only.

    Example:
        >>> PlainSign().compress(torch.tensor([0.5, -3.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [1.0, -1.0]
    """

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Signs:
        """A bit for each negative entry, and a scale of 1 for each segment."""
        check_vector(x, segments)
        return Signs(sign_bits(x), torch.ones(segments.count, dtype=torch.float32, device=x.device), segments)

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """No promise."""
        return Traits(unbiased=False, error=math.inf)
