"""Forget what a message left out."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.config import register
from thinwire.memory.base import State
from thinwire.payloads import Payload


@register
@dataclass(frozen=True, slots=True)
class NoMemory:
    """No state: right for unbiased compressors, lossy for the others."""

    @property
    def needs_contraction(self) -> bool:
        """Nothing accumulates."""
        return False

    def init(self, numel: int) -> State:
        """No tensors."""
        return {}

    def compensate(self, x: Tensor, state: State) -> Tensor:
        """``x`` itself."""
        return x

    def update(self, compensated: Tensor, sent: Payload, state: State) -> None:
        """Nothing to do."""
