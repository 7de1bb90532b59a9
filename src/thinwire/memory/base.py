"""What keeps the part of a vector that a message left out."""

from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from thinwire.payloads import Payload

State: TypeAlias = dict[str, Tensor]
"""Named tensors that a worker owns; a part changes them in place and keeps nothing else."""


@runtime_checkable
class Memory(Protocol):
    """Adds back what earlier messages left out. Implementations are frozen dataclasses; the state is outside."""

    @property
    def needs_contraction(self) -> bool:
        """Whether the compressor's error must be below 1 for the memory to stay bounded."""
        ...

    def init(self, numel: int) -> State:
        """The state before the first message: f32 tensors ``[numel]``."""
        ...

    def compensate(self, x: Tensor, state: State) -> Tensor:
        """The vector to compress; may be a tensor of the state. ``x`` is not modified."""
        ...

    def update(self, compensated: Tensor, sent: Payload, state: State) -> None:
        """Account for the message: ``sent`` is what the receivers decode, not what was meant."""
        ...
