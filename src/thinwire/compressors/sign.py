"""One bit an entry and the mean magnitude."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Traits, check_vector
from thinwire.config import register
from thinwire.kernels.bitpack.bits import num_packed_bytes
from thinwire.kernels.quantize.signs import accumulate_signs, mean_signs
from thinwire.layout import Segments
from thinwire.payloads import Signs
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class Sign:
    """``C(x) = (||x||_1 / d) sign(x)``, the operator of EF-signSGD.

    One bit cannot say zero: ``sign(0)`` is +1 here, for which the constant holds as an equality.

    Constant: gamma = ``||x||_1^2 / (d ||x||_2^2) >= 1/d``: 2/pi for Gaussian x, 1/d for one entry among zeros.
    Bits: d + 32 a segment.
    Paper: Karimireddy, Rebjock, Stich and Jaggi 2019 (EF-signSGD).
    Use it when: a bit an entry can be spent, under error feedback; or for the values that ``TopK`` keeps. Make
        each tensor a segment: one magnitude for all is too large for some and too small for others.

    Example:
        >>> import torch
        >>> Sign().compress(torch.tensor([1.0, -3.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [2.0, -2.0]
    """

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Signs:
        """A bit for each negative entry, and the mean magnitude of each segment."""
        check_vector(x, segments)
        return Signs(*mean_signs(x, segments.offsets()), segments)

    def compress_residual(
        self, x: Tensor, residual: Tensor, decay: float, out: Tensor, key: Key, segments: Segments
    ) -> Signs:
        """Compress ``u = decay * residual + x``, leave ``u`` minus what is decoded in ``out``, in one pass."""
        check_vector(x, segments)
        return Signs(*accumulate_signs(x, residual, decay, out, segments.offsets()), segments)

    def outline(self, segments: Segments) -> Signs:
        """A bit an entry and an f32 a segment."""
        bits = torch.empty(num_packed_bytes(segments.numel, 1), dtype=torch.uint8, device="meta")
        return Signs(bits, torch.empty(segments.count, dtype=torch.float32, device="meta"), segments)

    def traits(self, numel: int) -> Traits:
        """A contraction with ``gamma >= 1/d``."""
        return Traits(unbiased=False, error=1.0 - 1.0 / max(numel, 1))
