"""Workers exchange messages with their neighbours in a graph only."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor
from thinwire.compressors.seeded_rand_k import common_key
from thinwire.config import check_types, register
from thinwire.errors import NumericsError, ProtocolError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.changing_graphs import ChangingGraph, weights_of
from thinwire.exchanges.graphs import Graph, Ring, mixing_row
from thinwire.exchanges.reading import MessageReader
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.reduce.compensated import split_rounding
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Payload
from thinwire.steps import Steps, all_reduce, receive, send
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    """``mean_i = sum_j w_ij q_j`` over the worker's neighbours and itself, in rank order, ``w`` Metropolis weights.

    Each worker has a mean of its own; it sends its message once to each neighbour, whatever the number of workers.
    What rounding to f32 takes from a mean is added to the next one, so that the means of any number of exchanges add up
    to the weighted sum of all messages: workers that keep such sums would else drift, a little at every exchange.

    A vector that is not finite is seen by the worker's neighbours in the same exchange, and not by workers further
    away, which would wait for them in the next. In a simulation the first that raises ends the run. Over processes
    the others end with an error that names the neighbour. With ``agree`` all see it at once, as with every other
    exchange: one number is summed over all workers, which costs two latencies, and at most 8 bytes a worker on average.

    Args:
        graph: who talks to whom; the same in every exchange, or in each anew.
        agree: whether all workers find out together that somebody's vector is not finite.
    """

    graph: Graph | ChangingGraph = Ring()
    agree: bool = False

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = False
    """Each has its own neighbours."""

    def __post_init__(self) -> None:
        check_types(self)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """What rounding has taken from the means so far: zeros.

        Raises:
            ConfigError: there is no such graph on so many workers, or it is not connected.
        """
        self._neighbours(ctx)
        return {"rounding": zeros(ctx.layout.numel, ctx.device)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One message to each neighbour."""
        row, listeners = self._neighbours(ctx)
        sent = sender.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        for rank in listeners:
            yield from send(rank, message)
        payloads: dict[int, Payload] = {ctx.rank: sent}
        for rank in row:
            if rank == ctx.rank:
                continue
            payloads[rank] = yield from receive(
                rank, functools.partial(_read, reader=ctx.reader, source=rank), ctx.max_num_bytes
            )
        exact = state["rounding"].to(torch.float64)
        for rank, weight in row.items():
            exact.add_(payloads[rank].to_dense(), alpha=weight)
        mean, rounding = split_rounding(exact)
        finite = is_finite(mean)
        if self.agree:
            num_ill = yield from all_reduce(zeros(1, ctx.device).fill_(not finite))
            if finite and float(num_ill) > 0.0:
                raise NumericsError(
                    "NaN or inf in the vector of a worker that is no neighbour of this one; the exchange was not "
                    "applied. Lower the learning rate, clip gradients, or look for bad input data"
                )
        return Aggregate(mean, finite, message.numel(), sent, len(row), {"rounding": rounding})

    @property
    def is_fixed(self) -> bool:
        """Whether the neighbours are the same in every exchange."""
        return not isinstance(self.graph, ChangingGraph)

    def _neighbours(self, ctx: Context) -> tuple[dict[int, float], list[int]]:
        """The weights of those that send to this worker and of itself, in rank order; and to whom it sends."""
        if isinstance(self.graph, ChangingGraph):
            rows = weights_of(self.graph, ctx.size, ctx.number, common_key(ctx.key))
            return rows[ctx.rank], [rank for rank, row in enumerate(rows) if ctx.rank in row and rank != ctx.rank]
        row = mixing_row(self.graph, ctx.size, ctx.rank)
        return row, [rank for rank in row if rank != ctx.rank]


def _read(message: Tensor, reader: MessageReader, source: int) -> Payload:
    if not message.numel():
        raise ProtocolError(
            f"worker {source} has stopped, probably at NaN or inf, of which only its neighbours know in the same "
            "exchange. Lower the learning rate, or use Gossip(agree=True)"
        )
    return reader.part(message, f"the message of worker {source}")
