"""How workers learn of a number that is none where messages cannot say it."""

from torch import Tensor

from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import EXACT_KINDS
from thinwire.memory.sender import first_nonfinite
from thinwire.steps import Steps, all_gather
from thinwire.wire import encode


def tell_unfit(x: Tensor, num_bytes: int, ctx: Context) -> Steps[Aggregate]:
    """One round more, in which all hear of the entries that are NaN or infinite; the aggregate is not finite.

    Args:
        x: the worker's vector, which may be fit itself.
        num_bytes: what it handed over before.
        ctx: of the exchange.
    """
    own = first_nonfinite(x)
    mean, finite = yield from all_gather(encode(own), ctx.reader.with_kinds(EXACT_KINDS).mean, ctx.max_num_bytes)
    return Aggregate(mean, finite, num_bytes, own, ctx.size)
