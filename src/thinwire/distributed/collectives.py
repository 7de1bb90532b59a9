"""Gathers and sums over links; what they give has the bits of the simulator."""

from collections.abc import Callable

import torch
from torch import Tensor

from thinwire.arrays import empty_like
from thinwire.distributed.links import Links
from thinwire.distributed.mail import Tag
from thinwire.errors import ProtocolError
from thinwire.network import PIECE_NUM_BYTES, shard_bounds
from thinwire.steps import check_length, sum_in_order


def gather(
    links: Links, message: Tensor, size: int, max_num_bytes: int | None, begun: Callable[[], object]
) -> list[Tensor]:
    """The messages of the first ``size`` processes in rank order; one latency, whatever their lengths.

    Args:
        message: uint8 ``[n]``, handed over.
        max_num_bytes: a longer one is refused by every process.
        begun: called when something of every process has come.
    """
    try:
        check_length(links.rank, message.numel(), max_num_bytes)
    except ProtocolError as error:
        links.abort(str(error))
        raise
    missing = others(links.rank, size)
    for rank in missing:
        links.send(rank, Tag.GATHERED, message)
    found = {links.rank: message}
    while missing:
        rank, _, came = links.receive(missing, [Tag.GATHERED], max_num_bytes, begun=begun)
        found[rank] = came
        missing.remove(rank)
    links.flush()
    return [found[rank] for rank in range(size)]


def reduce_in_order(links: Links, tensor: Tensor, size: int, divisor: int, *, in_place: bool = False) -> Tensor:
    """The sum of the first ``size`` processes' tensors, added in rank order entry by entry, over ``divisor``.

    A reduce-scatter by shards, then an all-gather of the shards, in pieces: while one piece is added up the next is on
    its way, and what is added up goes on at once.

    With ``in_place`` the sum takes the tensor's memory. Its owner has read a piece when its sum comes back, so that
    nothing is overwritten that is still on its way.
    """
    flat = tensor.contiguous().view(-1)
    total = flat if in_place else empty_like(flat)
    if size == 1:
        sum_in_order([flat], divisor, total)
    else:
        _Sum(links, flat, total, size, divisor).run()
    return total.view(tensor.shape)


class _Sum:
    """One sum under way."""

    def __init__(self, links: Links, flat: Tensor, total: Tensor, size: int, divisor: int) -> None:
        self._links = links
        self._flat, self._total, self._divisor = flat, total, divisor
        bounds = shard_bounds(flat.numel(), size)
        step = max(1, PIECE_NUM_BYTES // flat.element_size())
        self._pieces = [_cut(bounds[rank], bounds[rank + 1], step) for rank in range(size)]
        self._others = others(links.rank, size)
        # Of each other process: how many of its pieces of my shard, and of its own shard's sum, have come.
        self._num_to_sum = dict.fromkeys(self._others, 0)
        self._num_summed = dict.fromkeys(self._others, 0)
        self._waiting: list[dict[int, Tensor]] = [{} for _ in self._pieces[links.rank]]

    def run(self) -> None:
        links, own = self._links, self._pieces[self._links.rank]
        for place in range(max(map(len, self._pieces))):
            for rank in self._others:
                if place < len(self._pieces[rank]):
                    start, stop = self._pieces[rank][place]
                    links.send(rank, Tag.TO_SUM, _bytes_of(self._flat[start:stop]))
        while missing := [
            rank
            for rank in self._others
            if self._num_to_sum[rank] < len(own) or self._num_summed[rank] < len(self._pieces[rank])
        ]:
            rank, tag, message = links.receive(missing, [Tag.TO_SUM, Tag.SUMMED], PIECE_NUM_BYTES)
            if tag == Tag.SUMMED:
                start, stop = self._pieces[rank][self._num_summed[rank]]
                self._num_summed[rank] += 1
                self._total[start:stop] = self._entries(rank, message, stop - start)
            else:
                place = self._num_to_sum[rank]
                self._num_to_sum[rank] += 1
                self._waiting[place][rank] = message
                if len(self._waiting[place]) == len(self._others):
                    self._add_up(place)
        links.flush()

    def _add_up(self, place: int) -> None:
        start, stop = self._pieces[self._links.rank][place]
        came, self._waiting[place] = self._waiting[place], {}
        out, own = self._total[start:stop], self._flat[start:stop]
        if self._total is self._flat and self._links.rank > 1:
            own = own.clone()  # the sum of the first two is written there before it is added
        parts = [
            own if rank == self._links.rank else self._entries(rank, came[rank], stop - start)
            for rank in range(len(self._pieces))
        ]
        sum_in_order(parts, self._divisor, out)
        for rank in self._others:
            self._links.send(rank, Tag.SUMMED, _bytes_of(out))

    def _entries(self, rank: int, message: Tensor, count: int) -> Tensor:
        size = self._flat.element_size()
        if message.numel() != count * size:
            raise ProtocolError(
                f"worker {rank} sent {message.numel()} bytes of a sum where {count * size} belong; all workers must "
                "all-reduce tensors of one shape"
            )
        # What comes is read in place, unless it lies where no entry may begin.
        return (message if message.data_ptr() % size == 0 else message.clone()).view(self._flat.dtype)


def others(rank: int, size: int) -> list[int]:
    """Whom a process sends to, in turn: the next ones first, so that nobody's port is the last for all.

    Example:
        >>> others(2, 4)
        [3, 0, 1]
    """
    return [(rank + step) % size for step in range(1, size)]


def _cut(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    return [(place, min(place + step, stop)) for place in range(start, stop, step)]


def _bytes_of(entries: Tensor) -> Tensor:
    return entries.view(torch.uint8)
