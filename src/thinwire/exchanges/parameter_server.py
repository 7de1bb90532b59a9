"""One worker collects, averages and broadcasts."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.compressors.base import Compressor
from thinwire.config import register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.gather import mean_of
from thinwire.kernels.finite import is_finite
from thinwire.layout import State
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.steps import Steps, as_it_is, receive, send
from thinwire.wire import decode, encode, encoded_num_bytes, max_num_bytes


@register
@dataclass(frozen=True, slots=True)
class ParameterServer:
    """Workers send their message to worker ``server``, which averages them in rank order and broadcasts the mean.

    The mean travels in f32, as the entries that are not zero or as the dense vector, whichever is encoded
    smaller: the union of sparse messages fills in as workers are added. Up: one message a worker. Down: the
    aggregate. The server takes part as a worker, so its own link carries P - 1 times as much; the mean over
    workers is what comparisons report.
    """

    server: int = 0

    @property
    def needs_linear(self) -> bool:
        """Messages are decoded before they are added."""
        return False

    @property
    def is_common(self) -> bool:
        """All add up the same vectors in the same order."""
        return True

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered.

        Raises:
            ConfigError: the server is none of the workers.
        """
        if not 0 <= self.server < ctx.size:
            raise ConfigError(f"worker {self.server} is to be the server, but there are workers 0 to {ctx.size - 1}")
        return {}

    def run(self, x: Tensor, compressor: Compressor, ctx: Context, state: State) -> Steps[Aggregate]:
        """One round up and down."""
        sent = compressor.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        read = functools.partial(_read, numel=x.numel())
        if ctx.rank != self.server:
            yield from send(self.server, message)
            mean, finite = yield from receive(self.server, read, _max_mean_num_bytes(x.numel()))
        else:
            messages = []
            for rank in range(ctx.size):
                messages.append(
                    message if rank == ctx.rank else (yield from receive(rank, as_it_is, ctx.max_num_bytes))
                )
            broadcast = encode(smallest_exact(mean_of(messages, x.numel())[0]))
            for rank in range(ctx.size):
                if rank != ctx.rank:
                    yield from send(rank, broadcast)
            mean, finite = read(broadcast)
        return Aggregate(mean, finite, message.numel(), sent, ctx.size)


def _max_mean_num_bytes(numel: int) -> int:
    """What :func:`smallest_exact` takes at most: it sends nothing longer than the dense vector."""
    return max_num_bytes(Dense(torch.empty(numel, device="meta")))


def _read(message: Tensor, numel: int) -> tuple[Tensor, bool]:
    mean = decode(message, max_numel=numel).to_dense()
    return mean, is_finite(mean)


def smallest_exact(vector: Tensor) -> Payload:
    """The vector, exact up to the sign of zero, dense or sparse, whichever is encoded in fewer bytes."""
    dense = Dense(vector)
    indices = vector.nonzero().reshape(-1)
    sparse = Sparse(vector.numel(), indices, Dense(vector[indices]))
    return sparse if encoded_num_bytes(sparse) < encoded_num_bytes(dense) else dense
