"""An unbiased operator as a contraction."""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thinwire.arrays import to_device
from thinwire.compressors.base import Compressor, Traits, check_vector, shrink_factors
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.transform.hadamard import hadamard_blocks
from thinwire.layout import Segments
from thinwire.payloads import (
    DCT,
    Codebook,
    Concat,
    Constant,
    Dense,
    Grid,
    Levels,
    LowRank,
    Payload,
    PowersOfTwo,
    Rotated,
    SeededSparse,
    Signs,
    Sparse,
    Sum,
)
from thinwire.random import Key

_PROBE = 1 << 20


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """``C(x) = U(x) / (1 + omega)`` for an unbiased operator U, ``omega`` that of each segment's length.

    The factor goes into the scales of U's own message, which stays as long as it was. What is divided by is the
    proven omega: where it is far above what U does to the vector at hand, the message is smaller than would be best.

    Constant: gamma = ``1 / (1 + omega)``, for every omega.
    Bits: those of U.
    Paper: Basu, Data, Karakus and Diggavi 2019 (Qsparse-local-SGD), Lemma 2; Horvath et al. 2019.
    Use it when: an unbiased operator is wanted under error feedback.

    Args:
        inner: U.

    Raises:
        ConfigError: U is biased.

    Example:
        >>> from thinwire.compressors.k_level import KLevel
        >>> scaled = Scaled(inner=KLevel(levels=2))
        >>> scaled.compress(torch.tensor([3.0, 3.0, 3.0]), Key(0), Segments.whole(3)).to_dense().tolist()
        [2.0, 2.0, 2.0]
    """

    inner: Compressor

    def __post_init__(self) -> None:
        check_types(self)
        if not self.inner.traits(_PROBE).unbiased:
            raise ConfigError(
                f"{self.inner} is biased; Scaled takes unbiased operators (error feedback takes any contraction)"
            )

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """The message of U, its scales multiplied by ``1 / (1 + omega)``."""
        check_vector(x, segments)
        factors = _factors(self, segments)
        return shrink(self.inner.compress(x, key, segments), to_device(factors, x.device), segments.offsets())

    def outline(self, segments: Segments) -> Payload:
        """That of U."""
        return self.inner.outline(segments)

    def traits(self, numel: int) -> Traits:
        """A contraction with ``1 - gamma = omega / (1 + omega)``."""
        omega = self.inner.traits(numel).error
        return Traits(unbiased=omega == 0.0, error=omega / (1.0 + omega))


def shrink(payload: Payload, factors: Tensor, offsets: Tensor) -> Payload:
    """The payload of a vector whose segments are multiplied by ``factors``, f32: one for all or one for each.

    Args:
        payload: of any kind but a transform (``Rotated``, ``DCT``, ``LowRank``) that crosses segments of unlike
            factors.
        factors: f32 ``[1]`` or ``[s]``.
        offsets: int64 ``[s + 1]``, where the segments begin.

    Raises:
        ConfigError: a transform that crosses segments, or scales that are not one a segment.

    Example:
        >>> shrink(Dense(torch.tensor([2.0, 4.0])), torch.tensor([0.5]), torch.tensor([0, 2])).to_dense().tolist()
        [1.0, 2.0]
    """
    match payload:
        case Dense():
            return Dense(payload.values * _spread(factors, offsets, payload.numel))
        case Grid():
            each = _of_each(factors, offsets, payload.segments)
            return replace(payload, lows=payload.lows * each, steps=payload.steps * each)
        case Levels() | Signs() | Codebook() | PowersOfTwo():
            return replace(payload, scales=payload.scales * _of_each(factors, offsets, payload.segments))
        case Constant():
            return replace(payload, values=payload.values * _of_each(factors, offsets, payload.segments))
        case Sparse():
            kept = torch.searchsorted(payload.indices, to_device(offsets, payload.indices.device))
            return replace(payload, values=shrink(payload.values, factors, kept))
        case SeededSparse():
            return replace(payload, values=shrink(payload.values, factors, payload.kept.offsets()))
        case Sum():
            return Sum(tuple(shrink(part, factors, offsets) for part in payload.parts))
        case Concat():
            return _shrink_joined(payload, factors, offsets)
        case Rotated() if factors.numel() == 1 or _blocks_follow(payload, offsets):
            return replace(payload, inner=shrink(payload.inner, factors, offsets))
        case DCT() if factors.numel() == 1:
            return replace(payload, inner=shrink(payload.inner, factors, offsets))
        case LowRank() if factors.numel() == 1:
            return replace(payload, left=payload.left * factors)
    raise ConfigError(
        f"a message of {type(payload).__name__} over segments of unlike sizes cannot be scaled; "
        "split the vector into segments of one size"
    )


def _shrink_joined(payload: Concat, factors: Tensor, offsets: Tensor) -> Concat:
    """Each part with the factors of the segments that it covers."""
    parts, begin = [], 0
    for part in payload.parts:
        end = begin + part.numel
        inside = offsets.clamp(begin, end).diff() > 0
        its = factors if factors.numel() == 1 else factors[inside]
        own = torch.cat([offsets.new_zeros(1), offsets.clamp(begin, end).diff()[inside].cumsum(0)])
        parts.append(shrink(part, its, own))
        begin = end
    return Concat(tuple(parts))


def _blocks_follow(payload: Rotated, offsets: Tensor) -> bool:
    """Whether no block of the rotation crosses a segment, so that it may be scaled before or after it."""
    return bool(torch.isin(offsets, hadamard_blocks(payload.numel, payload.block)).all())


def _of_each(factors: Tensor, offsets: Tensor, segments: Segments) -> Tensor:
    """The factor of each of a message's own segments, which may be finer than those of the factors."""
    if factors.numel() in (1, segments.count):
        return factors
    ends = segments.offsets()
    if not torch.isin(to_device(offsets, ends.device), ends).all():
        raise ConfigError(
            f"a message in {segments.count} segments cannot be scaled in {factors.numel()} that cross them"
        )
    first = torch.searchsorted(to_device(offsets, ends.device), ends[:-1], right=True) - 1
    return factors[to_device(first.clamp_(max=factors.numel() - 1), factors.device)]


def _spread(factors: Tensor, offsets: Tensor, numel: int) -> Tensor:
    if factors.numel() == 1:
        return factors
    return factors.repeat_interleave(to_device(offsets, factors.device).diff(), output_size=numel)


@functools.lru_cache(maxsize=64)
def _factors(scaled: Scaled, segments: Segments) -> Tensor:
    """What the message is multiplied by: shared, do not write to it."""
    return shrink_factors(lambda size: scaled.inner.traits(size).error, segments)
