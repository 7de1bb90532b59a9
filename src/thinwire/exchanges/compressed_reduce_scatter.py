"""Each worker owns a shard, whose mean it compresses again, with a memory of its own."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch

from thinwire.arrays import CPU, copy_of, zeros
from thinwire.compressors.base import Compressor, segment_traits
from thinwire.config import register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Concat
from thinwire.steps import Steps, all_gather, as_it_is, receive, send
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True)
class CompressedReduceScatter:
    """A reduce-scatter of compressed pieces, and an all-gather of compressed means: 1-bit SGD's exchange.

    Whole segments are dealt to the workers, about as many entries to each. Every worker sends each owner the
    compressed piece of its shard. The owner adds the mean of the pieces to what its own earlier messages left out,
    compresses the sum with the same operator, keeps what this leaves out, and sends it to all. So both directions are
    compressed and have memory: ``2 (P-1)/P`` of a message cross each link each way, however many workers there are.

    With fewer segments than workers some own nothing; with one segment its owner is a server. ``message_bytes`` are
    those of a worker's pieces.
    """

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = True
    """All decode the owners' messages."""

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """What this owner's messages left out of its shard: zeros.

        Raises:
            ConfigError: the compressor is no contraction, so that the owner's memory might grow without bound.
        """
        error = segment_traits(compressor, ctx.segments).error
        if error >= 1.0:
            raise ConfigError(
                f"{compressor} has the error constant {error:.3g} on a segment of this model; an owner remembers what "
                "its messages leave out, which needs less than 1"
            )
        own = shards(ctx.segments, ctx.size)[ctx.rank]
        return {"residual": zeros(own.stop - own.start, ctx.device)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """Pieces to their owners, then one all-gather."""
        intended, compressor = sender.add_residual(x), sender.compressor
        is_sound = is_finite(intended)
        dealt = shards(ctx.segments, ctx.size)
        # An owner of nothing gets no message, and sends an empty one.
        pieces = {
            owner: compressor.compress(part, ctx.key.fold("shard", owner), shard.cut)
            if is_sound
            else first_nonfinite(part)
            for owner, shard in enumerate(dealt)
            if (part := intended[shard.start : shard.stop]).numel()
        }
        messages = {owner: encode(piece) for owner, piece in pieces.items()}
        for owner, message in messages.items():
            if owner != ctx.rank:
                yield from send(owner, message)
        outcome, left = torch.empty(0, dtype=torch.uint8, device=CPU), state["residual"]
        if ctx.rank in messages:
            got = []
            for rank in range(ctx.size):
                own = rank == ctx.rank
                got.append(messages[rank] if own else (yield from receive(rank, as_it_is, ctx.max_num_bytes)))
            total = ctx.reader.with_numel(left.numel()).mean(got)[0].add_(left)
            if is_sound and is_finite(total):
                answer = compressor.compress(total, ctx.key.fold("owner"), dealt[ctx.rank].cut)
                left = copy_of(total)
                answer.add_to(left, -1.0)
                outcome = encode(answer)
            else:
                outcome = encode(first_nonfinite(total))
        combine = functools.partial(ctx.reader.joined, bounds=(0, *(shard.stop for shard in dealt)))
        mean, finite = yield from all_gather(outcome, combine, ctx.max_num_bytes)
        sent = Concat(tuple(pieces.values()))
        if finite:
            sender.commit(sent)
        num_bytes = sum(message.numel() for message in messages.values())
        return Aggregate(mean, finite, num_bytes, sent, ctx.size, {"residual": left})


@dataclass(frozen=True, slots=True)
class Shard:
    """Entries ``start`` to ``stop``, and their segments."""

    start: int
    stop: int
    cut: Segments


@functools.lru_cache(maxsize=16)
def shards(segments: Segments, size: int) -> tuple[Shard, ...]:
    """Consecutive whole segments for each of ``size`` owners, about equally many entries.

    Example:
        >>> [(shard.start, shard.stop) for shard in shards(Segments.uniform(10, 2), 2)]
        [(0, 4), (4, 10)]
    """
    offsets = segments.offsets()
    ideal = torch.tensor([segments.numel * rank // size for rank in range(size + 1)], dtype=torch.int64, device=CPU)
    after = torch.searchsorted(offsets, ideal).clamp_(max=segments.count)
    before = (after - 1).clamp_(min=0)
    nearest = torch.where(ideal - offsets[before] <= offsets[after] - ideal, before, after)
    # Empty segments at the ends belong to the first and the last owner.
    nearest[0], nearest[-1] = 0, segments.count
    bounds = nearest.unfold(0, 2, 1).tolist()
    return tuple(Shard(int(offsets[a]), int(offsets[b]), _cut(segments, a, b)) for a, b in bounds)


def _cut(segments: Segments, first: int, last: int) -> Segments:
    """Segments ``first`` to ``last``, in the shortest form, so that no message is longer than that of the whole."""
    sizes = segments.offsets()[first : last + 1].diff()
    if last - first == 1:
        return Segments.whole(int(sizes[0]))
    if segments.sizes is None:
        return Segments.uniform(int(sizes.sum()), segments.length)
    return Segments.of_sizes(sizes.tolist())
