"""Rounding to powers of two."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.flat.finite import LARGEST, is_finite
from thinwire.kernels.quantize.powers import MOST_LEVELS, round_to_powers
from thinwire.kernels.reduce.segment_sums import segment_max, segment_sums
from thinwire.layout import Segments
from thinwire.payloads import Payload, PowersOfTwo
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class NaturalCompression:
    """``C(x)_i = sign(x_i) 2^e`` or ``sign(x_i) 2^(e+1)``, the two powers of two around ``|x_i|``, right on average.

    The paper sends a sign and the eight bits of a float's exponent. Exponents are counted here from the segment's
    largest entry down: 127 of them, a sign and zero are one byte instead of nine bits. What lies more than 126 powers
    of two below the largest entry is rounded to zero or to the last power, unbiased as well, and adds nothing that
    f64 could show. Entries beyond ``2^127``, above which there is no power of two in f32, become ``2^127``.

    Constant: omega = 1/8, attained at ``4/3`` times a power of two; .082 on average over log-uniform entries.
    Bits: 8 d + 32 a segment.
    Paper: Horvath, Ho, Horvath, Sahu, Canini and Richtarik 2019 (natural compression).
    Use it when: a quarter of the bytes is enough; or to shrink the values that another operator keeps.

    Example:
        >>> NaturalCompression().compress(torch.tensor([0.0, -4.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [0.0, -4.0]
    """

    def compress(self, x: Tensor, key: Key, segments: Segments) -> PowersOfTwo:
        """One byte an entry, and the power of two from the largest entry on upwards."""
        check_vector(x, segments)
        offsets = segments.offsets()
        scales = _power_from(segment_max(x, offsets))
        return PowersOfTwo(
            round_to_powers(x, offsets, scales, MOST_LEVELS, key.bits64()), MOST_LEVELS, scales, segments
        )

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """Unbiased with omega 1/8, for any length."""
        return Traits(unbiased=True, error=0.125)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalDithering:
    """``C(x)_i = ||x|| sign(x_i) xi_i``, ``xi_i`` rounds ``|x_i| / ||x||`` to ``0, 2^(1-s), ..., 1/2, 1``, unbiased.

    QSGD with levels that are powers of two: as fine near zero with s levels as QSGD is with ``2^(s-1)``.

    Constant: with ``q = sqrt(d) 2^(1-s)`` the paper's is ``omega = 1/8 + q min(1, q)``. What holds is less, and is what
        ``traits`` says: for the l2 norm ``1/8 + 2/9 q^2`` up to ``q = 9/4``, then ``q - 1``; for the max norm the
        larger of 1/8 and ``(sqrt(1 + (d-1) 4^(1-s)) - 1) / 2`` (s = 1 is TernGrad's ``(sqrt(d) - 1) / 2``).
    Bits: ``d ceil(log2(2 s + 1)) + 32`` a segment.
    Paper: Horvath et al. 2019 (natural dithering).
    Use it when: entries spread over many orders of magnitude, for which equal steps are wasteful.

    Args:
        levels: s, the number of powers of two, 1 to 127.
        norm: ``"l2"`` or ``"max"``.

    Raises:
        ConfigError: ``levels`` out of range or an unknown norm.

    Example:
        >>> dithering = NaturalDithering(levels=3, norm="max")
        >>> dithering.compress(torch.tensor([1.0, -2.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [1.0, -2.0]
    """

    levels: int
    norm: Literal["l2", "max"] = "l2"

    def __post_init__(self) -> None:
        check_types(self)
        if not 1 <= self.levels <= MOST_LEVELS:
            raise ConfigError(f"{self.levels} levels were asked for; natural dithering takes 1 to {MOST_LEVELS}")

    def compress(self, x: Tensor, key: Key, segments: Segments) -> PowersOfTwo:
        """One code an entry, and the norm of each segment."""
        check_vector(x, segments)
        offsets = segments.offsets()
        scales = segment_max(x, offsets) if self.norm == "max" else _narrowed(segment_sums(x, offsets, 2).sqrt())
        return PowersOfTwo(
            round_to_powers(x, offsets, scales, self.levels, key.bits64()), self.levels, scales, segments
        )

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """Unbiased."""
        least = 2.0 ** (1 - self.levels)
        if numel <= 1:
            return Traits(unbiased=True, error=0.0)
        # Between powers the variance of r is at most r^2 / 8; below the least power p it is r (p - r).
        if self.norm == "max":
            # n entries of a = p / (2 (1 + omega)) beside the largest; no entry above p has more than omega r^2.
            return Traits(unbiased=True, error=max(0.125, (math.sqrt(1.0 + (numel - 1) * least**2) - 1.0) / 2.0))
        # All entries equal: a = 4 p / 9 with the rest of the norm at 1/8; or, where that is too long, a = 1 / sqrt(d).
        q = math.sqrt(numel) * least
        return Traits(unbiased=True, error=0.125 + 2.0 / 9.0 * q * q if q <= 2.25 else q - 1.0)


def _narrowed(norms: Tensor) -> Tensor:
    """Norms of finite vectors in f32, where they are finite too."""
    scales = norms.to(torch.float32)
    if is_finite(scales):
        return scales
    return torch.where(torch.isfinite(norms), norms.clamp(max=LARGEST), norms).to(torch.float32)


def _power_from(numbers: Tensor) -> Tensor:
    """The least power of two that is not below each number, at most ``2^127``; 0 for 0."""
    mantissa, exponent = torch.frexp(numbers.to(torch.float64))
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent).clamp_(max=127)
    powers = torch.ldexp(torch.ones_like(mantissa), exponent).to(torch.float32)
    # NaN stays what it is.
    return torch.where(numbers > 0, powers, numbers)
