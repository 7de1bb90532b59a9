"""What an exchange receives beside a vector: a compressor and its memory, for this one exchange."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from thinwire.arrays import CPU, copy_of
from thinwire.compressors.base import Compressor
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.layout import Segments, State
from thinwire.memory.base import Memory, StreamingMemory
from thinwire.memory.handed import Handed
from thinwire.memory.no_memory import NoMemory
from thinwire.memory.trigger import nothing
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.random import Key


class Sender(Protocol):
    """Makes a worker's message in one exchange. The next exchange gets another sender.

    Most exchanges send what :meth:`compress` returns. Those that compress in their own way ask :meth:`add_residual`
    what is to be sent, and then tell :meth:`commit` what was.
    """

    @property
    def compressor(self) -> Compressor:
        """The compressor without the memory, which all workers have in common."""
        ...

    def compress(self, x: Handed, key: Key, segments: Segments) -> Payload:
        """The message for ``x`` (``[segments.numel]``), which is taken; the memory counts it."""
        ...

    def add_residual(self, x: Handed) -> Tensor:
        """What is to be sent of ``x``, which is taken; read it until :meth:`commit`, do not write to it."""
        ...

    def commit(self, sent: Payload) -> None:
        """Say what was sent of what :meth:`add_residual` returned."""
        ...


@dataclass(slots=True)
class MemorySender:
    """Compresses like ``compressor``, with what earlier messages left out added to the vector.

    Args:
        compressor: what makes the messages.
        memory: what adds to them; without one the compressor is all there is.
        state: of the memory, before this message. It is left as it is.
        keeps_intended: whether :attr:`intended` is kept, which takes a copy of the vector.
        kept: a vector that its owner still has, and can make the next state of: that is not kept here.
        threshold: the squared norm that what is to be sent must exceed, or an empty message is made.

    Example:
        >>> from thinwire.compressors import TopK
        >>> from thinwire.memory import ErrorFeedback
        >>> sender = MemorySender(TopK(k=1), ErrorFeedback(), {"residual": torch.tensor([0.0, 3.0])})
        >>> sender.compress(Handed(torch.tensor([2.0, 0.0])), Key(0), Segments.whole(2)).to_dense().tolist()
        [0.0, 3.0]
        >>> sender.next_state["residual"].tolist()
        [2.0, 0.0]
    """

    compressor: Compressor
    memory: Memory = NoMemory()
    state: State = field(default_factory=dict)
    keeps_intended: bool = False
    kept: Handed | None = None
    threshold: float | None = None
    intended: Tensor | None = field(init=False, default=None)
    """What was to be sent, with the memory's part, if it is kept; None before the exchange has asked for a message."""
    next_state: State | None = field(init=False)
    """The state once the message is delivered; ``state`` until one is made; None where it is not kept."""
    _takes_kept: bool = field(init=False, default=False)
    _unsent: State = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.next_state = self.state

    def compress(self, x: Handed, key: Key, segments: Segments) -> Payload:
        """The message for ``x``, which is handed over to the memory."""
        if self.keeps_intended:
            self.intended, _ = self.memory.add_residual(copy_of(x.look()), self.state)
        if x.difference is not None and x is self.kept and isinstance(self.memory, StreamingMemory):
            self.next_state = None
            return self.memory.compress_difference(x.difference, self.compressor, key, segments, self.state)
        if self.threshold is not None:
            payload, following = self._compress_if_above(self.threshold, x.take(), key, segments)
        else:
            payload, following = self.memory.compress(x.take(), self.compressor, key, segments, self.state)
        self.next_state = None if x is self.kept else following
        return payload

    def _compress_if_above(self, threshold: float, x: Tensor, key: Key, segments: Segments) -> tuple[Payload, State]:
        """Like :meth:`Memory.compress`, of a vector that is long enough; all of another stays in the memory."""
        intended, unsent = self.memory.add_residual(x, self.state)
        ends = torch.tensor([0, intended.numel()], dtype=torch.int64, device=CPU)
        says = not float(segment_sums(intended, ends, 2)) <= threshold
        empty = nothing(intended.numel(), intended.device)
        payload = self.compressor.compress(intended, key, segments) if says else empty
        return payload, self.memory.commit(payload, unsent)

    def add_residual(self, x: Handed) -> Tensor:
        """What is to be sent of ``x``, which is handed over to the memory."""
        self._takes_kept = x is self.kept
        intended, self._unsent = self.memory.add_residual(x.take(), self.state)
        if self.keeps_intended:
            self.intended = copy_of(intended)
        return intended

    def commit(self, sent: Payload) -> None:
        """The next state is that of ``sent`` being delivered."""
        self.next_state = None if self._takes_kept else self.memory.commit(sent, self._unsent)
        self._unsent = {}


@dataclass(frozen=True, slots=True)
class NonfiniteSender:
    """Sends the first NaN or infinity of a vector, which must not be compressed, so that all workers learn of it.

    Args:
        compressor: that of the other workers.
    """

    compressor: Compressor

    def compress(self, x: Handed, key: Key, segments: Segments) -> Payload:
        """One entry, NaN or infinity."""
        return first_nonfinite(x.take())

    def add_residual(self, x: Handed) -> Tensor:
        """The vector as it is."""
        return x.take()

    def commit(self, sent: Payload) -> None:
        """Nothing is remembered."""


def first_nonfinite(x: Tensor) -> Sparse:
    """The first entry of ``x`` that is NaN or infinity; no entry if all are finite.

    Example:
        >>> first_nonfinite(torch.tensor([1.0, torch.inf])).to_dense().tolist()
        [0.0, inf]
    """
    first = torch.isfinite(x).logical_not().nonzero().view(-1)[:1]
    return Sparse(x.numel(), first, Dense(x[first]))
