"""Messages that are changes of an estimate."""

from dataclasses import dataclass, replace

from thinwire.arrays import copy_of, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.steps import Steps


@register
@dataclass(frozen=True, slots=True)
class Accumulating:
    """Workers exchange changes by ``exchange`` and go on with ``g = g + mean``: the mean of their estimates.

    Each remembers the sum g, which is the same on all; with the memory ``EF21`` it is the mean of the estimates that
    the workers' memories hold, up to rounding.

    Args:
        exchange: by which the changes become a mean.
    """

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
        """An estimate of zeros, beside what the inner exchange remembers."""
        return {"estimate": zeros(ctx.layout.numel, ctx.device), **self.exchange.init(ctx, compressor)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """The inner exchange, and a sum."""
        inner = {name: tensor for name, tensor in state.items() if name != "estimate"}
        change = yield from self.exchange.run(x, sender, ctx, inner)
        if not change.finite:
            return change
        estimate = copy_of(state["estimate"])
        change.add_to(estimate)
        following = {"estimate": estimate, **change.state}
        return replace(change, result=estimate, finite=is_finite(estimate), state=following)
