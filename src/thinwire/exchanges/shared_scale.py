"""All workers quantize against one scale."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thinwire.compressors.base import Compressor, Traits
from thinwire.config import check_types, register
from thinwire.errors import ConfigError, ProtocolError
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.exchanges.reading import EXACT_KINDS, MessageReader
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import MemorySender, Sender, first_nonfinite
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.random import Key
from thinwire.steps import Steps, all_gather
from thinwire.wire import encode, max_num_bytes


@runtime_checkable
class Scalable(Compressor, Protocol):
    """A compressor that can be given the scale of each segment."""

    def scales(self, x: Tensor, segments: Segments) -> Tensor:
        """The scale that it would choose for each segment: f32 ``[segments.count]``."""
        ...

    def compress_at(self, x: Tensor, own: Tensor, shared: Tensor, key: Key, segments: Segments) -> Payload:
        """Compress against ``shared``, nowhere less than ``own``, the scales of ``x`` itself."""
        ...


@register
@dataclass(frozen=True, slots=True)
class SharedScale:
    """Workers gather the scales of their segments and quantize against the largest, then join in ``exchange``.

    All messages are then multiples of the same units: TernGrad's "scaler sharing". The mean of P ternary messages has
    ``2 P + 1`` possible values. It costs a gather of one f32 a segment, and rounds more coarsely than a worker's own
    scale would.

    Args:
        exchange: by which the messages become a mean.
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
        """What the inner exchange remembers.

        Raises:
            ConfigError: the compressor has no scales to share.
        """
        if not isinstance(compressor, Scalable):
            raise ConfigError(f"{compressor} has no scale that workers could share; SharedScale takes TernGrad")
        return self.exchange.init(ctx, compressor)

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """A gather of scales, then the inner exchange."""
        intended, compressor = sender.add_residual(x), sender.compressor
        assert isinstance(compressor, Scalable)
        own = compressor.scales(intended, ctx.segments) if is_finite(intended) else None
        message = encode(Dense(own) if own is not None else first_nonfinite(intended))
        longest = max_num_bytes(Dense(torch.empty(ctx.segments.count, dtype=torch.float32, device="meta")))
        combine = functools.partial(largest_scales, reader=ctx.reader, num_scales=ctx.segments.count)
        found = yield from all_gather(message, combine, max(longest, ctx.max_num_bytes))
        if isinstance(found, Sparse):
            return Aggregate(found.to_dense(), False, message.numel(), found, ctx.size)
        assert own is not None  # else what was found would be sparse
        inner = MemorySender(_AtScale(compressor, own, found))
        aggregate = yield from self.exchange.run(Handed(intended), inner, replace(ctx, keeps_sent=True), state)
        sender.commit(aggregate.sent)
        return replace(aggregate, message_bytes=aggregate.message_bytes + message.numel())


@dataclass(frozen=True, slots=True, eq=False)
class _AtScale:
    """A compressor with its scales."""

    inner: Scalable
    own: Tensor
    shared: Tensor

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        return self.inner.compress_at(x, self.own, self.shared, key, segments)

    def outline(self, segments: Segments) -> Payload:
        return self.inner.outline(segments)

    def traits(self, numel: int) -> Traits:
        return self.inner.traits(numel)


def largest_scales(messages: Sequence[Tensor], reader: MessageReader, num_scales: int) -> Tensor | Sparse:
    """The largest scale of each segment; if some worker's vector is not finite, the first such entry."""
    either = reader.with_kinds(EXACT_KINDS).with_numel(max(reader.numel, num_scales))
    payloads = [either.payload(message) for message in messages]
    for rank, payload in enumerate(payloads):
        expected = reader.numel if isinstance(payload, Sparse) else num_scales
        if payload.numel != expected:
            raise ProtocolError(
                f"worker {rank} sent {payload.numel} scales or entries where {expected} were expected; all workers "
                "must train the same model with the same method"
            )
    for payload in payloads:
        if isinstance(payload, Sparse):
            return payload
    return torch.stack([payload.to_dense() for payload in payloads]).amax(dim=0)
