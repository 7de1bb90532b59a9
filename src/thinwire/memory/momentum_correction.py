"""Remember velocities, not gradients: what is sent late has its momentum with it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import empty, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.layout import Segments, State
from thinwire.memory.base import compress_in_steps
from thinwire.memory.residual import ResidualDtype, add_kept, keep_residual, residual_zeros
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumCorrection:
    """``u = momentum * u + x; v = v + u``, send ``q = C(v)``, keep ``v = v - q``, and ``u = 0`` where q says something.

    Error feedback alone lets a momentum after the exchange see one large late gradient where there were many small
    ones; here each worker has the velocity u that its entries would have had, and accumulates velocities v. So the
    optimizer must have no momentum of its own. An entry that was sent is of stale direction: *factor masking* stops
    its velocity.

    With exact dense messages it is plain SGD with masking, SGD with momentum without.

    Args:
        momentum: factor on the velocity, in [0, 1).
        nesterov: ``u = momentum * (u + x); v = v + u + x``, as in the authors' code.
        factor_masking: whether the velocity of what is sent is set to 0.
        residual_dtype: what the accumulated velocities are kept in, as in :class:`thinwire.memory.ErrorFeedback`.

    Raises:
        ConfigError: ``momentum`` out of range, or ``nesterov`` without momentum.

    Example:
        >>> from thinwire.compressors import TopK
        >>> memory, whole = MomentumCorrection(momentum=0.5), Segments.whole(2)
        >>> state = memory.init(torch.zeros(2))
        >>> for _ in range(2):
        ...     payload, state = memory.compress(torch.tensor([1.0, 4.0]), TopK(k=1), Key(0), whole, state)
        >>> payload.to_dense().tolist(), state["residual"].tolist(), state["momentum"].tolist()
        ([0.0, 4.0], [2.5, 0.0], [1.5, 0.0])
    """

    momentum: float = 0.9
    nesterov: bool = False
    factor_masking: bool = True
    residual_dtype: ResidualDtype = "f32"

    needs_contraction: ClassVar[bool] = True
    """With an error of 1 or more the accumulated velocities may grow without bound."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum {self.momentum} was given; a velocity takes a factor from 0 to below 1")
        if self.nesterov and self.momentum == 0.0:
            raise ConfigError("nesterov has no effect without momentum; give a momentum or leave it out")

    @property
    def keeps_only_losses(self) -> bool:
        """Only if sending an entry stops its velocity."""
        return self.factor_masking

    def init(self, like: Tensor) -> State:
        """The velocity, and what has accumulated of it: zeros."""
        momentum = zeros(like.numel(), like.device)
        return {"momentum": momentum, "residual": residual_zeros(like, self.residual_dtype)}

    def add_residual(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """What has accumulated; the new velocity has the memory of ``x``."""
        accumulated = empty(x.numel(), x.device)
        if self.nesterov:
            add_kept(x, state["residual"], 1.0, accumulated)
            x.add_(state["momentum"]).mul_(self.momentum)
            accumulated.add_(x)
        else:
            # The new velocity needs a place for the product, which the new sum takes afterwards.
            torch.mul(state["momentum"], self.momentum, out=accumulated)
            x.add_(accumulated)
            add_kept(x, state["residual"], 1.0, accumulated)
        return accumulated, {"momentum": x, "residual": accumulated}

    def commit(self, sent: Payload, state: State) -> State:
        """The decoded message is subtracted, and the velocities of its entries stop."""
        sent.add_to(state["residual"], -1.0)
        if self.factor_masking:
            stop(state["momentum"], sent)
        return state

    def compress(
        self, x: Tensor, compressor: Compressor, key: Key, segments: Segments, state: State
    ) -> tuple[Payload, State]:
        """The message for the accumulated velocities."""
        return compress_in_steps(self, x, compressor, key, segments, state)

    def keep(self, state: State, present: State, key: Key) -> State:
        """What has accumulated, rounded at random where it is kept in fewer bits; the velocity as it is."""
        return keep_residual(state, present, key)


def stop(velocity: Tensor, sent: Payload) -> None:
    """Set the entries that ``sent`` speaks of to 0: listed ones, all of a dense vector, else those that are not 0.

    Example:
        >>> velocity = torch.ones(3)
        >>> stop(velocity, Sparse(3, torch.tensor([1]), Dense(torch.tensor([5.0]))))
        >>> velocity.tolist()
        [1.0, 0.0, 1.0]
    """
    match sent:
        case Sparse():
            velocity[sent.indices] = 0.0
        case Dense():
            velocity.zero_()
        case _:
            velocity.masked_fill_(sent.to_dense() != 0, 0.0)
