"""One bit an entry and the means of both sides."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.config import register
from thinwire.kernels.bitpack.bits import num_packed_bytes
from thinwire.kernels.quantize.signs import sign_bits
from thinwire.kernels.reduce.extents import segment_sides
from thinwire.layout import Segments
from thinwire.payloads import Grid, Payload
from thinwire.random import Key

_LARGEST = torch.finfo(torch.float32).max


@register
@dataclass(frozen=True, slots=True)
class OneBit:
    """``C(x)_i = mean of {x_j >= 0}`` where ``x_i >= 0``, else ``mean of {x_j < 0}``: 1-bit SGD.

    The two means are the best two numbers for that split, so that the error never exceeds that of ``Sign``. The paper
    has two means for each column of a weight matrix; what is one column here is one segment, so choose a granularity
    of chunks of the column's length. Zeros count as not negative. Without error feedback it is biased and useless, as
    the paper found.

    Constant: gamma >= 1/d, attained by one entry among zeros (1 - 2/pi = .363 of the square is left for Gaussian x).
    Bits: d + 64 a segment.
    Paper: Seide, Fu, Droppo, Li and Yu 2014 (1-bit SGD).
    Use it when: a bit an entry is all there is, and positive and negative entries differ in size or in number.

    Example:
        >>> OneBit().compress(torch.tensor([1.0, 3.0, -4.0]), Key(0), Segments.whole(3)).to_dense().tolist()
        [2.0, 2.0, -4.0]
    """

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Grid:
        """A bit for each entry that is not negative; the two means as a grid of two points."""
        check_vector(x, segments)
        above, below, num_below = segment_sides(x, segments.offsets())
        num_above = to_device(segments.offsets(), x.device).diff() - num_below
        low = (below / num_below.clamp(min=1)).to(torch.float32)
        high = above / num_above.clamp(min=1)
        # A sum that overflowed would make the other point NaN.
        step = (high - low).clamp_(max=_LARGEST).to(torch.float32)
        return Grid(_inverted(sign_bits(x), segments.numel), 2, low, step, segments)

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction with ``gamma >= 1/d``."""
        return Traits(unbiased=False, error=1.0 - 1.0 / max(numel, 1))


def _inverted(bits: Tensor, count: int) -> Tensor:
    """The bits of the entries that are not negative; ``bits`` is used up."""
    bits.bitwise_not_()
    if count % 8:
        bits[num_packed_bytes(count, 1) - 1] &= (1 << count % 8) - 1
    return bits
