"""Graphs that are others in every exchange: each worker talks to one other at a time."""

import functools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.config import register
from thinwire.exchanges.graphs import Pairs, check_doubly_stochastic
from thinwire.random import Key


@runtime_checkable
class ChangingGraph(Protocol):
    """Directed edges on the workers that differ from exchange to exchange. Implementations are frozen dataclasses."""

    def arrows(self, size: int, number: int, key: Key) -> Pairs:
        """The edges of one exchange, each as sender and receiver: as many lead to a worker as lead away from it.

        Args:
            size: number of workers.
            number: of the exchange, counted from 0.
            key: the same on all workers, and another in each exchange.
        """
        ...

    def __hash__(self) -> int: ...


@register
@dataclass(frozen=True, slots=True)
class RandomPairs:
    """Pairs drawn anew for each exchange, ``w = 1/2``; of an odd number of workers one rests (Boyd et al. 2006).

    The mean of ``W`` over all matchings leaves ``1/2 (1 - 1 / (P - 1))`` of the workers' squared distance from their
    mean, for even P: half of it, about, whatever P.

    Example:
        >>> sorted(RandomPairs().arrows(3, 0, Key(0)))
        [(0, 1), (1, 0)]
    """

    def arrows(self, size: int, number: int, key: Key) -> Pairs:
        """Each pair in both directions."""
        draws = np.random.Philox(key=key.fold("pairs").bits64()).random_raw(size)
        order = [int(rank) for rank in np.argsort(draws, kind="stable")]
        pairs = list(zip(order[0::2], order[1::2], strict=False))
        return tuple(pairs + [(other, one) for one, other in pairs])


@register
@dataclass(frozen=True, slots=True)
class OnePeerExponential:
    """To the worker 1, 2, 4, ... places further on, in turn, ``w = 1/2`` (Ying et al. 2021).

    After ``log2 P`` exchanges all have the mean of all, exactly, if P is a power of two.

    Example:
        >>> [OnePeerExponential().arrows(4, number, Key(0))[0] for number in range(3)]
        [(0, 1), (0, 2), (0, 1)]
    """

    def arrows(self, size: int, number: int, key: Key) -> Pairs:
        """One edge away from each worker, and one to it."""
        if size < 2:
            return ()
        hop = 1 << number % (size - 1).bit_length()
        return tuple((rank, (rank + hop) % size) for rank in range(size))


@functools.lru_cache(maxsize=64)
def weights_of(graph: ChangingGraph, size: int, number: int, key: Key) -> tuple[dict[int, float], ...]:
    """For each worker the weights of those that send to it and of itself, by rank, ascending.

    ``w_ij = 1 / (1 + max(deg_i, deg_j))`` on edges from j to i, ``w_ii = 1 - sum_j w_ij``.

    Example:
        >>> weights_of(OnePeerExponential(), 3, 0, Key(0))[0]
        {0: 0.5, 2: 0.5}
    """
    arrows = graph.arrows(size, number, key)
    degrees = [sum(source == rank for source, _ in arrows) for rank in range(size)]
    rows: list[dict[int, float]] = [{} for _ in range(size)]
    for source, destination in arrows:
        rows[destination][source] = 1.0 / (1 + max(degrees[source], degrees[destination]))
    for rank, row in enumerate(rows):
        row[rank] = 1.0 - sum(row.values())
    return tuple(dict(sorted(row.items())) for row in rows)


def matrix_of(graph: ChangingGraph, size: int, number: int, key: Key) -> Tensor:
    """The rows of :func:`weights_of`: f64 ``[size, size]``.

    Raises:
        ConfigError: more edges lead to a worker than away from it, or less.
    """
    matrix = torch.zeros(size, size, dtype=torch.float64, device=CPU)
    for rank, row in enumerate(weights_of(graph, size, number, key)):
        for other, weight in row.items():
            matrix[rank, other] = weight
    check_doubly_stochastic(matrix)
    return matrix
