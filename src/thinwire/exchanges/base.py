"""How workers turn their vectors into a common mean."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from thinwire.compressors.base import Compressor
from thinwire.layout import Segments
from thinwire.random import Key
from thinwire.steps import Steps


@dataclass(frozen=True, slots=True)
class Context:
    """Who takes part in which exchange.

    Args:
        rank: this worker, 0 to ``size - 1``.
        size: number of workers.
        key: addresses this worker's randomness in this exchange.
        segments: how the vector is cut for compression.
        max_num_bytes: the longest message that any worker can make of it.
    """

    rank: int
    size: int
    key: Key
    segments: Segments
    max_num_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """What an exchange returns.

    Args:
        mean: f32 ``[d]``, the same bits on every worker; shared within a simulation: read it, do not write to it.
        finite: whether every entry of ``mean`` is; if not, no worker may go on with it.
        message_bytes: length of this worker's encoded message.
    """

    mean: Tensor
    finite: bool
    message_bytes: int


@runtime_checkable
class Exchange(Protocol):
    """A program that compresses a vector, exchanges messages and returns their mean."""

    @property
    def needs_linear(self) -> bool:
        """Whether messages are added before they are decoded, so that the compressor must be linear."""
        ...

    def run(self, x: Tensor, compressor: Compressor, ctx: Context) -> Steps[Aggregate]:
        """Exchange ``x`` (contiguous f32 ``[d]``) with the other workers; it is handed over to the compressor."""
        ...
