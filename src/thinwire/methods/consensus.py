"""Decentralised averaging: each worker keeps a model of its own and draws near its neighbours'."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.kernels.reduce.compensated import add_compensated
from thinwire.layout import State


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """``x_i = x_i' + gamma (sum_j w_ij xhat_j - xhat_i)``, ``x_i'`` the model after the local steps (CHOCO-SGD).

    ``xhat_i`` is what the neighbours know of worker ``i``: the sum of all its messages. A worker sends
    ``q_i = C(x_i' - xhat_i)``, all add it to ``xhat_i``, then mix (Koloskova, Stich, Jaggi 2019: compress, then mix).
    It is a memory of its own: what a message leaves out is in the next difference. A worker stores ``xhat_i`` and
    ``s_i = sum_j w_ij xhat_j``, not its neighbours' models. The mean of the models is that of the ``x_i'``, whatever
    the compressor. With exact messages and ``gamma = 1`` it is ``x = W x'``: D-PSGD (Lian et al. 2017).

    Both sums grow by every message, and what they say of each other must stay true: an error of theirs would move the
    models again at every exchange, for ever. So each is kept with what rounding took from it, and they go with an
    exchange that loses nothing either (:class:`thinwire.exchanges.Gossip`).

    ``xhat`` starts at the common initial parameters, where the paper starts at 0 and sends those first.

    Args:
        gamma: step size of the consensus; the coarser the compressor the smaller. The one that
            is proven to converge, :func:`thinwire.theory.gossip.choco_consensus_step`, is far below the best: tune it.

    Raises:
        ConfigError: ``gamma`` not above 0.
    """

    gamma: float = 1.0

    needs_fixed_graph: ClassVar[bool] = True
    """The weighted sum is of the same neighbours' messages."""
    needs_exact: ClassVar[bool] = False
    """What a message leaves out is in the next."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.gamma > 0.0:
            raise ConfigError(f"a consensus step of gamma = {self.gamma} was given; it must be above 0")

    def init(self, params: Tensor) -> State:
        """What is public of the worker itself, and the weighted sum of what is of its neighbours (itself included)."""
        return {
            "public": copy_of(params),
            "public_rounding": torch.zeros_like(params),
            "neighbours": copy_of(params),
            "neighbours_rounding": torch.zeros_like(params),
        }

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """``params - public``."""
        return read(None).sub_(state["public"]).sub_(state["public_rounding"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """Take up the messages, then a step towards the neighbours."""
        _take_up(aggregate, state)
        public, neighbours = state["public"], state["neighbours"]
        # The difference of the vectors is exact where they are close, and then what rounding took from them counts.
        pull = torch.sub(neighbours, public).add_(state["neighbours_rounding"]).sub_(state["public_rounding"])
        return local().add_(pull, alpha=self.gamma)

    def step(self, aggregate: Aggregate, state: State) -> Tensor:
        """Take up the messages; the step alone, in f64, for who adds steps up: those of all workers add up to 0."""
        _take_up(aggregate, state)
        pull = torch.sub(state["neighbours"].to(torch.float64), state["public"])
        return pull.add_(state["neighbours_rounding"]).sub_(state["public_rounding"]).mul_(self.gamma)


def _take_up(aggregate: Aggregate, state: State) -> None:
    add_compensated(state["public"], state["public_rounding"], aggregate.sent.to_dense())
    add_compensated(state["neighbours"], state["neighbours_rounding"], aggregate.mean)
