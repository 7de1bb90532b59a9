"""Who talks to whom under gossip, and how much each weighs."""

import functools
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.config import check_types, register
from thinwire.errors import ConfigError

Pairs = tuple[tuple[int, int], ...]


@runtime_checkable
class Graph(Protocol):
    """An undirected graph on the workers. Implementations are frozen dataclasses."""

    def pairs(self, size: int) -> Pairs:
        """The edges on ``size`` workers, each once, in either direction.

        Raises:
            ConfigError: there is no such graph on so many workers.
        """
        ...

    def __hash__(self) -> int: ...


@register
@dataclass(frozen=True, slots=True)
class Ring:
    """Each worker and the next one: two neighbours, ``w = 1/3``; the gap is ``(2/3) (1 - cos(2 pi / P))``.

    Example:
        >>> neighbours(Ring(), 5, 0)
        (1, 4)
    """

    def pairs(self, size: int) -> Pairs:
        """``size`` edges, one for two workers, none for one."""
        return tuple((rank, (rank + 1) % size) for rank in range(size if size > 2 else size - 1))


@register
@dataclass(frozen=True, slots=True)
class Torus:
    """A grid whose sides meet: four neighbours, ``w = 1/5`` on sides of at least 3.

    Args:
        rows: rows of the grid; the divisor of P nearest to its root from below if not given.

    Example:
        >>> neighbours(Torus(), 9, 0)
        (1, 2, 3, 6)
    """

    rows: int | None = None

    def __post_init__(self) -> None:
        check_types(self)

    def pairs(self, size: int) -> Pairs:
        """The edges to the right and downwards.

        Raises:
            ConfigError: the workers do not fill a grid of at least two rows and two columns.
        """
        rows = self.rows if self.rows is not None else _side(size)
        if size > 1 and (rows < 2 or size % rows or size // rows < 2):
            raise ConfigError(
                f"a torus of {size} workers{'' if self.rows is None else f' in {self.rows} rows'} was asked for; they "
                "must fill a grid of at least 2 rows and 2 columns. Use a ring, or another number of workers"
            )
        columns = size // rows if size > 1 else 1
        found = {
            (min(here, there), max(here, there))
            for row in range(rows if size > 1 else 1)
            for column in range(columns)
            for here in (row * columns + column,)
            for there in (row * columns + (column + 1) % columns, (row + 1) % rows * columns + column)
            if here != there
        }
        return tuple(sorted(found))


@register
@dataclass(frozen=True, slots=True)
class Complete:
    """Every worker with every other: ``w = 1/P``, the gap is 1.

    Example:
        >>> neighbours(Complete(), 3, 1)
        (0, 2)
    """

    def pairs(self, size: int) -> Pairs:
        """All pairs."""
        return tuple((one, other) for one in range(size) for other in range(one + 1, size))


@register
@dataclass(frozen=True, slots=True)
class Edges:
    """The given edges, each as a pair of workers.

    Example:
        >>> star = Edges(((0, 1), (0, 2), (0, 3)))
        >>> neighbours(star, 4, 0), neighbours(star, 4, 2)
        ((1, 2, 3), (0,))
    """

    given: Pairs

    def __post_init__(self) -> None:
        check_types(self)

    def pairs(self, size: int) -> Pairs:
        """As given.

        Raises:
            ConfigError: a worker that is not there, or is its own neighbour.
        """
        for pair in self.given:
            one, other = pair
            if one == other or not all(0 <= rank < size for rank in pair):
                raise ConfigError(
                    f"the edge {pair} was given; it joins two different ones of the workers 0 to {size - 1}"
                )
        return self.given


def neighbours(graph: Graph, size: int, rank: int) -> tuple[int, ...]:
    """The workers that ``rank`` talks to, ascending.

    Raises:
        ConfigError: as :func:`mixing_row`.
    """
    return _adjacency(graph, size)[rank]


def mixing_row(graph: Graph, size: int, rank: int) -> dict[int, float]:
    """The weights of a worker's neighbours and of itself, by rank, ascending: Metropolis-Hastings.

    ``w_ij = 1 / (1 + max(deg_i, deg_j))`` on edges, ``w_ii = 1 - sum_j w_ij``: symmetric and doubly stochastic.

    Raises:
        ConfigError: no such graph on so many workers, or one that is not connected.

    Example:
        >>> mixing_row(Edges(((0, 1), (0, 2))), 3, 1)
        {0: 0.3333333333333333, 1: 0.6666666666666667}
    """
    adjacent = _adjacency(graph, size)
    row = {other: 1.0 / (1 + max(len(adjacent[rank]), len(adjacent[other]))) for other in adjacent[rank]}
    row[rank] = 1.0 - sum(row.values())
    return dict(sorted(row.items()))


def mixing_matrix(graph: Graph, size: int) -> Tensor:
    """The rows of :func:`mixing_row`: f64 ``[size, size]``.

    Raises:
        ConfigError: as :func:`mixing_row`.
    """
    matrix = torch.zeros(size, size, dtype=torch.float64, device=CPU)
    for rank in range(size):
        for other, weight in mixing_row(graph, size, rank).items():
            matrix[rank, other] = weight
    check_doubly_stochastic(matrix)
    return matrix


def check_doubly_stochastic(matrix: Tensor) -> None:
    """Refuse weights under which the mean of the workers would not stay.

    Args:
        matrix: f64 ``[n, n]``.

    Raises:
        ConfigError: not square, a negative weight, or rows or columns that do not add up to 1.

    Example:
        >>> check_doubly_stochastic(torch.full((2, 2), 0.5, dtype=torch.float64))
    """
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ConfigError(f"mixing weights are a square matrix, got shape {tuple(matrix.shape)}")
    off = max(float((matrix.sum(dim) - 1.0).abs().max()) for dim in (0, 1))
    if float(matrix.min()) < -1e-12 or off > 1e-9:
        raise ConfigError(
            f"mixing weights must be at least 0 and add up to 1 in every row and column; the least is "
            f"{float(matrix.min()):.3g}, a sum is off by {off:.3g}"
        )


def spectral_gap(matrix: Tensor) -> float:
    """``delta = 1 - |lambda_2|`` of a symmetric mixing matrix; 1 for one worker.

    Example:
        >>> round(spectral_gap(mixing_matrix(Ring(), 8)), 4)    # (2/3) (1 - cos(pi/4))
        0.1953
    """
    sizes = torch.linalg.eigvalsh(matrix).abs().sort(descending=True).values
    return 1.0 - float(sizes[1]) if sizes.numel() > 1 else 1.0


def beta(matrix: Tensor) -> float:
    """``beta = ||I - W||_2`` of a symmetric mixing matrix.

    Example:
        >>> round(beta(mixing_matrix(Ring(), 8)), 4)
        1.3333
    """
    return float((1.0 - torch.linalg.eigvalsh(matrix)).abs().max())


def _side(size: int) -> int:
    return next((side for side in range(math.isqrt(size), 1, -1) if size % side == 0), 1)


@functools.lru_cache(maxsize=64)
def _adjacency(graph: Graph, size: int) -> tuple[tuple[int, ...], ...]:
    """The neighbours of each worker."""
    found: list[set[int]] = [set() for _ in range(size)]
    for one, other in graph.pairs(size):
        found[one].add(other)
        found[other].add(one)
    reached = frontier = {0}
    while frontier:
        frontier = {other for rank in frontier for other in found[rank]} - reached
        reached = reached | frontier
    if len(reached) < size:
        alone = min(set(range(size)) - reached)
        raise ConfigError(
            f"{graph} does not join worker {alone} to worker 0; {size} workers only agree on a connected graph"
        )
    return tuple(tuple(sorted(each)) for each in found)
