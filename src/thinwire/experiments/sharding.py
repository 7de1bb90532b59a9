"""Which worker holds which examples, and which of them make up its batch at a step."""

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.option_strings import read_pairs, split_name
from thinwire.random import Key

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

WAYS = ("random", "sorted", "dirichlet")
"""How examples may be dealt out."""


def read_sharding(text: str) -> float | None:
    """The concentration of ``dirichlet:alpha=A``; None of a way that takes no number.

    Raises:
        ConfigError: a way that there is not, or a concentration that cannot be.

    Example:
        >>> read_sharding("dirichlet:alpha=0.3"), read_sharding("sorted")
        (0.3, None)
    """
    name, rest = split_name(text, "sharding", WAYS)
    given = read_pairs(rest, f"sharding {name}", ("alpha",) if name == "dirichlet" else ())
    if name != "dirichlet":
        return None
    try:
        alpha = float(given["alpha"])
    except (KeyError, ValueError):
        raise ConfigError(f"sharding {text!r} cannot be read; write dirichlet:alpha=0.3") from None
    if not 0.0 < alpha < math.inf:
        raise ConfigError(f"sharding {text!r} was given; alpha must be above 0 and finite")
    return alpha


def permutation(count: int, key: Key) -> Tensor:
    """The numbers ``0 .. count - 1`` in an order that depends on ``key`` alone; int64 ``[count]``."""
    generator = torch.Generator().manual_seed(key.bits64() >> 1)
    return torch.randperm(count, generator=generator, device=CPU)


def make_shards(labels: Tensor, num_workers: int, how: str, key: Key) -> list[Tensor]:
    """Deals the examples out to the workers.

    The shards are disjoint, together they are all examples, and their sizes differ by at most 1 (the first
    ones are the larger). ``"random"`` shuffles the examples with ``key`` and cuts; workers see the same
    distribution. ``"sorted"`` sorts them by label, examples of one label staying in their order, and cuts;
    each worker sees few labels, the hardest case for averaging rare. It needs no randomness: ``key`` plays no
    part. ``"dirichlet:alpha=A"`` is between: each worker draws its own shares of the labels from a Dirichlet
    distribution around the shares that they have among all examples, with concentration ``A``, then its examples by
    these shares (Hsu et al. 2019). Where no example of a label is left the others take its place, so that the last
    workers take what there is.

    Args:
        labels: int64 ``[n]``, one per example.
        num_workers: how many shards, 1 to ``n``.
        how: ``"random"``, ``"sorted"`` or ``"dirichlet:alpha=A"``.
        key: addresses what is drawn.

    Returns:
        ``num_workers`` int64 tensors of example indices, each with storage of its own.

    Raises:
        ConfigError: no worker, fewer examples than workers, or an unknown ``how``.

    Example:
        >>> shards = make_shards(torch.tensor([1, 0, 1, 0, 0]), 2, "sorted", Key(0))
        >>> [shard.tolist() for shard in shards]
        [[1, 3, 4], [0, 2]]
    """
    count, alpha = len(labels), read_sharding(how)
    if not 1 <= num_workers <= count:
        raise ConfigError(
            f"{count} examples cannot be dealt out to {num_workers} workers: each needs at least one, "
            f"so the number of workers is 1 to {count}."
        )
    if alpha is not None:
        return _dirichlet_shards(labels, num_workers, alpha, key)
    order = permutation(count, key.fold("shards")) if how == "random" else torch.sort(labels, stable=True).indices
    return [shard.clone() for shard in torch.tensor_split(order, num_workers)]


def _dirichlet_shards(labels: Tensor, num_workers: int, alpha: float, key: Key) -> list[Tensor]:
    order = permutation(len(labels), key.fold("shards"))
    _, kinds = torch.unique(labels[order], return_inverse=True)
    by_label = torch.split(order[torch.sort(kinds, stable=True).indices], torch.bincount(kinds).tolist())
    left = np.array([len(examples) for examples in by_label])
    shares, given = left / left.sum(), np.zeros_like(left)
    sizes = [len(part) for part in torch.tensor_split(order, num_workers)]
    shards = []
    for worker, size in enumerate(sizes):
        generator = np.random.Generator(np.random.Philox(key=key.fold("dirichlet", worker).bits64()))
        wanted = _labels(generator, generator.dirichlet(alpha * shares), left, size)
        ends = given + wanted
        parts = [examples[start:end] for examples, start, end in zip(by_label, given, ends, strict=True)]
        shards.append(torch.cat(parts))
        left, given = left - wanted, ends
    return shards


def _labels(generator: np.random.Generator, shares: "Array", left: "Array", size: int) -> "Array":
    """How many examples of each label a worker gets: ``size`` in all, of each label no more than are left."""
    wanted = np.zeros_like(left)
    while missing := size - int(wanted.sum()):
        weights = np.where(left > wanted, shares, 0.0)
        # Of its own labels nothing may be left; the others then come as they are left.
        weights = weights if weights.sum() > 0.0 else (left - wanted).astype(np.float64)
        drawn = generator.multinomial(missing, weights / weights.sum())
        wanted = np.minimum(wanted + drawn, left)
    return wanted


def make_batches(labels: Tensor, num_workers: int, how: str, batch_size: int, key: Key) -> "list[Batches]":
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
