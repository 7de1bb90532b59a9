"""Exact inside an island of workers, compressed between islands."""

import functools
from dataclasses import dataclass
from typing import ClassVar

from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import EXACT_KINDS
from thinwire.exchanges.recompression import max_exact_num_bytes, smallest_exact
from thinwire.kernels.flat.finite import divide_finite, is_finite
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Dense, Payload
from thinwire.steps import Steps, as_it_is, receive, send
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True)
class Hierarchical:
    """Islands of ``island`` consecutive workers; links inside them are wide, those between them thin.

    Workers send their vector to the island's first worker, its leader, in f32. The leader adds them up in rank order
    and compresses the sum, with its memory, for the leaders of the other islands. Each adds up all leaders' messages
    in order, and sends the mean to its island, exact, dense or sparse. So only leaders compress and remember, and only
    they use the links between islands, once for each other island. The last island may be smaller.

    A worker's message is what it sends: a leader's the compressed one, the others' ``4 d`` bytes. All bytes are
    counted on the link of the worker that sends or receives them, inside islands too.

    Raises:
        ConfigError: islands of less than one worker.
    """

    island: int

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = True
    """All leaders add up the same messages in the same order."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.island < 1:
            raise ConfigError(f"islands of {self.island} workers were asked for; at least 1 is needed")

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered."""
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """To the leader, between leaders, back."""
        numel, vector = ctx.segments.numel, x.take()
        leader = ctx.rank - ctx.rank % self.island
        exact = ctx.reader.with_kinds(EXACT_KINDS)
        if ctx.rank != leader:
            message = encode(Dense(vector))
            yield from send(leader, message)
            mean, finite = yield from receive(leader, exact.vector, max_exact_num_bytes(numel))
            return Aggregate(mean, finite, message.numel(), exact.payload(message), ctx.size)
        members = range(leader + 1, min(leader + self.island, ctx.size))
        for member in members:
            part: Payload = yield from receive(
                member,
                functools.partial(exact.part, what=f"the vector of worker {member}"),
                max_exact_num_bytes(numel),
            )
            part.add_to(vector)
        is_sound = is_finite(vector)
        sent = sender.compress(Handed(vector), ctx.key, ctx.segments) if is_sound else first_nonfinite(vector)
        message = encode(sent)
        leaders = range(0, ctx.size, self.island)
        others = [other for other in leaders if other != leader]
        for other in others:
            yield from send(other, message)
        messages = {leader: message}
        for other in others:
            messages[other] = yield from receive(other, as_it_is, ctx.max_num_bytes)
        total = ctx.reader.sum(ctx.reader.part(messages[each], f"the message of worker {each}") for each in leaders)
        divide_finite(total, ctx.size)
        broadcast = encode(smallest_exact(total))
        for member in members:
            yield from send(member, broadcast)
        mean, finite = exact.vector(broadcast)
        return Aggregate(mean, finite, message.numel(), sent, ctx.size)
