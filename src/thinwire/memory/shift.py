"""Send how a vector differs from a shift that is learnt from unbiased messages."""

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
class Shift:
    """``m = Q(x - h)``, send m, keep ``h = h + rate m``: DIANA's memory (Mishchenko et al. 2019).

    ``h + m`` is unbiased, with a variance of ``omega ||x - h||^2`` and not ``omega ||x||^2``. As gradients stop
    changing the shift reaches them, on each worker its own, and the variance goes to 0. With unbiased messages a
    shift that took all of each would not come nearer: at a rate of at most ``1 / (1 + omega)`` its expected squared
    distance falls by ``1 - rate`` with every message.

    Args:
        rate: alpha; if it is left out, ``1 / (1 + omega)`` of the method's compressor on the model's segments.

    Raises:
        ConfigError: a rate out of range.

    Example:
        >>> from thinwire.compressors import Identity
        >>> memory, whole = Shift(0.5), Segments.whole(2)
        >>> state = memory.init(torch.zeros(2))
        >>> for _ in range(2):
        ...     payload, state = memory.compress(torch.tensor([1.0, 4.0]), Identity(), Key(0), whole, state)
        >>> payload.to_dense().tolist(), state["estimate"].tolist()
        ([0.5, 2.0], [0.75, 3.0])
    """

    rate: float | None = None

    needs_contraction: ClassVar[bool] = False
    """The rate makes up for the variance."""

    keeps_only_losses: ClassVar[bool] = False
    """It keeps what was sent."""

    can_restart: ClassVar[bool] = False
    """Receivers have the mean of the shifts."""

    def __post_init__(self) -> None:
        check_types(self)
        check_rate(self.rate, "Shift")

    @property
    def change_rate(self) -> float | None:
        """The rate."""
        return self.rate

    def tuned(self, traits: Traits) -> "Shift":
        """With ``1 / (1 + omega)`` where no rate was given.

        Raises:
            ConfigError: the compressor is biased.
        """
        omega = omega_of(traits, self)
        return self if self.rate is not None else replace(self, rate=1.0 / (1.0 + omega))

    def init(self, like: Tensor) -> State:
        """A shift of zeros."""
        return {"estimate": zeros(like.numel(), like.device)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The difference, written over ``x``."""
        return torch.sub(x, state["estimate"], out=x), {"estimate": copy_of(state["estimate"])}

    def commit(self, sent: Payload, state: State) -> State:
        """The decoded message is added, times the rate."""
        sent.add_to(state["estimate"], known_rate(self.rate, "Shift"))
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the difference."""
        return compress_in_steps(self, x, compressor, key, segments, state)
