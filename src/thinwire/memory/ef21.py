"""Send how the gradient differs from what everybody believes it is."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import copy_of, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import register
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class EF21:
    """``c = C(x - g)``, send c, keep ``g = g + c``: the estimate that all receivers have of this worker's vector.

    Messages are changes of the estimate; an exchange that adds them up (``Accumulating``) has the mean estimate, which
    is what workers go on with. As gradients stop changing the estimates reach them, on each worker its own: unlike
    the residual of error feedback, the error goes to 0 with a constant step also where the workers' data differ. It
    needs gradients of little noise. The first estimate is ``C(x)``, since g is 0 before.

    Example:
        >>> from thinwire.compressors import TopK
        >>> memory, whole = EF21(), Segments.whole(2)
        >>> state = memory.init(torch.zeros(2))
        >>> for _ in range(2):
        ...     payload, state = memory.compress(torch.tensor([1.0, 4.0]), TopK(k=1), Key(0), whole, state)
        >>> payload.to_dense().tolist(), state["estimate"].tolist()
        ([1.0, 0.0], [1.0, 4.0])
    """

    needs_contraction: ClassVar[bool] = True
    """With an error of 1 or more the estimate need not come nearer."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps what was sent."""

    change_rate: ClassVar[float] = 1.0
    """An estimate takes all of what is sent."""

    can_restart: ClassVar[bool] = False
    """Receivers have the mean of the estimates."""

    def init(self, like: Tensor) -> State:
        """An estimate of zeros."""
        return {"estimate": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The difference, written over ``x``."""
        return torch.sub(x, state["estimate"], out=x), {"estimate": copy_of(state["estimate"])}

    def commit(self, sent: Payload, state: State) -> State:
        """The decoded message is added."""
        sent.add_to(state["estimate"])
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the difference."""
        return compress_in_steps(self, x, compressor, key, segments, state)
