"""Means that a few workers cannot bend, whatever they send."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thinwire.arrays import empty, over
from thinwire.compressors.base import Compressor
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.reading import MessageReader
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender
from thinwire.payloads.entries import num_entries
from thinwire.steps import Steps, all_gather
from thinwire.wire import encode

_BLOCK_NUMEL = 1 << 18
"""Entries that are sorted at a time."""


@register
@dataclass(frozen=True, slots=True)
class RobustGather:
    """Every worker gets every message and takes, entry by entry, a mean that few of the workers cannot move far.

    With ``x_p[i]`` sorted over the ``P`` workers (Yin et al. 2018, "Byzantine-robust distributed learning", definitions
    1 and 2): ``"median"`` is the middle one, of an even number the mean of the two in the middle; ``"trimmed"`` is the
    mean of what is left without the ``floor(trim P)`` smallest (at least one, of three workers or more) and as many
    largest. Both lie between the smallest and the largest entry of the honest workers, as long as the others are fewer
    than half of all, or no more than are cut off at an end.

    It defends against values, not against everything: a worker that sends NaN still stops the training (all raise the
    same error), and a mean of honest workers with unlike data is not the median of them, which is biased. What
    messages leave out is kept by each worker's memory as always, though the mean may not have taken what was sent.

    Args:
        kind: which mean.
        trim: share of workers that is cut off at each end, above 0 and below 1/2; of ``"trimmed"`` alone.

    Raises:
        ConfigError: an unknown kind, or a trim out of range.

    Example:
        >>> from thinwire.compressors import Identity
        >>> from thinwire.layout import Layout, Segments
        >>> from thinwire.memory import MemorySender
        >>> from thinwire.random import Key
        >>> from thinwire.simulator import Simulation
        >>> layout, segments = Layout(("w",), (torch.Size([1]),)), Segments.whole(1)
        >>> programs = [
        ...     RobustGather().run(
        ...         Handed(torch.tensor([x])), MemorySender(Identity()), Context(r, 3, Key(0), segments, 99, layout), {}
        ...     )
        ...     for r, x in enumerate([1.0, 2.0, 1e9])
        ... ]
        >>> [aggregate.mean.item() for aggregate in Simulation(3).run(programs)]
        [2.0, 2.0, 2.0]
    """

    kind: Literal["median", "trimmed"] = "median"
    trim: float = 0.25

    needs_linear: ClassVar[bool] = False
    """Messages are decoded before they are compared."""

    workers_agree: ClassVar[bool] = True
    """All sort the same vectors."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.trim < 0.5:
            raise ConfigError(f"trim = {self.trim} was given; give the share cut off at each end, above 0, below 0.5")

    def num_trimmed(self, size: int) -> int:
        """How many of ``size`` values are left out at each end.

        Example:
            >>> [RobustGather("trimmed").num_trimmed(size) for size in (2, 3, 4, 8)]
            [0, 1, 1, 2]
            >>> [RobustGather("median").num_trimmed(size) for size in (3, 4)]
            [1, 1]
        """
        most = (size - 1) // 2
        return most if self.kind == "median" else min(max(1, math.floor(self.trim * size)), most)

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered.

        Raises:
            ConfigError: each worker sends entries of its own choice, so that of most entries the middle is 0.
        """
        numel = ctx.segments.numel
        if num_entries(compressor.outline(ctx.segments)) < numel and not compressor.traits(max(numel, 2)).linear:
            raise ConfigError(
                f"{compressor} lets each worker choose which entries it sends, and {self} would take 0 for those that "
                "few have sent; take messages of all entries (QSGD, Sign), or of entries that all have in common "
                "(SharedSeedRandK)"
            )
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-gather. Reading it takes as many vectors as there are workers."""
        sent = sender.compress(x, ctx.key, ctx.segments)
        message = encode(sent)
        combine = functools.partial(_middle, reader=ctx.reader, num_trimmed=self.num_trimmed(ctx.size))
        result, finite = yield from all_gather(message, combine, ctx.max_num_bytes)
        return Aggregate(result, finite, message.numel(), sent, ctx.size)


def _middle(messages: Sequence[Tensor], reader: MessageReader, num_trimmed: int) -> tuple[Tensor, bool]:
    """The mean of each entry's values but for the least and the greatest; and whether all values are finite."""
    vectors = [payload.to_dense() for payload in reader.parts(messages)]
    out = empty(reader.numel, reader.device)
    if not all(map(is_finite, vectors)):
        # Whoever sends what is not finite has something to say to all.
        return out.fill_(torch.nan), False
    keeps = slice(num_trimmed, len(vectors) - num_trimmed)
    for start in range(0, reader.numel, _BLOCK_NUMEL):
        block = slice(start, start + _BLOCK_NUMEL)
        # A stable order, so that of zeros of both signs the same ones are left everywhere.
        values = torch.stack([vector[block] for vector in vectors]).sort(dim=0, stable=True).values[keeps]
        total = values[0].clone()
        for each in values[1:]:
            total += each
        out[block] = over(total, len(values))
    return out, is_finite(out)
