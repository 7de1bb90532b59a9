"""Every worker adds up a region of the vector, and all gather the sums."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import CPU, copy_of, to_device, zeros
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import EXACT_KINDS
from thinwire.exchanges.recompression import (
    check_remember,
    check_second,
    max_exact_num_bytes,
    max_relayed_num_bytes,
    recompress,
    relayed_kinds,
    smaller,
    smallest_exact,
)
from thinwire.layout import Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.network import shard_bounds
from thinwire.payloads import Dense, Payload, SeededSparse, Sparse
from thinwire.steps import Steps, all_gather, receive, send
from thinwire.wire import encode, encoded_num_bytes


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class SparseReduceScatter:
    """Worker ``r`` owns region ``r`` of P: it gets everyone's entries there, adds them up, and sends the sum to all.

    A sparse reduce-scatter and an all-gather: of messages of k entries each worker sends and receives
    ``k (P-1)/P`` on the way to the owners, where a gather takes ``k (P-1)``. On the way back a region travels as the
    union of its entries, exact, sparse until dense is shorter (SparCML, Renggli et al. 2019); or, with ``select``,
    compressed again: with a top-k of the workers' density about k entries come back in all, however many workers
    there are (Ok-Topk, Li and Hoefler 2022). What ``select`` leaves out stays with the owner and is added to the
    region's next sum, so nothing is lost. ``2 k (P-1)/P`` entries are the least that any such exchange takes.

    Pieces of a sparse message have its values as they are if these are plain numbers; quantized values go to the
    owners decoded, in f32. Sums are taken in rank order.

    Args:
        select: what compresses a region's sum, each region as one segment.
        remember: whether owners keep what ``select`` leaves out; ``False`` is for unbiased operators.
        balanced: regions follow the support of the mean before, so that owners have equally many entries, where
            gradients are larger in some layers than in others. All have that mean, so agreeing takes no message. Not
            with a memory, which is of a region that stays.

    Raises:
        ConfigError: ``remember=False`` without ``select``, or ``balanced`` with owners that remember.
    """

    select: Compressor | None = None
    remember: bool = True
    balanced: bool = False

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are added."""

    workers_agree: ClassVar[bool] = True
    """All get the same sums from the same owners."""

    def __post_init__(self) -> None:
        check_types(self)
        check_remember(self.select, self.remember, "select")
        if self.balanced and self.select is not None and self.remember:
            raise ConfigError("an owner remembers what it left out of its own region, which balanced=True would move")

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Regions of equal length, and what ``select`` left out of this worker's: nothing yet.

        Raises:
            ConfigError: ``select`` does not fit a region, or is no contraction and is to be remembered.
        """
        bounds = shard_bounds(ctx.segments.numel, ctx.size)
        for size in filter(None, _distinct_sizes(bounds)):
            check_second(self.select, self.remember, "select", Segments.whole(size), ctx.device)
        regions = {"bounds": torch.tensor(bounds, dtype=torch.int64, device=CPU)} if self.balanced else {}
        if self.select is None or not self.remember:
            return regions
        return regions | {"left": zeros(bounds[ctx.rank + 1] - bounds[ctx.rank], ctx.device)}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """Pieces to their owners, then one all-gather of the sums."""
        numel = ctx.segments.numel
        bounds: list[int] = state["bounds"].tolist() if self.balanced else shard_bounds(numel, ctx.size)
        sent = sender.compress(x, ctx.key, ctx.segments)
        pieces = _cut(sent, bounds)
        # Each worker begins with the next one, so that no owner's link is everybody's first.
        for step in range(1, ctx.size):
            owner = (ctx.rank + step) % ctx.size
            yield from send(owner, encode(pieces[owner]))
        own = bounds[ctx.rank + 1] - bounds[ctx.rank]
        total = copy_of(state["left"]) if "left" in state else zeros(own, ctx.device)
        reader = ctx.reader.with_numel(own).with_kinds(EXACT_KINDS)
        for rank in range(ctx.size):
            if rank == ctx.rank:
                pieces[rank].add_to(total)
                continue
            read = functools.partial(reader.part, what=f"the piece of worker {rank}")
            piece: Payload = yield from receive(rank, read, max_exact_num_bytes(own))
            piece.add_to(total)
        if self.select is None or not own:
            answer = encode(smallest_exact(total))
        else:
            answer = encode(recompress(total, self.select, ctx.key.fold("select"), Segments.whole(own)))
        joined = ctx.reader.with_kinds(self._kinds(bounds)).joined
        combine = functools.partial(joined, bounds=bounds, divisor=ctx.size)
        mean, finite = yield from all_gather(answer, combine, self._max_num_bytes(bounds))
        next_state: State = {"left": total} if "left" in state else {}
        if self.balanced:
            next_state["bounds"] = balanced_bounds(mean, ctx.size)
        return Aggregate(mean, finite, encoded_num_bytes(sent), sent, ctx.size, next_state)

    def _max_num_bytes(self, bounds: Sequence[int]) -> int:
        sizes = _distinct_sizes(bounds)
        exact = max_exact_num_bytes(max(sizes))
        if self.select is None:
            return exact
        return max(exact, *(max_relayed_num_bytes(self.select, Segments.whole(size)) for size in sizes if size))

    def _kinds(self, bounds: Sequence[int]) -> frozenset[int]:
        if self.select is None:
            return EXACT_KINDS
        cuts = [Segments.whole(size) for size in _distinct_sizes(bounds) if size]
        return EXACT_KINDS.union(*(relayed_kinds(self.select, cut) for cut in cuts))


def balanced_bounds(mean: Tensor, size: int) -> Tensor:
    """Where ``size`` regions of equally many entries that are not 0 begin, and the end: int64 on the CPU.

    They are of equal length where there are fewer such entries than regions.

    Example:
        >>> balanced_bounds(torch.tensor([1.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 4.0]), 2).tolist()
        [0, 3, 8]
    """
    support = mean.nonzero().reshape(-1)
    bounds = torch.tensor(shard_bounds(mean.numel(), size), dtype=torch.int64, device=CPU)
    if support.numel() >= size:
        bounds[1:-1] = support[shard_bounds(support.numel(), size)[1:-1]].cpu()
    return bounds


def _distinct_sizes(bounds: Sequence[int]) -> list[int]:
    return sorted({stop - start for start, stop in itertools.pairwise(bounds)})


def _cut(payload: Payload, bounds: Sequence[int]) -> list[Payload]:
    """The payload's parts in each region, exact."""
    sparse = payload.sparse() if isinstance(payload, SeededSparse) else payload
    if not isinstance(sparse, Sparse):
        dense = payload.to_dense()
        return [smallest_exact(dense[start:stop]) for start, stop in itertools.pairwise(bounds)]
    values = sparse.values.values if isinstance(sparse.values, Dense) else sparse.values.to_dense()
    borders = to_device(torch.tensor(bounds, dtype=torch.int64, device=CPU), sparse.indices.device)
    places: list[int] = torch.searchsorted(sparse.indices, borders).tolist()
    pieces: list[Payload] = []
    for region, (first, last) in enumerate(itertools.pairwise(places)):
        start, stop = bounds[region], bounds[region + 1]
        piece = Sparse(stop - start, sparse.indices[first:last] - start, Dense(values[first:last]))
        # A sparse piece is shorter unless nearly full, or so short that what frames it counts.
        pieces.append(smaller(piece, Dense(piece.to_dense())) if 2 * (last - first) >= piece.numel - 32 else piece)
    return pieces
