"""What is exchanged of a gradient, and what the optimizer gets of the mean."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.steps import Steps


@runtime_checkable
class Direction(Protocol):
    """An optimizer's rule whose state all workers have in common. Implementations are frozen dataclasses.

    It is for gradients what :class:`thinwire.methods.Update` is for models. The optimizer of the script steps along
    what :meth:`apply` gives: plain SGD is the rule with the script's learning rate.
    """

    def init(self, ctx: Context) -> State:
        """The state before the first exchange: vectors f32 ``[d]``, or tensors called ``kind.parameter``."""
        ...

    def signal(self, x: Tensor, ctx: Context, state: State) -> tuple[Tensor, State]:
        """The vector to exchange, which may be written over ``x``; and the state, with what :meth:`apply` needs.

        ``state`` is not changed. Where ``x`` is not finite the vector must not be, at the same first place.
        """
        ...

    def apply(self, mean: Tensor, ctx: Context, state: State) -> tuple[Tensor, State]:
        """What the optimizer gets, f32 ``[d]``, and the state once the exchange counts.

        Neither the mean, which may become part of the next state, nor the state of :meth:`signal` is changed. On
        workers that have the same of both, the results have the same bits.
        """
        ...


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Directed:
    """Workers exchange what a direction makes of their gradients, by ``exchange``, and go on with its step.

    So a momentum is what is compressed, and what a preconditioner divides is common to all (1-bit Adam). It costs no
    bytes. The state of the direction is kept beside what the inner exchange remembers: it counts when the exchange
    does, is saved by parameter name, and is copied to workers that join.

    Args:
        direction: what is exchanged, and what becomes of the mean.
        exchange: by which messages become a mean.
    """

    direction: Direction
    exchange: Exchange = Gather()

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def needs_linear(self) -> bool:
        """As the inner exchange."""
        return self.exchange.needs_linear

    @property
    def workers_agree(self) -> bool:
        """As the inner exchange."""
        return self.exchange.workers_agree

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """What the direction remembers, beside what the inner exchange does."""
        own = {_MARK + name: tensor for name, tensor in self.direction.init(ctx).items()}
        return own | self.exchange.init(ctx, compressor)

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """The inner exchange of a signal, and the step that its mean makes."""
        own = {name.removeprefix(_MARK): tensor for name, tensor in state.items() if name.startswith(_MARK)}
        inner = {name: tensor for name, tensor in state.items() if not name.startswith(_MARK)}
        signal, own = self.direction.signal(x.take(), ctx, own)
        handed = Handed(signal)
        del signal
        aggregate = yield from self.exchange.run(handed, sender, ctx, inner)
        if not aggregate.finite:
            return aggregate
        step, following = self.direction.apply(aggregate.mean, ctx, own)
        kept = {_MARK + name: tensor for name, tensor in following.items()}
        return replace(aggregate, result=step, finite=is_finite(step), state=kept | aggregate.state)


_MARK = "direction_"
"""Before the names of what the direction remembers, which are then no names of an exchange's."""
