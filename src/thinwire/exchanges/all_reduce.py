"""Sum dense vectors."""

from dataclasses import dataclass

from torch import Tensor

from thinwire.compressors.base import Compressor
from thinwire.config import register
from thinwire.exchanges.base import Aggregate, Context
from thinwire.kernels.finite import is_finite
from thinwire.layout import State
from thinwire.payloads import Dense
from thinwire.steps import Steps, all_reduce


@register
@dataclass(frozen=True, slots=True)
class AllReduce:
    """Mean by reduce-scatter and all-gather of f32 vectors: ``2 (P-1)/P`` of 4 d bytes each way.

    Each worker sums one shard in rank order, so the mean has the same bits in a simulation and over processes.
    Needs a linear compressor. No message is encoded: ``message_bytes`` are the ``4 d`` bytes handed over.
    """

    @property
    def needs_linear(self) -> bool:
        """Vectors are added as they are."""
        return True

    @property
    def is_common(self) -> bool:
        """All add up the same vectors in the same order."""
        return True

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered."""
        return {}

    def run(self, x: Tensor, compressor: Compressor, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-reduce."""
        payload = compressor.compress(x, ctx.key, ctx.segments)
        vector = payload.values if isinstance(payload, Dense) else payload.to_dense()
        mean = yield from all_reduce(vector, divisor=ctx.size)
        return Aggregate(mean, is_finite(mean), vector.numel() * vector.element_size(), payload, ctx.size)
