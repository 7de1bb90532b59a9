"""Three values an entry."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.quantize.dither import quantize
from thinwire.kernels.quantize.grid import round_to_levels
from thinwire.kernels.reduce.moments import segment_moments
from thinwire.kernels.reduce.segment_sums import segment_max
from thinwire.layout import Segments
from thinwire.payloads import Levels, Payload
from thinwire.payloads.base import per_entry
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class TernGrad:
    """``C(x)_i = s sign(x_i) b_i``, ``b_i = 1`` with probability ``|x_i| / s``, ``s = max |x|`` clipped at ``c sigma``.

    ``sigma`` is the standard deviation of the segment's entries. Clipping bounds the variance whatever the length, and
    makes the operator biased: ``E C(x)`` is the clipped vector. A constant vector has no deviation, so all of it is
    clipped, as in the published code. The paper is layer-wise (a granularity per tensor) and lets all workers use the
    largest of their scales, so that messages can be added: sharing it is the exchange's business (``SharedScale``).

    Constant: without clipping ``omega = (sqrt(d) - 1) / 2``, attained by one entry of ``sqrt(d) + 1`` among ones. With
        clipping ``E||C(x) - x||^2 <= (1 + c^2 / 8) ||x||^2`` for c up to 4 and ``(c - 1) ||x||^2`` above (not a
        contraction).
    Bits: 2 d + 32 a segment packed; ``coding="entropy"`` takes about the entropy, at most 1.585 d.
    Paper: Wen et al. 2017 (TernGrad); c = 2.5 there.
    Use it when: no memory is wanted and gradients are close to Gaussian; on heavy tails the largest entry drowns the
        rest.

    Args:
        clip: c, above 0; None does not clip.
        coding: how the wire writes the levels: ``"packed"``, ``"elias"`` or ``"entropy"``.

    Raises:
        ConfigError: a clip that is not above 0, or an unknown coding.

    Example:
        >>> TernGrad(clip=None).compress(torch.tensor([0.0, -3.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [0.0, -3.0]
    """

    clip: float | None = 2.5
    coding: Literal["packed", "elias", "entropy"] = "packed"

    def __post_init__(self) -> None:
        check_types(self)
        if self.clip is not None and not 0.0 < self.clip < math.inf:
            raise ConfigError(
                f"clipping at {self.clip} deviations was asked for; TernGrad takes a number above 0, or None"
            )

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Levels:
        """One of three levels an entry, and the scale of each segment."""
        check_vector(x, segments)
        offsets = segments.offsets()
        if self.clip is None:
            codes, scales = quantize(x, offsets, 1, "max", key.bits64())
            return Levels(codes, scales, 1, segments, self.coding)
        scales = _clipped_max(x, offsets, self.clip)
        return Levels(round_to_levels(x, offsets, scales, 1, key.bits64()), scales, 1, segments, self.coding)

    def scales(self, x: Tensor, segments: Segments) -> Tensor:
        """The scale that :meth:`compress` chooses for each segment: f32 ``[segments.count]``."""
        offsets = segments.offsets()
        return segment_max(x, offsets) if self.clip is None else _clipped_max(x, offsets, self.clip)

    def compress_at(self, x: Tensor, own: Tensor, shared: Tensor, key: Key, segments: Segments) -> Levels:
        """Clip to the scales ``own`` of ``x``, then round to the levels of ``shared``, which are nowhere less."""
        if self.clip is not None:
            bounds = per_entry(own, segments)
            x = torch.clamp(x, -bounds, bounds)
        codes = round_to_levels(x, segments.offsets(), shared, 1, key.bits64())
        return Levels(codes, shared, 1, segments, self.coding)

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """Unbiased without clipping, of bounded error with it."""
        if self.clip is None:
            return Traits(unbiased=True, error=(math.sqrt(max(numel, 1)) - 1.0) / 2.0)
        # With y the clipped vector, ||x - y||^2 <= ||x||^2 - ||y||^2, and the variance is s ||y||_1 - ||y||^2 with
        # s ||y||_1 <= c sigma sqrt(d) ||y|| <= c ||x|| ||y||; the largest over ||y|| <= ||x||.
        return Traits(unbiased=False, error=1.0 + self.clip**2 / 8.0 if self.clip <= 4.0 else self.clip - 1.0)


def _clipped_max(x: Tensor, offsets: Tensor, clip: float) -> Tensor:
    """The largest magnitude of each segment or ``clip`` standard deviations, whichever is less: f32 ``[s]``."""
    sizes = to_device(offsets, x.device).diff().clamp(min=1)
    moments = segment_moments(x, offsets)
    variance = (moments.squares / sizes - (moments.sums / sizes).square()).clamp_(min=0)
    return torch.minimum(moments.largest, (variance.sqrt() * clip).to(torch.float32)) + 0.0
