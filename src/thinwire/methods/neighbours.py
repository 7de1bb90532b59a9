"""What workers under gossip make of the mean of their neighbours, on graphs that may change from round to round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.layout import State
from thinwire.methods.updates import Update


@runtime_checkable
class NeighbourUpdate(Update, Protocol):
    """An update for means that each worker has of its own: it brings the workers' models together."""

    @property
    def needs_fixed_graph(self) -> bool:
        """Whether it keeps something of its neighbours that is true only as long as they are the same."""
        ...

    @property
    def needs_exact(self) -> bool:
        """Whether the worker must send exactly what it means: no compressor, no memory."""
        ...


@register
@dataclass(frozen=True, slots=True)
class Mix:
    """``x_i = sum_j w_ij x_j``, of the models themselves: D-PSGD (Lian et al. 2017), also on a graph that changes.

    Nothing is kept of anybody. :class:`Consensus` says the same of a fixed graph, where it may send less.
    """

    needs_fixed_graph: ClassVar[bool] = False
    """Models are sent as they are."""
    needs_exact: ClassVar[bool] = True
    """What a message leaves out of a model would be missing in the neighbours'."""

    def init(self, params: Tensor) -> State:
        """Nothing."""
        return {}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """The parameters themselves."""
        return read(None)

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """The weighted mean."""
        return aggregate.mean


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class OuterGossip:
    """A Nesterov outer step for neighbours, who have slow weights of their own (NoLoCo, Kolehmainen et al. 2025).

    ``d_i = mu d_i + lr mean_j D_j - gamma (s_i - mean_j s_j)``; ``s_i += d_i``; ``x_i = s_i``, where ``s_i`` are the
    slow weights, ``D_i = x_i - s_i`` what the local steps have moved the worker by, and the means are over the worker
    and its neighbours. The term of gamma draws the slow weights together: without it those of workers that never meet
    all at once would drift apart.

    One vector is sent, ``lr D_i + gamma s_i``: the step needs no more of the neighbours' than its mean.

    Args:
        lr: outer learning rate; 0.7 in the paper.
        momentum: mu; 0.5 in the paper.
        gamma: how far slow weights move to their mean. In pairs the paper proves convergence for
            ``momentum < gamma < 2 + momentum``.

    Raises:
        ConfigError: a rate not above 0, or a momentum outside of [0, 1).
    """

    lr: float = 0.7
    momentum: float = 0.5
    gamma: float = 0.7

    needs_fixed_graph: ClassVar[bool] = False
    """Slow weights are sent in each message."""
    needs_exact: ClassVar[bool] = True
    """What a message leaves out of the slow weights would be missing in the neighbours'."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.lr > 0.0 or not self.gamma > 0.0 or not 0.0 <= self.momentum < 1.0:
            raise ConfigError(
                f"an outer step with lr {self.lr}, gamma {self.gamma} and momentum {self.momentum} was given; lr and "
                "gamma must be above 0 and momentum at least 0, below 1"
            )

    def init(self, params: Tensor) -> State:
        """The slow weights, which are the common initial parameters, and a velocity."""
        return {"slow": copy_of(params), "velocity": torch.zeros_like(params)}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """``lr (params - slow) + gamma slow``."""
        return read(None).sub_(state["slow"]).mul_(self.lr).add_(state["slow"], alpha=self.gamma)

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """Move the slow weights and return them."""
        slow, velocity = state["slow"], state["velocity"]
        velocity.mul_(self.momentum).add_(aggregate.mean).sub_(slow, alpha=self.gamma)
        return slow.add_(velocity)
