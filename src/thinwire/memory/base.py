"""What keeps the part of a vector that a message left out."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from thinwire.compressors.base import Compressor
from thinwire.layout import Segments, State
from thinwire.memory.handed import Difference
from thinwire.payloads import Payload
from thinwire.random import Key


@runtime_checkable
class Memory(Protocol):
    """Adds back what earlier messages left out. Implementations are frozen dataclasses; the state is outside."""

    @property
    def needs_contraction(self) -> bool:
        """Whether the compressor's error must be below 1 for the memory to stay bounded."""
        ...

    @property
    def keeps_only_losses(self) -> bool:
        """Whether it keeps what messages left out and nothing else: with exact messages it is as if not there."""
        ...

    def init(self, like: Tensor) -> State:
        """The state before the first message: tensors of the shape and on the device of ``like``, f32 or bf16."""
        ...

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """What is to be sent, and the state if nothing of it is; for exchanges that compress by themselves.

        ``state`` is not changed, ``x`` is handed over as in :meth:`compress`. What is to be sent may be a tensor of
        the returned state: read it, do not write to it.
        """
        ...

    def commit(self, sent: Payload, state: State) -> State:
        """The state once ``sent`` is delivered; ``state`` is what :meth:`add_residual` returned, and is used up."""
        ...

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for ``x`` and what earlier ones left out; and the state once it is delivered.

        ``state`` is not changed: an exchange that fails leaves the memory as it was. ``x`` (contiguous f32
        ``[d]``) is handed over: it is written to, and may become part of the next state. When the next state is
        taken, the tensors of ``state`` that are not in it are free to be used again. What the next state leaves
        out is what receivers decode, not what was meant.
        """
        ...


@runtime_checkable
class InPlaceMemory(Memory, Protocol):
    """A memory whose next state can take the place of the present one, where nothing can call it back any more."""

    def take_in(self, parts: Sequence[Tensor], sent: Payload, state: State) -> State:
        """The state once ``sent`` is delivered of the vector that is ``parts``, one after another (f32, any shapes).

        The bits are those of :meth:`Memory.add_residual` and :meth:`Memory.commit`; ``state`` is used up.
        """
        ...


@runtime_checkable
class StreamingMemory(Memory, Protocol):
    """A memory that needs no vector of what is to be sent, with compressors that need none either.

    The bits are those of :meth:`Memory.compress` with the vector.
    """

    def can_stream(self, compressor: Compressor, segments: Segments) -> bool:
        """Whether the methods below serve."""
        ...

    def compress_difference(
        self, x: Difference, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> Payload:
        """The message for ``x`` and what earlier ones left out. ``state`` is not changed."""
        ...

    def take_in_difference(self, x: Difference, sent: Payload, state: State) -> State:
        """The state once ``sent`` is delivered; ``state`` is used up."""
        ...


@runtime_checkable
class RoundedMemory(Memory, Protocol):
    """A memory that may keep its state in fewer bits than it computes with."""

    def keep(self, state: State, present: State, key: Key) -> State:
        """The next state as it is kept, once it is known that it counts; tensors of ``present`` may be written over.

        Args:
            state: what an exchange left, f32.
            present: what is kept now.
            key: addresses the randomness of rounding.
        """
        ...


def compress_in_steps(
    memory: Memory, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
) -> tuple[Payload, State]:
    """:meth:`Memory.compress` by what it means: add the residual, compress, commit."""
    intended, unsent = memory.add_residual(x, state)
    payload = compressor.compress(intended, key, segments)
    return payload, memory.commit(payload, unsent)
