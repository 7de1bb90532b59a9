"""Tensors of process 0 to all others, along a tree, in pieces that are passed on as they come."""

import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from thinwire.distributed.links import Links
from thinwire.distributed.mail import Tag
from thinwire.distributed.outgoing import PART_HERE
from thinwire.steps import check_length

QUIET_S = 5.0
"""What takes longer is worth a line; so is every further stretch of this length."""


def spread(links: Links, tensors: Sequence[Tensor], size: int) -> None:
    """Overwrite the tensors of the first ``size`` processes with those of process 0.

    Args:
        tensors: of any dtype and memory format; of the same shapes and dtypes on every process.
    """
    parent, children = family(links.rank, size)
    if parent is None and not children:
        return
    progress = _Progress(sum(tensor.nbytes for tensor in tensors), links.rank)
    for tensor in filter(Tensor.numel, tensors):
        # The same memory if it is contiguous; bytes, since a link knows nothing else.
        whole = tensor.detach().contiguous()
        data = whole.view(-1).view(torch.uint8)
        for start in range(0, data.numel(), PART_HERE):
            piece = data[start : start + PART_HERE]
            if parent is not None:
                _, _, came = links.receive([parent], [Tag.MODEL], PART_HERE)
                check_length(parent, came.numel(), piece.numel())
                piece.copy_(came)
            for child in children:
                links.send(child, Tag.MODEL, piece, keeps=False)
            progress.add(piece.numel())
        if parent is not None and whole.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(whole)
    links.flush()


def family(rank: int, size: int) -> tuple[int | None, list[int]]:
    """Whom a process hears from and whom it tells, in a binomial tree from 0: all have heard after log2 of them rounds.

    Example:
        >>> [family(rank, 6) for rank in range(6)]
        [(None, [4, 2, 1]), (0, []), (0, [3]), (2, []), (0, [5]), (4, [])]
    """
    parent = None if rank == 0 else rank & (rank - 1)
    reach = (rank & -rank) if rank else 1 << max(size - 1, 0).bit_length()
    steps = [1 << power for power in range(reach.bit_length() - 1)]
    return parent, [rank + step for step in reversed(steps) if rank + step < size]


class _Progress:
    """Says now and then how far it is, on the standard error of process 1: what 0 has sent is not there yet."""

    def __init__(self, num_bytes: int, rank: int) -> None:
        self._num_bytes = num_bytes
        self._num_done = 0
        self._speaks = rank == 1
        self._begin = self._said = time.monotonic()

    def add(self, num_bytes: int) -> None:
        self._num_done += num_bytes
        now = time.monotonic()
        if self._speaks and now > self._said + QUIET_S:
            self._said = now
            left_s = (now - self._begin) * (self._num_bytes - self._num_done) / self._num_done
            print(
                f"thinwire: worker 1 began with another model than worker 0 and has received "
                f"{self._num_done / 1e6:.1f} of {self._num_bytes / 1e6:.1f} MB, about {left_s:.0f} s left",
                file=sys.stderr, flush=True,
            )  # fmt: skip
