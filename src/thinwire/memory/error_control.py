"""EControl: an estimate, and a controlled part of all that it was short of."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import copy_of, zeros
from thinwire.compressors.base import Compressor, Traits
from thinwire.config import check_types, register
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.memory.estimates import check_rate, known_rate
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class ErrorControl:
    """``c = C(x - h + feedback e)``, send c, keep ``e = e + x - h - c`` and ``h = h + c`` (Gao, Islamov, Stich 2023).

    h is EF21's estimate; e adds up what the estimate was short of at every step. With no feedback it is EF21; with a
    feedback of 1 and h left out it would be error feedback. A little of it averages the noise of small batches over
    steps and workers, which an estimate alone does not.

    Args:
        feedback: eta; if it is left out, the compressor's ``gamma`` on the model's segments.

    Raises:
        ConfigError: a feedback out of range.

    Example:
        >>> from thinwire.compressors import TopK
        >>> memory, whole = ErrorControl(0.5), Segments.whole(2)
        >>> state = memory.init(torch.zeros(2))
        >>> for _ in range(2):
        ...     payload, state = memory.compress(torch.tensor([2.0, 4.0]), TopK(k=1), Key(0), whole, state)
        >>> payload.to_dense().tolist(), state["estimate"].tolist(), state["error"].tolist()
        ([3.0, 0.0], [3.0, 4.0], [1.0, 0.0])
    """

    feedback: float | None = None

    needs_contraction: ClassVar[bool] = True
    """With an error of 1 or more the estimate need not come nearer."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps what was sent."""

    change_rate: ClassVar[float] = 1.0
    """An estimate takes all of what is sent."""

    can_restart: ClassVar[bool] = False
    """Receivers have the mean of the estimates."""

    def __post_init__(self) -> None:
        check_types(self)
        check_rate(self.feedback, "ErrorControl")

    def tuned(self, traits: Traits) -> "ErrorControl":
        """With the compressor's gamma where no feedback was given."""
        return self if self.feedback is not None or not traits.gamma else replace(self, feedback=traits.gamma)

    def init(self, like: Tensor) -> State:
        """Zeros."""
        return {"estimate": zeros(like.numel(), like.device), "error": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The difference with its feedback, written over ``x``."""
        torch.sub(x, state["estimate"], out=x)
        error = x + state["error"]
        x += state["error"] * known_rate(self.feedback, "ErrorControl")
        return x, {"estimate": copy_of(state["estimate"]), "error": error}

    def commit(self, sent: Payload, state: State) -> State:
        """The decoded message is added to the estimate, and no longer missing."""
        sent.add_to(state["estimate"])
        sent.add_to(state["error"], -1.0)
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the difference and the feedback."""
        return compress_in_steps(self, x, compressor, key, segments, state)
