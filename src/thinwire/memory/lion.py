"""Send a running mean in which the newest gradient counts more than in what is kept."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from thinwire.arrays import blocks, empty_like, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class LionMomentum:
    """Send ``C(beta1 m + (1 - beta1) x)``, keep ``m = beta2 m + (1 - beta2) x``: what Lion takes the sign of.

    Nothing that a message left out is added back. Each worker has a momentum of its own, of its own gradients
    (Distributed Lion, Liu et al. 2024).

    Args:
        beta1: factor on the running mean in what is sent, in [0, 1).
        beta2: the same in what is kept; larger in Lion.

    Raises:
        ConfigError: a factor out of range.

    Example:
        >>> from thinwire.compressors import PlainSign
        >>> import torch
        >>> memory, x = LionMomentum(0.5, 0.75), torch.tensor([4.0, -1.0])
        >>> payload, state = memory.compress(x, PlainSign(), Key(0), Segments.whole(2), memory.init(x))
        >>> payload.to_dense().tolist(), state["momentum"].tolist()
        ([1.0, -1.0], [1.0, -0.25])
    """

    beta1: float = 0.9
    beta2: float = 0.99

    needs_contraction: ClassVar[bool] = False
    """The mean does not depend on what is sent."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps past gradients."""

    def __post_init__(self) -> None:
        check_types(self)
        check_betas(self.beta1, self.beta2)

    def init(self, like: Tensor) -> State:
        """A mean of zeros."""
        return {"momentum": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The mean that is sent, written over ``x``, and the one that is kept."""
        following = empty_like(x)
        for new, own, before in zip(blocks(following), blocks(x), blocks(state["momentum"]), strict=True):
            new.copy_(own).mul_(1.0 - self.beta2).add_(before * self.beta2)
            own.mul_(1.0 - self.beta1).add_(before * self.beta1)
        return x, {"momentum": following}

    def commit(self, sent: Payload, state: State) -> State:
        """The mean stays as it is."""
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the mean that is sent."""
        return compress_in_steps(self, x, compressor, key, segments, state)


def check_betas(beta1: float, beta2: float) -> None:
    """Raise :class:`ConfigError` unless both are factors of running means."""
    if not 0.0 <= beta1 < 1.0 or not 0.0 <= beta2 < 1.0:
        raise ConfigError(
            f"beta1 = {beta1}, beta2 = {beta2} were given; a running mean takes a factor from 0 to below 1"
        )
