"""Messages are added up a tree, and the sum is broadcast down."""

import functools
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from thinwire.arrays import copy_of, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import MessageReader
from thinwire.exchanges.recompression import (
    check_remember,
    check_second,
    max_exact_num_bytes,
    max_relayed_num_bytes,
    recompress,
    relayed_kinds,
    smallest_exact,
)
from thinwire.kernels.flat.finite import divide_finite
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Payload
from thinwire.steps import Steps, receive, send
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Worker ``r`` adds its children's vectors (``arity * r + 1, ...``) to its own message and sends the sum up.

    The root, worker 0, sends the sum of all down the same tree. No worker has more than ``arity + 1`` neighbours, and
    a message goes ``2 log P`` hops. With ``merge`` every sum is compressed again before it goes on, the root's
    included, so that it does not fill in: ``m = C(left + q + q_1 + ... + q_arity)``, and ``left`` becomes what ``m``
    leaves out. Nothing is lost: the workers' vectors together are P times the mean, plus what their memories and what
    the inner nodes keep. With ``merge`` a top-k this is gTop-k (Shi et al. 2019), whose evicted entries wait for the
    next exchange where they were evicted. Without it sums travel exactly, dense or sparse, whichever is shorter.

    Sums are taken in the order above, and so have the same bits in a simulation and over processes.

    Args:
        arity: children of a node.
        merge: what compresses sums.
        remember: whether inner nodes keep what ``merge`` leaves out; ``False`` is for unbiased operators.

    Raises:
        ConfigError: less than one child, or ``remember=False`` without ``merge``.
    """

    arity: int = 2
    merge: Compressor | None = None
    remember: bool = True

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = True
    """All get the root's message."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.arity < 1:
            raise ConfigError(f"a tree whose nodes have {self.arity} children was asked for; at least 1 is needed")
        check_remember(self.merge, self.remember, "merge")

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """At inner nodes what ``merge`` left out: nothing yet.

        Raises:
            ConfigError: ``merge`` does not fit the vector, or is no contraction and is to be remembered.
        """
        check_second(self.merge, self.remember, "merge", ctx.segments, ctx.device)
        keeps = self.merge is not None and self.remember and self._children(ctx)
        return {"left": zeros(ctx.segments.numel, ctx.device)} if keeps else {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """Up and down once."""
        numel, children = ctx.segments.numel, self._children(ctx)
        sent = sender.compress(x, ctx.key, ctx.segments)
        message = up = encode(sent)
        longest = max_exact_num_bytes(numel) if self.merge is None else max_relayed_num_bytes(self.merge, ctx.segments)
        kinds = ctx.kinds
        if kinds is not None and self.merge is not None:
            kinds |= relayed_kinds(self.merge, ctx.segments)
        reader = ctx.reader.with_kinds(kinds)
        if children:
            total = copy_of(state["left"]) if state else zeros(numel, ctx.device)
            sent.add_to(total)
            for child in children:
                payload: Payload = yield from receive(
                    child,
                    functools.partial(reader.part, what=f"the message of worker {child}"),
                    max(longest, ctx.max_num_bytes),
                )
                payload.add_to(total)
            if self.merge is None:
                up = encode(smallest_exact(total))
            else:
                up = encode(recompress(total, self.merge, ctx.key.fold("merge"), ctx.segments))
            state = {"left": total} if state else {}
        read = functools.partial(_read, reader=reader, size=ctx.size)
        if ctx.rank == 0:
            down, mean, finite = read(up)
        else:
            parent = (ctx.rank - 1) // self.arity
            yield from send(parent, up)
            down, mean, finite = yield from receive(parent, read, max(longest, ctx.max_num_bytes))
        for child in children:
            yield from send(child, down)
        return Aggregate(mean, finite, message.numel(), sent, ctx.size, state)

    def _children(self, ctx: Context) -> range:
        first = self.arity * ctx.rank + 1
        return range(min(first, ctx.size), min(first + self.arity, ctx.size))


def _read(message: Tensor, reader: MessageReader, size: int) -> tuple[Tensor, Tensor, bool]:
    mean = reader.part(message, "the sum of all").to_dense()
    return message, mean, divide_finite(mean, size)
