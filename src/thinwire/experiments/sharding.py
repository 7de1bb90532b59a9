"""Which worker holds which examples, and which of them make up its batch at a step."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.random import Key

Sharding: TypeAlias = Literal["random", "sorted"]


def permutation(count: int, key: Key) -> Tensor:
    """The numbers ``0 .. count - 1`` in an order that depends on ``key`` alone; int64 ``[count]``."""
    generator = torch.Generator().manual_seed(key.bits64() >> 1)
    return torch.randperm(count, generator=generator)


def make_shards(labels: Tensor, num_workers: int, how: Sharding, key: Key) -> list[Tensor]:
    """Deals the examples out to the workers.

    The shards are disjoint, together they are all examples, and their sizes differ by at most 1 (the first
    ones are the larger). ``"random"`` shuffles the examples with ``key`` and cuts; workers see the same
    distribution. ``"sorted"`` sorts them by label, examples of one label staying in their order, and cuts;
    each worker sees few labels, the hardest case for averaging rare. It needs no randomness: ``key`` plays no
    part.

    Args:
        labels: int64 ``[n]``, one per example.
        num_workers: how many shards, 1 to ``n``.
        how: ``"random"`` or ``"sorted"``.
        key: addresses the shuffle.

    Returns:
        ``num_workers`` int64 tensors of example indices, each with storage of its own.

    Raises:
        ConfigError: no worker, fewer examples than workers, or an unknown ``how``.

    Example:
        >>> shards = make_shards(torch.tensor([1, 0, 1, 0, 0]), 2, "sorted", Key(0))
        >>> [shard.tolist() for shard in shards]
        [[1, 3, 4], [0, 2]]
    """
    count = len(labels)
    if not 1 <= num_workers <= count:
        raise ConfigError(
            f"{count} examples cannot be dealt out to {num_workers} workers: each needs at least one, "
            f"so the number of workers is 1 to {count}."
        )
    if how == "random":
        order = permutation(count, key.fold("shards"))
    elif how == "sorted":
        order = torch.sort(labels, stable=True).indices
    else:
        raise ConfigError(f'sharding is {how!r}; it is "random" or "sorted".')
    return [shard.clone() for shard in torch.tensor_split(order, num_workers)]


def make_batches(labels: Tensor, num_workers: int, how: Sharding, batch_size: int, key: Key) -> "list[Batches]":
    """The batches of every worker of a run, by rank: ``key`` is the run's.

    Raises:
        ConfigError: as :func:`make_shards` and :class:`Batches`.
    """
    shards = make_shards(labels, num_workers, how, key.fold("shards"))
    return [Batches(shard, batch_size, key.fold("batches", rank)) for rank, shard in enumerate(shards)]


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """The batches of one worker: an endless row of reshuffled passes over its shard, cut into equal pieces.

    The batch of a step is a pure function of the step: nothing is consumed, so there is no position to save,
    and a run that resumes at a step sees what the uninterrupted run saw. In each pass (epoch) every example
    of the shard comes exactly once. The row is cut without regard to the ends of passes: a batch may hold the
    end of one and the beginning of the next, where an example can come twice, and a batch larger than the
    shard spans several.

    Args:
        shard: int64 ``[n]``, example indices, not empty.
        batch_size: examples per step, at least 1.
        key: the worker's own; the order of pass ``e`` is drawn from ``key.fold("epoch", e)``.

    Raises:
        ConfigError: an empty shard or a batch size below 1.

    Example:
        >>> batches = Batches(torch.tensor([10, 20, 30]), 2, Key(0))
        >>> sorted(torch.cat([batches.indices(step) for step in range(3)]).tolist())
        [10, 10, 20, 20, 30, 30]
    """

    shard: Tensor
    batch_size: int
    key: Key
    # Shuffled passes drawn lately: saves time, changes nothing.
    _recent: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.shard.ndim != 1 or len(self.shard) == 0:
            raise ConfigError(f"the shard has shape {tuple(self.shard.shape)}; it is [n] with n >= 1.")
        if self.batch_size < 1:
            raise ConfigError(f"batch size is {self.batch_size}; it is at least 1.")

    def indices(self, step: int) -> Tensor:
        """The examples of batch ``step`` (0 or more): int64 ``[batch_size]``, the caller's to keep."""
        if step < 0:
            raise ConfigError(f"step is {step}; steps count from 0.")
        count = len(self.shard)
        epoch, offset = divmod(step * self.batch_size, count)
        if offset + self.batch_size <= count:
            return self._epoch(epoch)[offset : offset + self.batch_size].clone()
        pieces = [self._epoch(epoch)[offset:]]
        needed = self.batch_size - len(pieces[0])
        while needed > 0:
            epoch += 1
            pieces.append(self._epoch(epoch)[:needed])
            needed -= len(pieces[-1])
        return torch.cat(pieces)

    def _epoch(self, epoch: int) -> Tensor:
        known = self._recent.get(epoch)
        if known is not None:
            return known
        shuffled = self.shard[permutation(len(self.shard), self.key.fold("epoch", epoch))]
        # Two passes are enough for steps in order: the one that ends and the one that begins.
        while len(self._recent) >= 2:
            del self._recent[next(iter(self._recent))]
        self._recent[epoch] = shuffled
        return shuffled
