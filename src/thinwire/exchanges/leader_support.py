"""One worker in turn says which entries are summed."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors.base import Compressor
from thinwire.config import register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.star import spread
from thinwire.exchanges.unfit import tell_unfit
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Constant, Dense, Payload, Sparse
from thinwire.steps import Steps, all_reduce, receive
from thinwire.wire import encode, kinds_in, max_num_bytes


@register
@dataclass(frozen=True, slots=True)
class LeaderSupport:
    """The leader sends the indices of its own largest entries, and all workers' values at these are all-reduced.

    Workers take turns as the leader, so that each one's memory is emptied in its turn (cyclic local top-k of ScaleCom,
    Chen et al. 2020). Messages have one support, so their sum does not fill in: each worker hands over k values,
    whatever the number of workers, and the leader k indices beside. It works as far as the workers' vectors, with
    their memories, are largest at the same entries. ``message_bytes`` are the ``4 (k + 1)`` bytes that are summed, and
    at the leader the indices' message.
    """

    needs_linear: ClassVar[bool] = False
    """Indices are decoded before values are added."""

    workers_agree: ClassVar[bool] = True
    """All add up the same values in the same order."""

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered.

        Raises:
            ConfigError: a compressor that does not choose entries and keep their values.
        """
        outline = compressor.outline(ctx.segments)
        if not isinstance(outline, Sparse) or not isinstance(outline.values, Dense):
            raise ConfigError(
                f"{compressor} does not choose entries whose values could be summed; LeaderSupport takes TopK or "
                "another sparsifier with exact values"
            )
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """The leader's indices, then one all-reduce; another round if something is not finite."""
        intended, leader, numel = sender.add_residual(x), ctx.number % ctx.size, ctx.segments.numel
        is_fit, num_bytes = is_finite(intended), 0
        if ctx.rank == leader:
            make = sender.compressor.compress if is_fit else _unfit
            chosen = make(intended, ctx.key, ctx.segments)
            assert isinstance(chosen, Sparse)
            indices = chosen.indices
            message = encode(_support(numel, indices))
            num_bytes = message.numel()
            yield from spread(message, ctx)
        else:
            outline = sender.compressor.outline(ctx.segments)
            assert isinstance(outline, Sparse)
            most = _support(numel, outline.indices)
            reader = ctx.reader.with_kinds(kinds_in(most))
            longest = max(max_num_bytes(most), ctx.max_num_bytes)
            part = yield from receive(leader, lambda come: reader.part(come, "the leader's choice"), longest)
            assert isinstance(part, Sparse)
            indices = part.indices
        values = intended[indices]
        handed_over = zeros(values.numel() + 1, values.device)
        if is_fit:
            handed_over[:-1] = values
        else:
            handed_over[-1] = 1.0
        num_bytes += handed_over.nbytes
        mean = yield from all_reduce(handed_over, divisor=ctx.size, in_place=True)
        if float(mean[-1]) > 0.0:
            return (yield from tell_unfit(intended, num_bytes, ctx))
        sent = Sparse(numel, indices, Dense(values))
        result = Sparse(numel, indices, Dense(mean[:-1]))
        finite = is_finite(mean)
        if finite:
            sender.commit(sent)
        return Aggregate(result, finite, num_bytes, sent, ctx.size)


def _unfit(x: Tensor, _key: object, _segments: Segments) -> Payload:
    return first_nonfinite(x)


def _support(numel: int, indices: Tensor) -> Sparse:
    """Indices that stand for themselves, on the wire."""
    none = torch.zeros(1, dtype=torch.float32, device=indices.device)
    return Sparse(numel, indices, Constant(none, Segments.whole(indices.numel())))
