"""A compressor and its memory, as an exchange sees them."""

from dataclasses import dataclass, field

from torch import Tensor

from thinwire.compressors.base import Compressor, Traits
from thinwire.layout import Segments, State
from thinwire.memory.base import Memory
from thinwire.payloads import Payload
from thinwire.random import Key


@dataclass(slots=True)
class Remembering:
    """Compresses like ``compressor``, with what earlier messages left out added to each vector.

    Args:
        compressor: what makes the messages.
        memory: what adds to them.
        state: of the memory, before this message. It is left as it is.

    Example:
        >>> import torch
        >>> from thinwire.compressors import TopK
        >>> from thinwire.memory import ErrorFeedback
        >>> sender = Remembering(TopK(k=1), ErrorFeedback(), {"residual": torch.tensor([0.0, 3.0])})
        >>> sender.compress(torch.tensor([2.0, 0.0]), Key(0), Segments.whole(2)).to_dense().tolist()
        [0.0, 3.0]
        >>> sender.next_state["residual"].tolist()
        [2.0, 0.0]
    """

    compressor: Compressor
    memory: Memory
    state: State
    next_state: State = field(init=False)
    """The state once the message is delivered; ``state`` until one is made."""
    _recalled: State = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.next_state = self.state

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """The message for ``x`` (contiguous f32 ``[segments.numel]``), which is handed over to the memory."""
        payload, self.next_state = self.memory.compress(x, self.compressor, key, segments, self.state)
        return payload

    def add_residual(self, x: Tensor) -> Tensor:
        """What is to be sent of ``x``, which is handed over; read it until :meth:`settle`, do not write to it."""
        intended, self._recalled = self.memory.add_residual(x, self.state)
        return intended

    def commit(self, sent: Payload) -> None:
        """Say what was sent of what :meth:`recall` returned."""
        self.next_state = self.memory.commit(sent, self._recalled)

    def outline(self, segments: Segments) -> Payload:
        """That of the compressor."""
        return self.compressor.outline(segments)

    def traits(self, numel: int) -> Traits:
        """Those of the compressor."""
        return self.compressor.traits(numel)
