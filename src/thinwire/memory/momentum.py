"""Send a running mean of gradients."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class Momentum:
    """``m = momentum * m + (1 - momentum) * x``, send ``C(m)``: Signum's momentum, taken before the sign.

    Nothing that a message left out is added back. Each worker has a momentum of its own, of its own gradients.

    Args:
        momentum: factor on the running mean, in [0, 1).

    Raises:
        ConfigError: ``momentum`` out of range.

    Example:
        >>> from thinwire.compressors import PlainSign
        >>> import torch
        >>> memory, x = Momentum(0.5), torch.tensor([4.0, -1.0])
        >>> payload, state = memory.compress(x, PlainSign(), Key(0), Segments.whole(2), memory.init(x))
        >>> payload.to_dense().tolist(), state["momentum"].tolist()
        ([1.0, -1.0], [2.0, -0.5])
    """

    momentum: float = 0.9

    needs_contraction: ClassVar[bool] = False
    """The mean does not depend on what is sent."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps past gradients."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum {self.momentum} was given; a running mean takes a factor from 0 to below 1")

    def init(self, like: Tensor) -> State:
        """A mean of zeros."""
        return {"momentum": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The new mean, written over ``x``."""
        x.mul_(1.0 - self.momentum).add_(state["momentum"] * self.momentum)
        return x, {"momentum": x}

    def commit(self, sent: Payload, state: State) -> State:
        """The mean stays as it is."""
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the new mean."""
        return compress_in_steps(self, x, compressor, key, segments, state)
