"""Add to the next message what this one left out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.config import register
from thinwire.errors import ConfigError
from thinwire.memory.base import State
from thinwire.payloads import Payload


@register
@dataclass(frozen=True, slots=True)
class ErrorFeedback:
    """``u = decay * m + x``, send ``q = C(u)``, keep ``m = u - q`` (Seide 2014; Stich et al. 2018, Alg. 1).

    The residual is updated in place, in O(entries sent), from the decoded message. For the theory to hold ``x``
    is in units of the parameters (learning rate times gradient), as it is under model averaging.

    Args:
        decay: factor on the old residual, in (0, 1]; 1 in the papers above, 0.95 in SparseLoCo.

    Raises:
        ConfigError: ``decay`` out of range.

    Example:
        >>> from thinwire.payloads import Dense
        >>> memory = ErrorFeedback()
        >>> state = memory.init(2)
        >>> u = memory.compensate(torch.tensor([1.0, 2.0]), state)
        >>> memory.update(u, Dense(torch.tensor([0.0, 2.0])), state)
        >>> state["residual"].tolist()
        [1.0, 0.0]
    """

    decay: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.decay <= 1.0:
            raise ConfigError(f"decay {self.decay} was given; error feedback takes a factor above 0, at most 1")

    @property
    def needs_contraction(self) -> bool:
        """With an error of 1 or more the residual may grow without bound."""
        return True

    def init(self, numel: int) -> State:
        """A residual of zeros."""
        return {"residual": torch.zeros(numel)}

    def compensate(self, x: Tensor, state: State) -> Tensor:
        """The residual's own buffer, ``x`` added."""
        residual = state["residual"]
        if self.decay != 1.0:
            residual.mul_(self.decay)
        return residual.add_(x)

    def update(self, compensated: Tensor, sent: Payload, state: State) -> None:
        """Subtract the decoded message from the residual."""
        sent.add_to(state["residual"], -1.0)
