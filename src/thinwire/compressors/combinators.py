"""Two operators made into one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.compressors.base import Compressor, Traits, check_vector
from thinwire.compressors.shortening import shortened
from thinwire.config import check_types, register
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.layout import Segments
from thinwire.payloads import Concat, Payload, Sum
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class BetterOf:
    """``C(x) = argmin(||C1(x) - x||, ||C2(x) - x||)``: for each segment the message with the smaller error.

    What is sent says itself which one it is. The choice depends on the draws, so it is biased even if both operators
    are unbiased: use it with memory. Each segment is compressed on its own, twice; it is meant for few segments.

    Constant: ``1 - gamma <= min(1 - gamma_1, 1 - gamma_2)`` (also with the omegas of unbiased operators).
    Bits: those of the operator that is better; the same choice at other lengths is not made.
    Paper: the idea of EF21+ (Richtarik, Sokolov, Fatkhullin 2021), which picks the better of two estimates.
    Use it when: vectors are sometimes nearly sparse and sometimes dense, and both operators send about as much.

    Args:
        first: sent where the errors are equal.
        second: the other.

    Example:
        >>> import torch
        >>> from thinwire.compressors.sign import Sign
        >>> from thinwire.compressors.top_k import TopK
        >>> either = BetterOf(TopK(k=1), Sign())
        >>> either.compress(torch.tensor([0.0, 9.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [0.0, 9.0]
        >>> either.compress(torch.tensor([-1.0, 1.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [-1.0, 1.0]
    """

    first: Compressor
    second: Compressor

    def __post_init__(self) -> None:
        check_types(self)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """The better message, or those of all segments one after another."""
        check_vector(x, segments)
        if segments.count == 1:
            return self._better(x, key, segments)
        parts = tuple(
            self._better(part, key.fold("segment", number), Segments.whole(part.numel()))
            for number, part in enumerate(torch.split(x, segments.offsets().diff().tolist()))
        )
        return Concat(parts) if parts else self.first.compress(x, key.fold("first"), segments)

    def _better(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        first = self.first.compress(x, key.fold("first"), segments)
        second = self.second.compress(x, key.fold("second"), segments)
        return first if _squared_error(first, x) <= _squared_error(second, x) else second

    def outline(self, segments: Segments) -> Payload:
        """Both messages: no payload is larger than the two together."""
        cuts = (
            [segments] if segments.count <= 1 else [Segments.whole(size) for size in segments.offsets().diff().tolist()]
        )
        both = tuple(Sum((self.first.outline(cut), self.second.outline(cut))) for cut in cuts)
        return both[0] if len(both) == 1 else Concat(both)

    def traits(self, numel: int) -> Traits:
        """Not unbiased; the smaller error."""
        return Traits(unbiased=False, error=min(self.first.traits(numel).error, self.second.traits(numel).error))


@register
@dataclass(frozen=True, slots=True)
class Successive:
    """``C(x) = C1(x) + C2(x - C1(x))``: the second message is about what the first one leaves out.

    Constant: ``1 - gamma = (1 - gamma_1) (1 - gamma_2)``; for an unbiased ``C2`` the result is unbiased whatever
        ``C1`` is, with ``omega = (1 - gamma_1) omega_2`` (an unbiased operator's ``1 - gamma`` is its omega).
    Bits: both messages.
    Paper: standard; residual quantization, and Horvath and Richtarik 2021, A better alternative to error feedback,
        where C2 is unbiased ("induced compressor").
    Use it when: a contraction must become unbiased, or one sends a few entries exactly and the rest coarsely.

    Args:
        first: compresses the vector.
        second: compresses what is left.

    Example:
        >>> import torch
        >>> from thinwire.compressors.sign import Sign
        >>> from thinwire.compressors.top_k import TopK
        >>> both = Successive(TopK(k=1), Sign())
        >>> both.compress(torch.tensor([1.0, 9.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [0.5, 9.5]
    """

    first: Compressor
    second: Compressor

    def __post_init__(self) -> None:
        check_types(self)

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Sum:
        """Both messages."""
        check_vector(x, segments)
        return shortened(lambda x: self._compress(x, key, segments), x)

    def _compress(self, x: Tensor, key: Key, segments: Segments) -> Sum:
        first = self.first.compress(x, key.fold("first"), segments)
        rest = copy_of(x)
        first.add_to(rest, -1.0)
        return Sum((first, self.second.compress(rest, key.fold("second"), segments)))

    def outline(self, segments: Segments) -> Sum:
        """Both outlines."""
        return Sum((self.first.outline(segments), self.second.outline(segments)))

    def traits(self, numel: int) -> Traits:
        """The product of the errors."""
        first, second = self.first.traits(numel), self.second.traits(numel)
        return Traits(unbiased=second.unbiased, error=first.error * second.error)


def _squared_error(payload: Payload, x: Tensor) -> float:
    rest = copy_of(x)
    payload.add_to(rest, -1.0)
    return float(segment_sums(rest, Segments.whole(x.numel()).offsets(), 2).sum())
