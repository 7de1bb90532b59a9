"""Outer steps with means that are one period old, so that an exchange may last as long as the local steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import blocks, copy_of, zeros
from thinwire.config import check_types, register
from thinwire.exchanges import Aggregate
from thinwire.layout import State
from thinwire.methods.updates import check_outer


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """SGD on mean displacements, one exchange late: ``x_{t+1} = OuterSGD(x_t, D_{t-1})`` (Kale et al. 2025).

    A worker's local steps of period t begin at ``x_t``; what they did, ``d_i = x_t - params``, is sent, and counts in
    the mean ``D_t`` that is applied a period later. So nothing that was done is lost, unlike with a ``delay`` of a
    whole period. ``eager`` takes the worker's own part at once, ``d_i/P + D_{t-1} - d'_i/P``, ``d'_i`` its own part of
    ``D_{t-1}``. Then workers begin at points of their own; their mean, which all know one period later, is the common
    point: it makes the same steps with ``D_t/P + (1 - 1/P) D_{t-1}``, since SGD is linear. What counts as a worker's
    own part is its message, as the others decode it.

    Args:
        lr: outer learning rate.
        momentum: outer momentum.
        nesterov: whether it is Nesterov's.
        eager: see above.

    Raises:
        ConfigError: ``lr`` not above 0, ``momentum`` outside [0, 1), or ``nesterov`` without momentum.
    """

    lr: float = 0.7
    momentum: float = 0.9
    nesterov: bool = True
    eager: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_outer(self.lr, self.momentum, self.nesterov)

    def init(self, params: Tensor) -> State:
        """The common point, its velocity and the mean that waits; the same of the worker's own, if it is eager."""
        numel, device = params.numel(), params.device
        state = {"reference": copy_of(params), "waiting": zeros(numel, device), "velocity": zeros(numel, device)}
        if self.eager:
            own = {"start": copy_of(params), "own": zeros(numel, device), "own_velocity": zeros(numel, device)}
            state |= own
        return state

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """What the local steps did: where they began, less the parameters."""
        return read(state["start" if self.eager else "reference"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """A step with the mean that waited; the new one waits."""
        waiting, mean = state["waiting"], aggregate.mean
        if not self.eager:
            self._step(state["reference"], state["velocity"], waiting)
            waiting.copy_(mean)
            return state["reference"]
        share, own, sent = 1.0 / aggregate.num_vectors, state["own"], aggregate.sent.to_dense()
        self._step(state["start"], state["own_velocity"], (sent - own) * share + waiting)
        self._step(state["reference"], state["velocity"], torch.lerp(waiting, mean, share))
        own.copy_(sent)
        waiting.copy_(mean)
        return state["start"]

    def _step(self, point: Tensor, velocity: Tensor, outer_gradient: Tensor) -> None:
        for at, speed, by in zip(*map(blocks, (point, velocity, outer_gradient)), strict=True):
            speed.mul_(self.momentum).add_(by)
            at.sub_(by + self.momentum * speed if self.nesterov else speed, alpha=self.lr)
