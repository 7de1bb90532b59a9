"""Every worker gets every message."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from thinwire.compressors.base import Compressor
from thinwire.config import register
from thinwire.errors import ProtocolError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.kernels.buffers import zeros
from thinwire.kernels.finite import divide_finite
from thinwire.layout import State
from thinwire.steps import Steps, all_gather
from thinwire.wire import decode, encode


@register
@dataclass(frozen=True, slots=True)
class Gather:
    """Mean of all decoded messages, added up in rank order: P - 1 messages sent and received by each worker."""

    @property
    def needs_linear(self) -> bool:
        """Messages are decoded before they are added."""
        return False

    @property
    def is_common(self) -> bool:
        """All add up the same vectors in the same order."""
        return True

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered."""
        return {}

    def run(self, x: Tensor, compressor: Compressor, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-gather."""
        sent = compressor.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        mean, finite = yield from all_gather(message, functools.partial(mean_of, numel=x.numel()), ctx.max_num_bytes)
        return Aggregate(mean, finite, message.numel(), sent, ctx.size)


def mean_of(messages: Sequence[Tensor], numel: int) -> tuple[Tensor, bool]:
    """The mean of the vectors (``[numel]`` each) that the messages stand for, added up in order; whether it is finite.

    Raises:
        WireError: a message is not valid.
        ProtocolError: a message stands for a vector of another length.
    """
    mean = zeros(numel)
    for rank, message in enumerate(messages):
        payload = decode(message, max_numel=numel)
        if payload.numel != numel:
            raise ProtocolError(
                f"worker {rank} sent a vector of {payload.numel} entries where {numel} were expected; "
                "all workers must train the same model"
            )
        payload.add_to(mean)
    return mean, divide_finite(mean, len(messages))
