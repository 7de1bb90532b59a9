"""Send a running mean of vectors by way of another memory."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thinwire.arrays import copy_of, zeros
from thinwire.compressors.base import Compressor, Traits, tuned
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.memory.ef21 import EF21
from thinwire.memory.estimates import EstimatingMemory
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class EstimatedMomentum:
    """``v = momentum v + (1 - momentum) x``, and ``memory`` makes the message of v: with EF21, EF21-SGDM.

    An estimate follows what changes slowly. The noise of small batches changes at every step, by as much as it is
    large, so that EF21 on gradients stays as far off; on their running mean only a part of it arrives (Fatkhullin,
    Tyurin, Richtarik 2023, whose eta is ``1 - momentum``). The first vector that is not zero begins the mean.

    Args:
        memory: what estimates the mean.
        momentum: factor on the running mean, in [0, 1).

    Raises:
        ConfigError: ``momentum`` out of range.

    Example:
        >>> from thinwire.compressors import Identity
        >>> memory, whole = EstimatedMomentum(momentum=0.5), Segments.whole(1)
        >>> state = memory.init(torch.zeros(1))
        >>> for value in (4.0, 8.0):
        ...     payload, state = memory.compress(torch.tensor([value]), Identity(), Key(0), whole, state)
        >>> payload.to_dense().tolist(), state["momentum"].tolist(), state["estimate"].tolist()
        ([2.0], [6.0], [6.0])
    """

    memory: EstimatingMemory = field(default_factory=EF21)
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum {self.momentum} was given; a running mean takes a factor from 0 to below 1")

    @property
    def needs_contraction(self) -> bool:
        """As the memory inside."""
        return self.memory.needs_contraction

    @property
    def keeps_only_losses(self) -> bool:
        """No: it keeps past vectors."""
        return False

    @property
    def change_rate(self) -> float | None:
        """That of the memory inside."""
        return self.memory.change_rate

    @property
    def can_restart(self) -> bool:
        """No: the estimate is of the running mean."""
        return False

    def tuned(self, traits: Traits) -> "EstimatedMomentum":
        """With the memory inside tuned."""
        return replace(self, memory=tuned(self.memory, traits))

    def init(self, like: Tensor) -> State:
        """A mean of zeros, beside what the memory inside keeps."""
        return {"momentum": zeros(like.numel(), like.device), **self.memory.init(like)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """What the memory inside sends of the new mean, written over ``x``."""
        before, inner = _parted(state)
        # Without a question to the device: whether there is a mean yet is a number that it multiplies with.
        weight = before.any().to(torch.float32).mul_(-self.momentum).add_(1.0)
        x.sub_(before).mul_(weight).add_(before)
        mean = copy_of(x)
        intended, unsent = self.memory.add_residual(x, inner)
        return intended, {"momentum": mean, **unsent}

    def commit(self, sent: Payload, state: State) -> State:
        """The memory inside hears of it."""
        mean, inner = _parted(state)
        return {"momentum": mean, **self.memory.commit(sent, inner)}

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the new mean."""
        return compress_in_steps(self, x, compressor, key, segments, state)


def _parted(state: State) -> tuple[Tensor, State]:
    return state["momentum"], {name: tensor for name, tensor in state.items() if name != "momentum"}
