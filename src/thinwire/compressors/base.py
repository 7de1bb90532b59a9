"""What an operator must offer, and what is known of it."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.payloads import Payload
from thinwire.random import Key

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Traits:
    """What theory promises of an operator ``C`` on vectors of one length.

    Args:
        unbiased: ``E C(x) = x``.
        error: the least proven bound of ``E||C(x) - x||^2 / ||x||^2`` over all ``x``. For an unbiased operator
            it is omega; for a contraction it is ``1 - gamma``. Error feedback needs ``error < 1``.
        linear: messages may be added before they are decoded, so that an all-reduce is legal.
    """

    unbiased: bool
    error: float
    linear: bool = False

    @property
    def gamma(self) -> float:
        """The contraction constant ``1 - error``, at least 0."""
        return max(0.0, 1.0 - self.error)


@runtime_checkable
class Tunable(Protocol):
    """A part with a number that follows from the compressor's constants where none was given."""

    def tuned(self, traits: Traits) -> Self:
        """The part with its number.

        Args:
            traits: what holds of all messages, see :func:`common_traits`.

        Raises:
            ConfigError: with such a compressor there is none.
        """
        ...


def tuned(part: _Part, traits: Traits) -> _Part:
    """The part, with its number if it waits for one."""
    return part.tuned(traits) if isinstance(part, Tunable) else part


@runtime_checkable
class Compressor(Protocol):
    """Maps a vector to a payload. Implementations are frozen dataclasses without state."""

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """Compress each segment of ``x`` (contiguous f32 ``[segments.numel]``, not modified) on its own.

        The result depends on ``x``, ``key`` and ``segments`` alone. Of a finite vector it is finite.

        Raises:
            ConfigError: a tensor of another type or shape, see :func:`check_vector`.
        """
        ...

    def traits(self, numel: int) -> Traits:
        """What is known for one segment of ``numel`` entries."""
        ...

    def outline(self, segments: Segments) -> Payload:
        """The largest payload for these segments, with tensors on torch's ``meta`` device: shapes without data.

        From it :func:`thinwire.wire.max_num_bytes` knows before compression what a message can take at most.
        """
        ...


@runtime_checkable
class FusedCompressor(Compressor, Protocol):
    """A compressor that adds the residual, compresses and subtracts in fewer passes over memory than three."""

    def compress_residual(
        self, x: Tensor, residual: Tensor, decay: float, out: Tensor, key: Key, segments: Segments
    ) -> Payload:
        """Compress ``u = decay * residual + x`` and leave ``u`` minus the decoded payload in ``out``.

        All three tensors are contiguous f32 ``[segments.numel]``; ``out`` may be ``x`` or ``residual``, the others
        are not modified. The bits are those of ``decay * residual + x`` (two roundings, none for a decay of 1),
        :meth:`compress` and ``payload.add_to(u, -1.0)``, one after the other.
        """
        ...


@runtime_checkable
class DifferenceCompressor(Compressor, Protocol):
    """A compressor that needs no vector of what it compresses, where that is a sum of vectors that are there."""

    def can_compress_difference(self, segments: Segments) -> bool:
        """Whether it does with these segments."""
        ...

    def compress_difference(
        self, reference: Tensor, tensors: Sequence[Tensor], residual: Tensor, decay: float, key: Key, segments: Segments
    ) -> Payload:
        """Compress ``decay * residual + (reference - tensors)``, none of which is modified.

        ``tensors`` are contiguous f32, one after another. The bits are those of :meth:`Compressor.compress`.
        """
        ...


def can_compress_difference(compressor: Compressor, segments: Segments) -> bool:
    """Whether no vector need be made for this compressor."""
    return isinstance(compressor, DifferenceCompressor) and compressor.can_compress_difference(segments)


def check_vector(x: Tensor, segments: Segments) -> None:
    """Raise ConfigError unless ``x`` is a vector as :meth:`Compressor.compress` takes it: for its beginning.

    Numbers of another type are not converted, since that would hide what is lost or made longer on the way.

    Example:
        >>> check_vector(torch.zeros(3), Segments.whole(3))
    """
    if not isinstance(x, Tensor):
        raise ConfigError(f"a {type(x).__name__} was given; compressors take a tensor of float32, [d]")
    if x.dtype != torch.float32:
        raise ConfigError(f"a vector of {x.dtype} was given; compressors take float32: give x.float()")
    if x.dim() != 1 or x.numel() != segments.numel or not x.is_contiguous():
        raise ConfigError(
            f"a tensor of shape {tuple(x.shape)}{'' if x.is_contiguous() else ', not contiguous,'} was given for "
            f"segments of {segments.numel} entries together; compressors take a contiguous vector of that length: give "
            "x.reshape(-1).contiguous()"
        )


