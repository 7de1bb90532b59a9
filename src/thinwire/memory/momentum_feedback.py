"""A momentum from which a share of what was sent is taken out."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from thinwire.arrays import blocks, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class MomentumFeedback:
    """``u = m + x``, send ``q = C(u)``, keep ``m = u - (1 - momentum) q``: error feedback into the momentum.

    What is sent decays by ``momentum`` at every step, and what never is does not decay at all. With exact messages it
    is the heavy ball's ``u = momentum u + x``, and with ``momentum = 0`` it is error feedback (Dion, Ahn et al. 2025).

    Args:
        momentum: factor on what was sent, in [0, 1).

    Raises:
        ConfigError: ``momentum`` out of range.

    Example:
        >>> from thinwire.compressors import TopK
        >>> import torch
        >>> memory, x = MomentumFeedback(0.75), torch.tensor([4.0, -1.0])
        >>> payload, state = memory.compress(x, TopK(k=1), Key(0), Segments.whole(2), memory.init(x))
        >>> payload.to_dense().tolist(), state["momentum"].tolist()
        ([4.0, 0.0], [3.0, -1.0])
    """

    momentum: float = 0.95

    needs_contraction: ClassVar[bool] = True
    """With an error of 1 or more what is left may grow without bound."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps past gradients."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(
                f"momentum {self.momentum} was given; what was sent is kept with a factor from 0 to below 1"
            )

    def init(self, like: Tensor) -> State:
        """A momentum of zeros."""
        return {"momentum": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``m + x``, written over ``x``."""
        for own, before in zip(blocks(x), blocks(state["momentum"]), strict=True):
            own.add_(before)
        return x, {"momentum": x}

    def commit(self, sent: Payload, state: State) -> State:
        """The share of the decoded message is subtracted."""
        sent.add_to(state["momentum"], self.momentum - 1.0)
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for ``m + x``."""
        return compress_in_steps(self, x, compressor, key, segments, state)
