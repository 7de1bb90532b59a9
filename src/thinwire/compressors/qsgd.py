"""Stochastic rounding to equally spaced levels."""

import functools
import math
import operator
from dataclasses import InitVar, dataclass
from typing import Literal

import torch
from torch import Tensor

from thinwire.compressors.base import Traits, check_vector, shrink_factors
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import num_packed_bytes
from thinwire.kernels.quantize.dither import accumulate_quantize, quantize
from thinwire.layout import Segments
from thinwire.payloads import Levels
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class QSGD:
    """``C(x)_i = ||x|| sign(x_i) xi_i / s``, ``xi_i`` an unbiased rounding of ``s |x_i| / ||x||`` (Alistarh 2017).

    Unbiased. ``scaled=True`` sends ``C(x) / (1 + omega)`` instead, a contraction for any s (Basu et al. 2019, Lemma 2):
    use it under error feedback. The max norm is the usual choice in buckets: give a granularity of chunks.

    Constant: omega = ``min(d/s^2, sqrt(d)/s)`` with the l2 norm (QSGD, Lemma 3.1). With the max norm the worst case is
        ``omega = (1 - 2f) / (2f)``, ``f = (sqrt(s^4 + n s^2) - s^2) / n``, ``n = d - 1`` (maximise
        ``sum f(1-f)/s^2`` over ``||x||^2/max^2``; s = 1 gives TernGrad's ``(sqrt d - 1)/2``). Scaled: gamma =
        ``1 / (1 + omega)``.
    Bits: ``d ceil(log2(2s + 1)) + 32`` a segment packed; with ``coding="entropy"`` about the entropy of the levels,
        with ``coding="elias"`` as in the paper: 2.01, .12 and 1.03 an entry of 16,384 Gaussian ones at s = 1, and
        8.01, 2.34 and 2.95 at s = 127. Elias omega is the shortest where a message is too short for a table of
        frequencies (2.53, 2.56 and 1.66 of 256 such entries at s = 1) and for many levels on heavy tails (11.00, 3.40
        and 1.44 of 262,144 log-normal entries, sigma 2, at s = 1023).
    Paper: Alistarh, Grubic, Li, Tomioka and Vojnovic 2017 (QSGD); Basu et al. 2019 (scaled).
    Use it when: messages must be unbiased and 3 to 8 bits an entry can be spent; scaled for the values that ``TopK``
        keeps.

    Args:
        levels: s, the number of positive levels, 1 to 32767.
        bits: of a packed code, 2 to 16, in place of ``levels``: see :meth:`bits_to_levels`.
        norm: ``"l2"`` as in the paper or ``"max"``.
        scaled: divide by ``1 + omega`` of the segment's length.
        coding: how the wire writes the levels: ``"packed"``, ``"elias"`` (omega, as in the paper) or ``"entropy"``.

    Raises:
        ConfigError: neither or both of ``levels`` and ``bits``, one of them out of range, an unknown norm or coding.

    Example:
        >>> import torch
        >>> QSGD(bits=4)
        QSGD(levels=7, norm='l2', scaled=False, coding='packed')
        >>> payload = QSGD(levels=1, norm="max").compress(torch.tensor([0.0, -3.0]), Key(0), Segments.whole(2))
        >>> payload.to_dense().tolist()
        [0.0, -3.0]
    """

    levels: int = 0
    norm: Literal["l2", "max"] = "l2"
    scaled: bool = False
    coding: Literal["packed", "elias", "entropy"] = "packed"
    bits: InitVar[int | None] = None

    def __post_init__(self, bits: int | None) -> None:
        check_types(self)
        if bits is not None:
            if self.levels:
                raise ConfigError(f"QSGD was given levels={self.levels} and bits={bits}; give one of them")
            object.__setattr__(self, "levels", self.bits_to_levels(bits))
        if not 1 <= self.levels <= 32767:
            raise ConfigError(
                f"{self.levels} levels were asked for; QSGD takes 1 to 32767, or bits=2 to bits=16 in their place"
            )

    @staticmethod
    def bits_to_levels(bits: int) -> int:
        """``s = 2^(bits-1) - 1``: a sign and ``bits - 1`` level bits; 2, 4, 8 bits give s = 1, 7, 127."""
        try:
            width = operator.index(bits)
        except TypeError:
            width = 0
        if not 2 <= width <= 16:
            raise ConfigError(f"{bits!r} bits were asked for; QSGD takes 2 to 16, a whole number")
        return int(2 ** (width - 1) - 1)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Levels:
        """One level an entry, and the norm of each segment."""
        check_vector(x, segments)
        codes, scales = quantize(x, segments.offsets(), self.levels, self.norm, key.bits64(), _shrink(self, segments))
        return Levels(codes, scales, self.levels, segments, self.coding)

    def compress_residual(
        self, x: Tensor, residual: Tensor, decay: float, out: Tensor, key: Key, segments: Segments
    ) -> Levels:
        """Compress ``u = decay * residual + x``, leave ``u`` minus what is decoded in ``out``: one pass over memory."""
        check_vector(x, segments)
        offsets, shrink = segments.offsets(), _shrink(self, segments)
        codes, scales = accumulate_quantize(
            x, residual, decay, out, offsets, self.levels, self.norm, key.bits64(), shrink
        )
        return Levels(codes, scales, self.levels, segments, self.coding)

    def outline(self, segments: Segments) -> Levels:
        """A code an entry and an f32 a segment."""
        num_bytes = num_packed_bytes(segments.numel, (2 * self.levels).bit_length())
        codes = torch.empty(num_bytes, dtype=torch.uint8, device="meta")
        return Levels(
            codes, torch.empty(segments.count, dtype=torch.float32, device="meta"), self.levels, segments, self.coding
        )

    def traits(self, numel: int) -> Traits:
        """Unbiased with omega, or a contraction with ``1 - gamma = omega / (1 + omega)`` when scaled."""
        omega = self.omega(numel)
        if self.scaled:
            return Traits(unbiased=omega == 0.0, error=omega / (1.0 + omega))
        return Traits(unbiased=True, error=omega)

    def omega(self, numel: int) -> float:
        """The constant of the unscaled operator."""
        s = self.levels
        if self.norm == "l2":
            return min(numel / s**2, math.sqrt(numel) / s)
        n = numel - 1
        if n <= 0:
            return 0.0
        # (sqrt(s^4 + n s^2) - s^2) / n without the cancellation
        f = s / (math.sqrt(s**2 + n) + s)
        return (1.0 - 2.0 * f) / (2.0 * f)


@functools.lru_cache(maxsize=64)
def _shrink(quantizer: QSGD, segments: Segments) -> Tensor | None:
    """What levels are multiplied by, if they are scaled: shared, do not write to it."""
    return shrink_factors(quantizer.omega, segments) if quantizer.scaled else None
