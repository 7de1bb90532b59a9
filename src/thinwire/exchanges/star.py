"""One worker hears all others, and all hear it."""

from torch import Tensor

from thinwire.exchanges.base import Context
from thinwire.steps import Steps, as_it_is, receive, send


def collect(message: Tensor, ctx: Context) -> Steps[list[Tensor]]:
    """Everyone's messages in rank order, at the worker in the middle, whose own is ``message``."""
    messages = []
    for rank in range(ctx.size):
        messages.append(message if rank == ctx.rank else (yield from receive(rank, as_it_is, ctx.max_num_bytes)))
    return messages


def spread(message: Tensor, ctx: Context) -> Steps[None]:
    """The message of the worker in the middle to all others."""
    for rank in range(ctx.size):
        if rank != ctx.rank:
            yield from send(rank, message)
