"""Shorter steps for messages of larger variance."""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from thinwire.arrays import over, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Payload
from thinwire.steps import Steps, all_reduce


@register
@dataclass(frozen=True, slots=True)
class VarianceScaled:
    """The mean that ``exchange`` finds, over ``||C(x)||^2 / ||x||^2``: a step size that falls as variance grows.

    An unbiased operator makes the second moment of a gradient ``1 + omega`` times as large, and the best step size of
    SGD that much smaller. Wangni et al. (2018) divide the step size by the ratio of the squared norms, which is
    ``1 + omega`` in expectation. With ``ratio`` not given it is measured at each exchange: workers add up their own
    ratios in an all-reduce of one number. The norm of ``x`` is taken before a memory adds to it.

    Args:
        exchange: by which messages become a mean.
        ratio: ``1 + omega`` if it is known, at least 1.

    Raises:
        ConfigError: a ratio below 1.
    """

    exchange: Exchange = Gather()
    ratio: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.ratio is not None and not 1.0 <= self.ratio < math.inf:
            raise ConfigError(
                f"a ratio of {self.ratio} was given; messages of an unbiased operator have a second moment of at least "
                "1 times that of the vector"
            )

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
        """The inner exchange, and one number of each worker unless the ratio is known."""
        square = _square(x.look()) if self.ratio is None else 0.0
        aggregate = yield from self.exchange.run(x, sender, replace(ctx, keeps_sent=True), state)
        if not aggregate.finite:
            return aggregate
        if self.ratio is not None:
            return replace(aggregate, result=over(aggregate.mean, self.ratio))
        ratio = yield from all_reduce(
            zeros(1, ctx.device).fill_(_ratio(aggregate.sent, square)), divisor=ctx.size, in_place=True
        )
        # Nothing is sent at all where all ratios are 0.
        mean = aggregate.mean / ratio if float(ratio) else aggregate.mean
        return replace(aggregate, result=mean, message_bytes=aggregate.message_bytes + 4)


def _square(x: Tensor) -> float:
    return float(segment_sums(x, Segments.whole(x.numel()).offsets(), 2)[:1].sum())


def _ratio(sent: Payload, square: float) -> float:
    """``||sent||^2 / square``; 1 for a vector of zeros, for which the message is right."""
    return _square(sent.to_dense()) / square if square > 0.0 else 1.0
