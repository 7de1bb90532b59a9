"""How the messages of other workers become vectors again."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import CPU, zeros
from thinwire.errors import ProtocolError
from thinwire.kernels.flat.finite import divide_finite, is_finite
from thinwire.payloads import Payload
from thinwire.payloads.mean import mean_of
from thinwire.wire import decode

EXACT_KINDS = frozenset((1, 2, 14))
"""Numbers of the kinds of messages that are exact: dense and sparse ones, one after another."""


@dataclass(frozen=True, slots=True)
class MessageReader:
    """Decodes messages that stand for ``numel`` entries, of agreed kinds, where the vectors of the exchange lie.

    Every message that an exchange receives is decoded here.

    Args:
        numel: entries of the vector.
        kinds: numbers of the kinds of payloads in messages, see :func:`thinwire.wire.kinds_in`; all if None.
        device: where vectors are made.

    Raises:
        WireError: by all methods, a message that is not valid or of another kind.
        ProtocolError: by all but :meth:`payload`, one that stands for a vector of another length.

    Example:
        >>> from thinwire.payloads import Dense
        >>> from thinwire.wire import encode
        >>> messages = [encode(Dense(torch.tensor(values))) for values in ([1.0, 2.0], [3.0, 4.0])]
        >>> MessageReader(2).mean(messages)
        (tensor([2., 3.]), True)
    """

    numel: int
    kinds: frozenset[int] | None = None
    device: torch.device = CPU

    def with_numel(self, numel: int) -> "MessageReader":
        """The same for vectors of another length."""
        return MessageReader(numel, self.kinds, self.device)

    def with_kinds(self, kinds: frozenset[int] | None) -> "MessageReader":
        """The same for other kinds."""
        return MessageReader(self.numel, kinds, self.device)

    def payload(self, message: Tensor) -> Payload:
        """What a message says of at most ``numel`` entries."""
        return decode(message, max_numel=self.numel, kinds=self.kinds, device=self.device)

    def part(self, message: Tensor, what: str) -> Payload:
        """What a message says of ``numel`` entries; ``what`` names it in errors."""
        payload = self.payload(message)
        if payload.numel != self.numel:
            raise ProtocolError(
                f"{what} stands for a vector of {payload.numel} entries where {self.numel} were expected; all workers "
                "must train the same model with the same method"
            )
        return payload

    def vector(self, message: Tensor) -> tuple[Tensor, bool]:
        """The vector that a message for all stands for, and whether it is finite."""
        vector = self.part(message, "the common result").to_dense()
        return vector, is_finite(vector)

    def parts(self, messages: Sequence[Tensor]) -> Iterator[Payload]:
        """All workers' messages, one at a time: together they may be as long as the vector many times over."""
        return (self.part(message, f"the message of worker {rank}") for rank, message in enumerate(messages))

    def sum(self, payloads: Iterable[Payload]) -> Tensor:
        """The sum of vectors, added up in order."""
        return self.mean_of(payloads, 1)[0]

    def mean(self, messages: Sequence[Tensor]) -> tuple[Tensor, bool]:
        """The mean of all workers' vectors, added up in rank order, and whether it is finite."""
        return self.mean_of(self.parts(messages), len(messages))

    def mean_of(self, payloads: Iterable[Payload], divisor: int) -> tuple[Tensor, bool]:
        """The sum of vectors, added up in order, over ``divisor``; and whether it is finite."""
        return mean_of(payloads, self.numel, divisor, self.device)

    def joined(self, messages: Sequence[Tensor], bounds: Sequence[int], divisor: int = 1) -> tuple[Tensor, bool]:
        """What each worker says of its region, from ``bounds[rank]`` on, over ``divisor``; whether all is finite."""
        vector = zeros(self.numel, self.device)
        for rank, (message, (start, stop)) in enumerate(zip(messages, itertools.pairwise(bounds), strict=True)):
            if stop > start:  # the owner of nothing has nothing to say
                region = self.with_numel(stop - start).part(message, f"the region of worker {rank}")
                region.add_to(vector[start:stop])
        return vector, divide_finite(vector, divisor)
