"""One worker collects, averages and broadcasts."""

from dataclasses import dataclass
from typing import ClassVar

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import EXACT_KINDS
from thinwire.exchanges.recompression import (
    check_remember,
    check_second,
    max_exact_num_bytes,
    max_relayed_num_bytes,
    recompress,
    relayed_kinds,
    smallest_exact,
)
from thinwire.exchanges.star import collect, spread
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.steps import Steps, receive, send
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True)
class ParameterServer:
    """Workers send their message to worker ``server``, which averages them in rank order and broadcasts the mean.

    The mean travels in f32, as the entries that are not zero or as the dense vector, whichever is encoded
    smaller: the union of sparse messages fills in as workers are added. Or it is compressed by ``downlink``, and what
    that leaves out is added to the next mean: ``v = mean + D``, all go on with ``C(v)``, ``D = v - C(v)``
    (DoubleSqueeze, Tang et al. 2019). Up: one message a worker. Down: the aggregate. The server takes part as a
    worker, so its own link carries P - 1 times as much; the mean over workers is what comparisons report.

    Args:
        server: the worker that averages.
        downlink: what compresses the mean.
        remember: whether the server keeps what ``downlink`` leaves out; ``False`` is for unbiased operators.

    Raises:
        ConfigError: ``remember=False`` without ``downlink``.
    """

    server: int = 0
    downlink: Compressor | None = None
    remember: bool = True

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = True
    """All get the server's message."""

    def __post_init__(self) -> None:
        check_types(self)
        check_remember(self.downlink, self.remember, "downlink")

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """At the server what ``downlink`` left out: nothing yet.

        Raises:
            ConfigError: the server is none of the workers, or ``downlink`` does not fit the vector.
        """
        if not 0 <= self.server < ctx.size:
            raise ConfigError(f"worker {self.server} is to be the server, but there are workers 0 to {ctx.size - 1}")
        check_second(self.downlink, self.remember, "downlink", ctx.segments, ctx.device)
        keeps = self.downlink is not None and self.remember and ctx.rank == self.server
        return {"left": zeros(ctx.segments.numel, ctx.device)} if keeps else {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One round up and down."""
        sent = sender.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        read = ctx.reader.with_kinds(self._kinds(ctx)).vector
        if ctx.rank != self.server:
            yield from send(self.server, message)
            mean, finite = yield from receive(self.server, read, self._max_num_bytes(ctx))
        else:
            total, _ = ctx.reader.mean((yield from collect(message, ctx)))
            if self.downlink is None:
                broadcast = encode(smallest_exact(total))
            else:
                if state:
                    total += state["left"]
                broadcast = encode(recompress(total, self.downlink, ctx.key.fold("downlink"), ctx.segments))
                state = {"left": total} if state else {}
            yield from spread(broadcast, ctx)
            mean, finite = read(broadcast)
        return Aggregate(mean, finite, message.numel(), sent, ctx.size, state)

    def _max_num_bytes(self, ctx: Context) -> int:
        if self.downlink is None:
            return max_exact_num_bytes(ctx.segments.numel)
        return max_relayed_num_bytes(self.downlink, ctx.segments)

    def _kinds(self, ctx: Context) -> frozenset[int]:
        return EXACT_KINDS if self.downlink is None else relayed_kinds(self.downlink, ctx.segments)
