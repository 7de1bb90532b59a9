"""Sum vectors that have one shape."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor
from thinwire.config import register
from thinwire.exchanges.base import Aggregate, Context
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.sparse.scatter import scatter_write
from thinwire.layout import State
from thinwire.memory.sender import Sender
from thinwire.payloads import Dense, Payload, SeededSparse, Sparse
from thinwire.steps import Steps, all_gather, all_reduce
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True)
class AllReduce:
    """Mean by reduce-scatter and all-gather of f32 numbers: ``2 (P-1)/P`` of ``4 d`` bytes each way.

    Each worker sums one shard in rank order, so the mean has the same bits in a simulation and over processes.
    Needs a linear compressor. Of one whose support all workers draw alike (``SharedSeedRandK(shared=True)``,
    ``BlockRandK(shared=True)``) only the ``k`` values are summed, and one number that says whether all are finite.
    No message is encoded: ``message_bytes`` are the ``4 d`` or ``4 (k + 1)`` bytes handed over.
    """

    needs_linear: ClassVar[bool] = True
    """Vectors are added as they are."""

    workers_agree: ClassVar[bool] = True
    """All add up the same vectors in the same order."""

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered."""
        return {}

    def run(self, x: Tensor, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-reduce; another round if something is not finite, so that all learn what."""
        payload = sender.compress(x, ctx.key, ctx.segments)
        outline = sender.compressor.outline(ctx.segments)
        if isinstance(outline, SeededSparse | Sparse) and isinstance(outline.values, Dense):
            return (yield from _few(payload, outline.values.numel, ctx))
        vector = payload.values if isinstance(payload, Dense) else payload.to_dense()
        mean = yield from all_reduce(vector, divisor=ctx.size)
        return Aggregate(mean, is_finite(mean), vector.numel() * vector.element_size(), payload, ctx.size)


def _few(payload: Payload, most: int, ctx: Context) -> Steps[Aggregate]:
    """The mean of at most ``most`` values at indices that all workers know, and how many workers have none."""
    sparse = payload.sparse() if isinstance(payload, SeededSparse) else payload
    assert isinstance(sparse, Sparse)
    values = sparse.values.to_dense()
    handed_over = zeros(most + 1, values.device)
    is_fine = is_finite(values)
    if is_fine:
        handed_over[: values.numel()] = values
    else:
        handed_over[most] = 1.0
    total = yield from all_reduce(handed_over, divisor=ctx.size)
    if float(total[most]) > 0.0:
        nothing = Sparse(payload.numel, sparse.indices[:0], Dense(values[:0]))
        told = encode(nothing if is_fine else payload)
        mean, finite = yield from all_gather(told, ctx.reader.mean, ctx.max_num_bytes)
    else:
        mean = zeros(payload.numel, values.device)
        scatter_write(sparse.indices, total[: values.numel()], mean)
        finite = is_finite(mean)
    return Aggregate(mean, finite, handed_over.numel() * handed_over.element_size(), payload, ctx.size)
