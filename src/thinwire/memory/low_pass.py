"""Error feedback through a low-pass filter."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.memory.estimates import check_rate
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class LowPass:
    """``u = m + x``, send ``C(u)``, keep ``m = (1 - beta) m + beta (u - C(u))`` (Chen et al. 2020, ScaleCom).

    With ``beta = 1`` it is error feedback. With less the memory follows what was left out slowly, which keeps the
    workers' memories alike under large learning rates; and of what is sent only the share beta leaves the memory.

    Args:
        beta: the filter's factor, above 0 and at most 1.

    Raises:
        ConfigError: beta out of range.

    Example:
        >>> from thinwire.compressors import TopK
        >>> import torch
        >>> memory, x = LowPass(0.5), torch.tensor([4.0, -1.0])
        >>> payload, state = memory.compress(x, TopK(k=1), Key(0), Segments.whole(2), memory.init(x))
        >>> payload.to_dense().tolist(), state["residual"].tolist()
        ([4.0, 0.0], [0.0, -0.5])
    """

    beta: float = 0.1

    needs_contraction: ClassVar[bool] = True
    """As error feedback."""

    keeps_only_losses: ClassVar[bool] = True
    """With exact messages ``beta (u - u) = 0`` is added to zeros."""

    def __post_init__(self) -> None:
        check_types(self)
        check_rate(self.beta, "LowPass")

    def init(self, like: Tensor) -> State:
        """Nothing was left out."""
        return {"residual": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The sum, written over ``x``; and ``m + beta x``, which is ``(1 - beta) m + beta u``."""
        kept = state["residual"] + x * self.beta
        return x.add_(state["residual"]), {"residual": kept}

    def commit(self, sent: Payload, state: State) -> State:
        """The decoded message is taken out, times beta."""
        sent.add_to(state["residual"], -self.beta)
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the sum."""
        return compress_in_steps(self, x, compressor, key, segments, state)
