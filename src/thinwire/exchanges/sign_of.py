"""Go on with signs."""

from dataclasses import dataclass, replace

from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.steps import Steps


@register
@dataclass(frozen=True, slots=True)
class SignOf:
    """The sign of each entry of the mean that ``exchange`` finds: 1, -1, or 0 for 0.

    It is taken after the exchange and costs no bytes; what messages say, and so what memories keep, is unchanged.

    Args:
        exchange: by which messages become a mean.
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
        """What the inner exchange remembers."""
        return self.exchange.init(ctx, compressor)

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """The inner exchange, and a sign."""
        aggregate = yield from self.exchange.run(x, sender, ctx, state)
        return replace(aggregate, result=aggregate.mean.sign()) if aggregate.finite else aggregate
