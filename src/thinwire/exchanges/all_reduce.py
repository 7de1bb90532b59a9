"""Sum vectors that have one shape."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thinwire.arrays import empty, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.exchanges.base import Aggregate, Context
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.sparse.scatter import scatter_write
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads import Dense, Payload, SeededSparse, Sparse
from thinwire.steps import Steps, all_gather, all_reduce
from thinwire.wire import encode

_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@register
@dataclass(frozen=True, slots=True)
class AllReduce:
    """Mean by reduce-scatter and all-gather: ``2 (P-1)/P`` of ``4 d`` bytes each way, or of ``2 d`` in 16 bits.

    Each worker sums one shard in rank order, so the mean has the same bits in a simulation and over processes.
    Needs a linear compressor. Of one whose support all workers draw alike (``SharedSeedRandK(shared=True)``,
    ``BlockRandK(shared=True)``) only the ``k`` values are summed, and one number that says whether all are finite.
    No message is encoded: ``message_bytes`` are the ``4 d`` or ``4 (k + 1)`` bytes handed over, half of it in 16 bits.

    In 16 bits the values are rounded to them, to nearest with ties to even, added and divided in f32, and the mean is
    rounded once more: its relative error is at most ``2^-8 + 2^-8`` (bf16), however many workers there are, as long as
    they do not cancel. What exceeds the largest number (65504 in f16) becomes infinite, which is found as such.

    Args:
        format: of the numbers that are handed over: ``f32``, ``bf16`` (8 bits of precision) or ``f16`` (11 bits).
    """

    format: Literal["f32", "bf16", "f16"] = "f32"

    needs_linear: ClassVar[bool] = True
    """Vectors are added as they are."""

    workers_agree: ClassVar[bool] = True
    """All add up the same vectors in the same order."""

    def __post_init__(self) -> None:
        check_types(self)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered."""
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-reduce; another round if something is not finite, so that all learn what."""
        payload = sender.compress(x, ctx.key, ctx.segments)
        outline = sender.compressor.outline(ctx.segments)
        if isinstance(outline, SeededSparse | Sparse) and isinstance(outline.values, Dense):
            return (yield from self._few(payload, outline.values.numel, ctx))
        sent = payload if ctx.keeps_sent or not isinstance(payload, Dense) else None
        vector = Handed(payload.values if isinstance(payload, Dense) else payload.to_dense())
        del payload
        mean, num_bytes = yield from self._mean(vector, ctx, in_place=not isinstance(sent, Dense))
        return Aggregate(mean, is_finite(mean), num_bytes, sent, ctx.size)

    def _mean(self, vector: Handed, ctx: Context, *, in_place: bool) -> Steps[tuple[Tensor, int]]:
        """The workers' mean in f32, and the bytes handed over for it."""
        own = vector.take()
        handed_over = own.to(_DTYPES[self.format])
        in_place |= handed_over is not own
        del own
        mean = yield from all_reduce(handed_over, divisor=ctx.size, in_place=in_place)
        in_f32 = mean if mean.dtype == torch.float32 else empty(mean.numel(), mean.device).copy_(mean)
        return in_f32, handed_over.nbytes

    def _few(self, payload: Payload, most: int, ctx: Context) -> Steps[Aggregate]:
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
        total, num_bytes = yield from self._mean(Handed(handed_over), ctx, in_place=True)
        if float(total[most]) > 0.0:
            nothing = Sparse(payload.numel, sparse.indices[:0], Dense(values[:0]))
            told = encode(nothing if is_fine else payload)
            mean, finite = yield from all_gather(told, ctx.reader.mean, ctx.max_num_bytes)
        else:
            mean = zeros(payload.numel, values.device)
            scatter_write(sparse.indices, total[: values.numel()], mean)
            finite = is_finite(mean)
        return Aggregate(mean, finite, num_bytes, payload, ctx.size)