def add_residual(x: Tensor, residual: Tensor, decay: float, out: Tensor) -> Tensor:
    """``out = decay * residual + x``; ``out`` may be ``x``."""
    return torch.add(residual if decay == 1.0 else residual * decay, x, out=out)


def compress_residual(
    compressor: Compressor, x: Tensor, residual: Tensor, decay: float, out: Tensor, key: Key, segments: Segments
) -> Payload:
    """:meth:`FusedCompressor.compress_residual` of any compressor, in one pass if it can."""
    if _is_fused(type(compressor)):
        return cast(FusedCompressor, compressor).compress_residual(x, residual, decay, out, key, segments)
    check_vector(x, segments)
    payload = compressor.compress(add_residual(x, residual, decay, out), key, segments)
    payload.add_to(out, -1.0)
    return payload


@functools.cache
def _is_fused(kind: type) -> bool:
    # To look for a protocol's methods takes as long as compressing a thousand entries.
    return issubclass(kind, FusedCompressor)


def outline_of_zeros(compressor: Compressor, segments: Segments) -> Payload:
    """The payload of zeros: the outline of an operator whose payloads all have one shape, whatever the numbers are."""
    return compressor.compress(torch.zeros(segments.numel, dtype=torch.float32, device=CPU), Key(0), segments)


def segment_traits(compressor: Compressor, segments: Segments) -> Traits:
    """The traits over several segments: gamma is the smallest over them (Basu et al. 2019, Cor. 1)."""
    sizes = segments.distinct_sizes() or (1,)
    return _weakest([compressor.traits(size) for size in sizes])


def common_traits(compressors: Sequence[Compressor], segments: Segments) -> Traits:
    """What holds whichever of the compressors makes a message: :func:`segment_traits`, the largest error of all."""
    return _weakest([segment_traits(compressor, segments) for compressor in compressors])


def _weakest(each: Sequence[Traits]) -> Traits:
    return Traits(
        unbiased=all(traits.unbiased for traits in each),
        error=max(traits.error for traits in each),
        linear=all(traits.linear for traits in each),
    )


def shrink_factors(omega: Callable[[int], float], segments: Segments) -> Tensor:
    """``1 / (1 + omega)`` of each segment's length, which makes what is unbiased a contraction (Basu et al. 2019).

    Returns:
        f32 ``[segments.count]``, or ``[1]`` if all are alike.

    Example:
        >>> shrink_factors(lambda size: size / 4, Segments.of_sizes([4, 12])).tolist()
        [0.5, 0.25]
    """
    of_size = {size: 1.0 / (1.0 + omega(size)) for size in segments.distinct_sizes()}
    if len(set(of_size.values())) <= 1:
        return torch.tensor(list(of_size.values())[:1] or [1.0], dtype=torch.float32, device=CPU)
    # The sizes ascend; what is empty comes before them.
    known = torch.tensor([0, *of_size], dtype=torch.int64, device=CPU)
    factors = torch.tensor([1.0, *of_size.values()], dtype=torch.float32, device=CPU)
    return factors[torch.searchsorted(known, segments.offsets().diff())]


def sparsified(keep: float, values: Traits, *, linear: bool = False) -> Traits:
    """Traits of a quantizer with ``values`` traits on the entries kept by a k/d-contraction, ``keep = k/d``.

    ``||C(x) - x||^2 = ||x - y||^2 + ||Q(y) - y||^2 <= ||x||^2 - (1 - e) ||y||^2`` with ``e`` the quantizer's
    error on k entries and ``||y||^2 >= (k/d) ||x||^2``: error ``1 - (1 - e) k/d`` while ``e < 1``, else ``e``
    (not a contraction). With QSGD this is gamma ``(1 - beta) k/d``, or ``k / (d (1 + beta))`` when scaled.
    """
    error = 1.0 - (1.0 - values.error) * keep if values.error < 1.0 else values.error
    return Traits(unbiased=values.unbiased and math.isclose(keep, 1.0), error=error, linear=linear)
