"""What is exchanged under model averaging, and what becomes of the mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thinwire.arrays import blocks, copy_of, zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.layout import State

POINTS = ("reference", "start")
"""What updates call, in their states, points that training goes on from: values that all have loaded are such."""


@runtime_checkable
class Update(Protocol):
    """Owns the reference point: the model that all workers share."""

    def init(self, params: Tensor) -> State:
        """The state at the common initial parameters (f32 ``[d]``, not kept)."""
        ...

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """The vector to exchange, f32 ``[d]``, which is the caller's.

        ``read(None)`` are the worker's own parameters in a new vector, and ``read(x)`` is ``x - params``, at the cost
        of one pass.
        """
        ...

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """The worker's new parameters (f32 ``[d]``; may be a tensor of the state).

        ``local()`` reads the worker's own parameters, as they are now, into a new f32 ``[d]``: a pass over memory
        for those that need it. The aggregate is not modified; of the state, any tensor may be.
        """
        ...


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """SGD on the workers' mean displacement: ``v = mu v + D``; ``x -= lr v`` (or ``lr (D + mu v)``, Nesterov).

    ``D`` is the mean over workers of ``reference - params``. The default is plain averaging; ``lr = 0.7``,
    ``momentum = 0.9``, ``nesterov`` is DiLoCo's outer optimizer.

    With ``mix`` a worker goes on with ``mix local + (1 - mix) x`` instead of ``x`` (Streaming DiLoCo, Douillard et
    al. 2025): what it did since its part of ``D`` was sent is not lost when the result comes late.

    Args:
        lr: outer learning rate.
        momentum: outer momentum, mu.
        nesterov: whether the outer momentum is Nesterov's.
        mix: share of the worker's own parameters that is kept, at least 0, below 1.

    Raises:
        ConfigError: ``lr`` not above 0, ``momentum`` or ``mix`` outside [0, 1), or ``nesterov`` without momentum.
    """

    lr: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False
    mix: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        check_outer(self.lr, self.momentum, self.nesterov)
        if not 0.0 <= self.mix < 1.0:
            raise ConfigError(
                f"mix = {self.mix} was given; it is the share of its own parameters that a worker keeps, 0 or more and "
                "below 1"
            )

    def init(self, params: Tensor) -> State:
        """A copy of the parameters, and a velocity if there is momentum."""
        velocity = {"velocity": zeros(params.numel(), params.device)} if self.momentum else {}
        return {"reference": copy_of(params), **velocity}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """``reference - params``."""
        return read(state["reference"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """Move the reference and return it, or what the worker mixes of it and its own parameters."""
        reference = state["reference"]
        if self.momentum:
            # In blocks, so that steps in between take no memory of the model's length.
            for mean, velocity, point in zip(*map(blocks, (aggregate.mean, state["velocity"], reference)), strict=True):
                velocity.mul_(self.momentum).add_(mean)
                step = mean + self.momentum * velocity if self.nesterov else velocity
                point.sub_(step if self.lr == 1.0 else self.lr * step)
        else:
            aggregate.add_to(reference, -self.lr)
        if not self.mix:
            return reference
        own = local()
        return torch.lerp(reference, own, self.mix, out=own)


def check_outer(lr: float, momentum: float, nesterov: bool) -> None:
    """Raise :class:`ConfigError` unless these make an outer step."""
    if not lr > 0.0 or not 0.0 <= momentum < 1.0:
        raise ConfigError(
            f"an outer step with lr {lr} and momentum {momentum} was given; "
            "lr must be above 0 and momentum at least 0, below 1"
        )
    if nesterov and momentum == 0.0:
        raise ConfigError("nesterov has no effect without momentum; give an outer momentum or leave it out")
