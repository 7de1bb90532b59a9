"""Each worker has one vote for each entry."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import MessageReader
from thinwire.exchanges.star import collect, spread
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.quantize.signs import sign_bits
from thinwire.kernels.quantize.signs_add import add_signs
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Payload, Signs
from thinwire.steps import Steps, all_gather, receive, send
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True)
class MajorityVote:
    """The sign of the sum of the workers' signs: 1 or -1 for every entry, whatever the messages' scales.

    A tie of an even number of workers goes to 1, as does a zero of ``PlainSign``: one bit cannot abstain. By
    ``server`` the votes go to one worker, which sends the outcome back: one bit an entry up and one down. By
    ``gather`` each worker gets all votes and counts them itself: one bit up, P - 1 down, one round less.

    Args:
        route: ``server`` or ``gather``.
        server: the worker that counts; without effect on ``gather``.

    Raises:
        ConfigError: an unknown route.
    """

    route: Literal["server", "gather"] = "server"
    server: int = 0

    needs_linear: ClassVar[bool] = False
    """Votes are decoded before they are counted."""

    workers_agree: ClassVar[bool] = True
    """All get the outcome of one count, or count the same votes."""

    def __post_init__(self) -> None:
        check_types(self)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered.

        Raises:
            ConfigError: the server is none of the workers, or messages are not signs.
        """
        if not 0 <= self.server < ctx.size:
            raise ConfigError(f"worker {self.server} is to count votes, but there are workers 0 to {ctx.size - 1}")
        if not isinstance(compressor.outline(ctx.segments), Signs):
            raise ConfigError(f"{compressor} sends no signs that could be counted; a majority vote takes PlainSign()")
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One round up and down, or one all-gather."""
        sent = sender.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        if self.route == "gather":
            combine = functools.partial(_count, reader=ctx.reader)
            outcome = yield from all_gather(message, combine, ctx.max_num_bytes)
        elif ctx.rank != self.server:
            yield from send(self.server, message)
            read = functools.partial(ctx.reader.part, what="the outcome of the votes")
            outcome = yield from receive(self.server, read, ctx.max_num_bytes)
        else:
            outcome = _count((yield from collect(message, ctx)), ctx.reader)
            yield from spread(encode(outcome), ctx)
        return Aggregate(outcome.to_dense(), isinstance(outcome, Signs), message.numel(), sent, ctx.size)


def _count(messages: Sequence[Tensor], reader: MessageReader) -> Payload:
    """The outcome; if a worker had no signs to send, its first offending entry."""
    total = zeros(reader.numel, reader.device)
    whole = Segments.whole(reader.numel)
    ones = torch.ones(whole.count, dtype=torch.float32, device=total.device)
    for vote in reader.parts(messages):
        if isinstance(vote, Signs):
            add_signs(vote.bits, ones, whole.offsets(), total)
        else:
            vote.add_to(total)
    return Signs(sign_bits(total), ones, whole) if is_finite(total) else first_nonfinite(total)
