"""Send how a vector has changed since the one before it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import copy_of, zeros
from thinwire.compressors.base import Compressor, Traits
from thinwire.config import check_types, register
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.memory.estimates import check_rate, known_rate, omega_of
from thinwire.payloads import Payload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True)
class Change:
    """``Q(x - the vector before)``: MARINA's messages (Gorbunov et al. 2021).

    The sum of the changes is an estimate whose errors add up, one a step, each as small as the step is short. So the
    exchange now and then begins anew: ``Accumulating(restart=p)``.

    Example:
        >>> from thinwire.compressors import Identity
        >>> memory, whole = Change(), Segments.whole(1)
        >>> state = memory.init(torch.zeros(1))
        >>> for value in (4.0, 7.0):
        ...     payload, state = memory.compress(torch.tensor([value]), Identity(), Key(0), whole, state)
        >>> payload.to_dense().tolist(), state["before"].tolist()
        ([3.0], [7.0])
    """

    needs_contraction: ClassVar[bool] = False
    """What was lost is not sent again."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps the last vector."""

    change_rate: ClassVar[float] = 1.0
    """An estimate takes all of what is sent."""

    can_restart: ClassVar[bool] = True
    """What is sent depends on vectors alone."""

    def tuned(self, traits: Traits) -> "Change":
        """As it is.

        Raises:
            ConfigError: the compressor is biased, so that errors would add up in one direction.
        """
        omega_of(traits, self)
        return self

    def init(self, like: Tensor) -> State:
        """No vector yet: zeros."""
        return {"before": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The difference, written over ``x``."""
        now = copy_of(x)
        return torch.sub(x, state["before"], out=x), {"before": now}

    def commit(self, sent: Payload, state: State) -> State:
        """The vector stays as it is."""
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the difference."""
        return compress_in_steps(self, x, compressor, key, segments, state)


@register
@dataclass(frozen=True, slots=True)
class CorrectedChange:
    """``m = Q(x - before - rate (g - before))``, send m, keep ``g = g + m`` and x: DASHA (Tyurin, Richtarik 2022).

    As :class:`Change`, but every message also takes back a part of what the estimate g is off, so that no step needs
    all vectors as they are.

    Args:
        rate: a; if it is left out, ``1 / (2 omega + 1)`` of the method's compressor on the model's segments.

    Raises:
        ConfigError: a rate out of range.

    Example:
        >>> from thinwire.compressors import Identity
        >>> memory, whole = CorrectedChange(0.5), Segments.whole(1)
        >>> state = {"before": torch.tensor([4.0]), "estimate": torch.tensor([2.0])}
        >>> payload, state = memory.compress(torch.tensor([5.0]), Identity(), Key(0), whole, state)
        >>> payload.to_dense().tolist(), state["estimate"].tolist(), state["before"].tolist()
        ([2.0], [4.0], [5.0])
    """

    rate: float | None = None

    needs_contraction: ClassVar[bool] = False
    """The rate makes up for the variance."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps what was sent."""

    change_rate: ClassVar[float] = 1.0
    """An estimate takes all of what is sent."""

    can_restart: ClassVar[bool] = False
    """Receivers have the mean of the estimates."""

    def __post_init__(self) -> None:
        check_types(self)
        check_rate(self.rate, "CorrectedChange")

    def tuned(self, traits: Traits) -> "CorrectedChange":
        """With ``1 / (2 omega + 1)`` where no rate was given.

        Raises:
            ConfigError: the compressor is biased.
        """
        omega = omega_of(traits, self)
        return self if self.rate is not None else replace(self, rate=1.0 / (2.0 * omega + 1.0))

    def init(self, like: Tensor) -> State:
        """Zeros."""
        return {"before": zeros(like.numel(), like.device), "estimate": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The change with its correction, written over ``x``."""
        now, before = copy_of(x), state["before"]
        off = state["estimate"] - before
        torch.sub(x, before, out=x)
        x -= off.mul_(known_rate(self.rate, "CorrectedChange"))
        return x, {"before": now, "estimate": copy_of(state["estimate"])}

    def commit(self, sent: Payload, state: State) -> State:
        """The decoded message is added to the estimate."""
        sent.add_to(state["estimate"])
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the corrected change."""
        return compress_in_steps(self, x, compressor, key, segments, state)
