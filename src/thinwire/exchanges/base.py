"""How workers turn their vectors into a common mean."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.compressors.base import Compressor
from thinwire.errors import ConfigError
from thinwire.exchanges.reading import MessageReader
from thinwire.layout import Layout, Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.random import Key
from thinwire.steps import Steps


@dataclass(frozen=True, slots=True)
class Context:
    """Who takes part in which exchange.

    Args:
        rank: this worker, 0 to ``size - 1``.
        size: number of workers.
        key: addresses this worker's randomness in this exchange.
        segments: those of the vector that are compressed apart.
        max_num_bytes: the longest message that any worker can make of it.
        layout: names and shapes of the tensors that make up the vector.
        kinds: numbers of the kinds of payloads in messages, see :func:`thinwire.wire.kinds_in`; all if not given.
        device: where vectors and state lie.
        keeps_sent: whether somebody reads, after the exchange, what was sent; if not, an exchange that sends the
            vector as it is may let the mean take its memory.
        params: what the vector's tensors are of, to be read before the first request: workers may share them.
        number: how often this vector was exchanged before, the same on all workers.
    """

    rank: int
    size: int
    key: Key
    segments: Segments
    max_num_bytes: int
    layout: Layout
    kinds: frozenset[int] | None = None
    device: torch.device = CPU
    keeps_sent: bool = True
    params: Sequence[Tensor] = ()
    number: int = 0

    @property
    def reader(self) -> MessageReader:
        """What decodes the messages of all workers."""
        return MessageReader(self.segments.numel, self.kinds, self.device)


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """What an exchange returns.

    Args:
        result: what this worker goes on with; the same bits on every worker, but under gossip. A vector, f32 ``[d]``,
            or, where few entries are not 0, their f32 values. Shared within a simulation: read it, do not write to it.
        finite: whether every entry of the result is; if not, no worker may go on with it.
        message_bytes: length of this worker's encoded message.
        message: what this worker's message said, as its receivers decode it; None where the mean took its memory, since
            the context said that nobody reads it.
        num_vectors: how many workers' vectors the mean is of.
        state: what the exchange remembers once this one counts.
    """

    result: Tensor | Sparse
    finite: bool
    message_bytes: int
    message: Payload | None
    num_vectors: int
    state: State = field(default_factory=dict)

    @property
    def sent(self) -> Payload:
        """What this worker's message said.

        Raises:
            ConfigError: it was not kept.
        """
        if self.message is None:
            raise ConfigError("the mean has taken the memory of what was sent; ask for keeps_sent in the context")
        return self.message

    @property
    def mean(self) -> Tensor:
        """The result as a vector, f32 ``[d]``; made anew where it is sparse. Read it, do not write to it."""
        return self.result if isinstance(self.result, Tensor) else self.result.to_dense()

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * mean`` in place, both roundings in f32; in O(entries) where the result is sparse."""
        result = Dense(self.result) if isinstance(self.result, Tensor) else self.result
        result.add_to(out, scale)

    def scaled(self, factor: float) -> "Aggregate":
        """The same with a mean that is ``factor`` times as large; itself for 1."""
        if factor == 1.0:
            return self
        if isinstance(self.result, Tensor):
            return replace(self, result=self.result * factor)
        return replace(self, result=replace(self.result, values=Dense(self.result.kept() * factor)))

    def num_nonzero(self) -> int:
        """Entries of the mean that are not 0."""
        values = self.result if isinstance(self.result, Tensor) else self.result.kept()
        return int(values.count_nonzero())


@runtime_checkable
class Exchange(Protocol):
    """A program that compresses a vector, exchanges messages and returns their mean.

    Implementations are frozen dataclasses; what they remember from one exchange to the next is a state outside.

    Example:
        >>> from thinwire.compressors import Identity
        >>> from thinwire.exchanges import Gather
        >>> from thinwire.memory import Handed, MemorySender
        >>> from thinwire.simulator import Simulation
        >>> layout, segments = Layout(("w",), (torch.Size([2]),)), Segments.whole(2)
        >>> programs = [
        ...     Gather().run(Handed(x), MemorySender(Identity()), Context(rank, 2, Key(0), segments, 100, layout), {})
        ...     for rank, x in enumerate(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        ... ]
        >>> [aggregate.mean.tolist() for aggregate in Simulation(2).run(programs)]
        [[2.0, 3.0], [2.0, 3.0]]
    """

    @property
    def needs_linear(self) -> bool:
        """Whether messages are added before they are decoded, so that the compressor must be linear."""
        ...

    @property
    def workers_agree(self) -> bool:
        """Whether every worker gets the same mean, bit for bit; under gossip each has its own."""
        ...

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """What this worker remembers before the first exchange: tensors of any shape, by name; often none.

        Raises:
            ConfigError: the exchange does not fit the number of workers, the compressor or the segments.
        """
        ...

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """Exchange ``x`` (contiguous f32 ``[d]``) with the other workers; whoever asks the sender hands it over.

        The sender makes this worker's message, once; ``MemorySender(compressor)`` is one without a memory.
        ``state`` is not changed: an exchange that fails is as if it had not been. The aggregate has the next one.
        """
        ...
