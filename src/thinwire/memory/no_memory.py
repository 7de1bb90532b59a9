"""Forget what a message left out."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from thinwire.compressors.base import Compressor, check_vector
from thinwire.compressors.identity import Identity
from thinwire.config import register
from thinwire.layout import Segments, State
from thinwire.payloads import Dense, Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class NoMemory:
    """No state: right for unbiased compressors, lossy for the others."""

    needs_contraction: ClassVar[bool] = False
    """Nothing accumulates."""

    keeps_only_losses: ClassVar[bool] = True
    """It keeps nothing."""

    def init(self, like: Tensor) -> State:
        """No tensors."""
        return {}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x`` itself."""
        return x, state

    def commit(self, sent: Payload, state: State) -> State:
        """No tensors."""
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for ``x`` itself; ``x`` is not changed."""
        if isinstance(compressor, Identity):
            check_vector(x, segments)
            return Dense(x), state  # it was handed over, so that nobody writes to it: no copy is needed
        return compressor.compress(x, key, segments), state
