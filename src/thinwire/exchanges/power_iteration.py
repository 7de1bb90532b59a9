"""Means of matrices by a few directions that all workers agree on."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors import Identity
from thinwire.compressors.base import Compressor, segment_traits
from thinwire.compressors.seeded_rand_k import common_key
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.exchanges.recompression import max_relayed_num_bytes, relayed_kinds
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.random.philox import uniform
from thinwire.kernels.reduce.segment_sums import segment_sums
from thinwire.kernels.transform.low_rank import columns_times, orthonormal, rows_times
from thinwire.layout import Layout, Segments, State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Concat, Dense, LowRank, Payload
from thinwire.steps import Steps, all_gather, all_reduce
from thinwire.wire import encode


@register
@dataclass(frozen=True, slots=True)
class PowerIteration:
    """``P = orth(mean M Q)``, ``Q = mean M^T P``, mean ``P Q^T``: one step of power iteration an exchange (PowerSGD).

    A tensor of two or more dimensions is a matrix of ``shape[0]`` rows. Products are linear in M, so factors are
    all-reduced, ``rank (m + n)`` numbers for a matrix of m rows and n columns. Other tensors, and matrices that would
    take as many numbers, are all-reduced as they are. Q is where the next exchange begins, made orthonormal, which
    changes nothing but the range of numbers; directions that have vanished are drawn anew, alike on all workers.

    What counts as sent is, of a matrix, the worker's own part of the mean, ``P P^T M``, so that a memory keeps what the
    directions leave out of the worker's own matrix; of what is sent as it is, the worker's own entries. The mean over
    workers of what is sent is the aggregate. The paper takes the mean ``P Q^T`` as sent by every worker (Vogels et al.
    2019, Alg. 1): ``counts_as_sent="mean"``. The iterates are the same, since they depend on the mean of the memories
    alone. But then what the workers' matrices do not have in common stays in their memories for ever, and grows with
    every exchange until f32 is too coarse for what is to be sent; a worker's own rest is sent as the directions come
    round. ``message_bytes`` are those of the f32 that are all-reduced.

    What workers go on with may be orthonormal instead of the mean (Dion, Ahn et al. 2025): ``sqrt(m / n) P N^T``, where
    N is Q with columns of length 1, so that every direction counts alike; and the sign of what is sent as it is. What
    is sent, and so what a memory keeps, is the same. Matrices then have at most the rank by which they still gain.

    Args:
        rank: of the approximation, 1 or more.
        warm_start: whether Q is kept; else each exchange begins with random directions.
        counts_as_sent: ``"own"`` or ``"mean"``, see above.
        result: ``"mean"`` or ``"orthonormal"``, see above.
        factors: compresses P and Q, and what is sent as it is, each factor a segment; they are gathered then, and what
            counts as sent is of the factor as it was decoded (DiLoCoX, Qi et al. 2025: 4 bits).

    Raises:
        ConfigError: a rank below 1, an unknown share or result; on a model: factors are compressed to more than 100 %
            error.
    """

    rank: int = 2
    warm_start: bool = True
    counts_as_sent: Literal["own", "mean"] = "own"
    result: Literal["mean", "orthonormal"] = "mean"
    factors: Compressor = Identity()

    def __post_init__(self) -> None:
        check_types(self)
        if self.rank < 1:
            raise ConfigError(f"matrices of rank {self.rank} were asked for; a rank is 1 or more")

    needs_linear: ClassVar[bool] = True
    """Factors are added as they are."""

    workers_agree: ClassVar[bool] = True
    """All multiply the same factors."""

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Random directions for every matrix, one after another.

        Raises:
            ConfigError: a compressor, which would have no effect, or factors that are no contraction.
        """
        if not isinstance(compressor, Identity):
            raise ConfigError(
                f"{compressor} has no effect with PowerIteration, which compresses by itself; leave it out"
            )
        parts = self._plan(ctx.layout)
        error = max(segment_traits(self.factors, cut).error for cut in self._cuts(parts))
        if error >= 1.0:
            raise ConfigError(
                f"{self.factors} has the error constant {error:.3g} on a factor of this model, and the memory of what "
                "messages leave out needs less than 1; take more levels or Bins"
            )
        return self._draw(ctx) if self.warm_start else {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """Two sums: of P and what is not a matrix, then of Q."""
        intended = sender.add_residual(x)
        parts = self._plan(ctx.layout)
        names = _directions(ctx.layout, parts)
        matrices = [intended[part.start : part.stop].view(part.rows, part.columns) for part in parts if part.rank]
        ranks = [part.rank for part in parts if part.rank]
        dense = [intended[part.start : part.stop] for part in parts if not part.rank]
        begin = state if self.warm_start else self._draw(ctx)
        lefts = [rows_times(matrix, begin[name]) for matrix, name in zip(matrices, names, strict=True)]
        mine = torch.cat([*(left.view(-1) for left in lefts), *dense])
        of_left, of_right = self._cuts(parts)
        mean_left, sent_left, num_bytes = yield from self._mean(mine, of_left, ctx, "left")
        heights = [rank * len(matrix) for rank, matrix in zip(ranks, matrices, strict=True)]
        *lefts, rest = torch.split(mean_left, [*heights, mine.numel() - sum(heights)])
        if not is_finite(mean_left):
            return Aggregate(_spoilt(parts, lefts, rest), False, num_bytes, Dense(intended), ctx.size)
        bases = [orthonormal(left.view(-1, rank).T.contiguous()) for left, rank in zip(lefts, ranks, strict=True)]
        rights = [columns_times(matrix, basis).view(-1) for matrix, basis in zip(matrices, bases, strict=True)]
        mean_right = sent_right = mine[:0]
        if rights:
            mean_right, sent_right, more = yield from self._mean(torch.cat(rights), of_right, ctx, "right")
            num_bytes += more
        factors = _factors(mean_right, rights, ranks)
        products = _products(bases, factors, matrices)
        if self.result == "mean":
            mean = _in_order(parts, [product.to_dense() for product in products], rest)
        else:
            even = _products(
                bases, [_evened(factor, len(m)) for factor, m in zip(factors, matrices, strict=True)], matrices
            )
            mean = _in_order(parts, [product.to_dense() for product in even], rest.sign())
        if self.counts_as_sent == "own":
            products = _products(bases, _factors(sent_right, rights, ranks), matrices)
        sent = _sent(parts, products, sent_left[sum(heights) :])
        finite = is_finite(mean)
        if finite:
            sender.commit(sent)
        following = self._next(ctx, dict(zip(names, factors, strict=True))) if self.warm_start and finite else state
        return Aggregate(mean, finite, num_bytes, sent, ctx.size, following)

    def _cuts(self, parts: Sequence["Part"]) -> tuple[Segments, Segments]:
        """Each factor a segment: of P and what is not a matrix, and of Q."""
        rest = [part.stop - part.start for part in parts if not part.rank]
        left = [*(part.rank * part.rows for part in parts if part.rank), *rest]
        return Segments.of_sizes(left), Segments.of_sizes(part.rank * part.columns for part in parts if part.rank)

    def _mean(self, own: Tensor, cut: Segments, ctx: Context, what: str) -> Steps[tuple[Tensor, Tensor, int]]:
        """The workers' mean, what this one's part of it is, and the bytes handed over."""
        if isinstance(self.factors, Identity):
            mean = yield from all_reduce(own, divisor=ctx.size)
            return mean, own, own.nbytes
        payload: Payload = first_nonfinite(own)
        if is_finite(own):
            payload = self.factors.compress(own, ctx.key.fold("factors", what), cut)
        message = encode(payload)
        reader = ctx.reader.with_numel(own.numel()).with_kinds(relayed_kinds(self.factors, cut))
        mean, _ = yield from all_gather(message, reader.mean, max_relayed_num_bytes(self.factors, cut))
        return mean, payload.to_dense(), message.numel()

    def _plan(self, layout: Layout) -> "tuple[Part, ...]":
        return plan(layout, self.rank, fits=self.result == "orthonormal")

    def _draw(self, ctx: Context) -> State:
        parts = self._plan(ctx.layout)
        shapes = [(part.rank, part.columns) for part in parts if part.rank]
        names = _directions(ctx.layout, parts)
        return {
            name: _random(ctx, number, math.prod(shape)).view(shape)
            for number, (name, shape) in enumerate(zip(names, shapes, strict=True))
        }

    def _next(self, ctx: Context, factors: State) -> State:
        found = {}
        for number, (name, factor) in enumerate(factors.items()):
            basis = found[name] = orthonormal(factor.contiguous())
            has_vanished = ~basis.any(dim=1)
            if bool(has_vanished.any()):
                basis[has_vanished] = _random(ctx, number, basis.numel()).view_as(basis)[has_vanished]
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """Entries ``start`` to ``stop``: a matrix, of which so many directions are sent, or if none are all of it is."""

    start: int
    stop: int
    rows: int
    columns: int
    rank: int


@functools.lru_cache(maxsize=16)
def plan(layout: Layout, rank: int, fits: bool = False) -> tuple[Part, ...]:
    """What becomes of each tensor.

    Args:
        layout: of the tensors.
        rank: of factors.
        fits: whether a matrix that would not gain by it has a lower rank, by which it does.

    Example:
        >>> layout = Layout(("w", "b"), (torch.Size([8, 3, 4]), torch.Size([8])))
        >>> [part.rank for part in plan(layout, 2)], [part.rank for part in plan(layout, 9, fits=True)]
        ([2, 0], [4, 0])
    """
    parts = []
    start = 0
    for shape in layout.shapes:
        numel = math.prod(shape)
        rows, columns = (shape[0], numel // shape[0]) if len(shape) > 1 and numel else (1, numel)
        most = max(numel - 1, 0) // (rows + columns) if rows > 1 and columns > 1 else 0
        parts.append(Part(start, start + numel, rows, columns, rank if rank <= most else most if fits else 0))
        start += numel
    return tuple(parts)


def _directions(layout: Layout, parts: Sequence[Part]) -> list[str]:
    """What the state calls Q of each matrix: ``[rank, columns]``, known by its parameter."""
    return [f"directions.{name}" for name, part in zip(layout.names, parts, strict=True) if part.rank]


def _evened(factor: Tensor, rows: int) -> Tensor:
    """The columns of a right factor, one a row, all of one length: ``sqrt(rows / columns)``; one of zeros stays so."""
    squares = segment_sums(factor.reshape(-1), Segments.uniform(factor.numel(), factor.shape[1]).offsets(), 2)
    scales = (squares.sqrt() + _EPS).reciprocal() * math.sqrt(rows / factor.shape[1])
    return factor * scales.to(torch.float32).unsqueeze(1)


_EPS = 1e-8


def _random(ctx: Context, number: int, count: int) -> Tensor:
    """Symmetric about 0 and never 0, the same on all workers."""
    draws = uniform(common_key(ctx.key).fold("directions", number).bits64(), 0, count, ctx.device)
    return draws * 2.0 - (1.0 - 2.0**-24)


def _products(bases: Sequence[Tensor], factors: Sequence[Tensor], matrices: Sequence[Tensor]) -> list[LowRank]:
    """``P Q^T`` of each matrix."""
    return [
        LowRank(basis.T.contiguous(), factor.T.contiguous(), matrix.numel())
        for matrix, basis, factor in zip(matrices, bases, factors, strict=True)
    ]


def _in_order(parts: Sequence[Part], matrices: Sequence[Tensor], rest: Tensor) -> Tensor:
    """The vector, of the entries of the matrices and of the rest."""
    of_matrices, of_rest = iter(matrices), iter(torch.split(rest, [p.stop - p.start for p in parts if not p.rank]))
    return torch.cat([next(of_matrices if part.rank else of_rest) for part in parts])


def _factors(joined: Tensor, like: Sequence[Tensor], ranks: Sequence[int]) -> list[Tensor]:
    """Right factors, ``[rank, columns]``, of all of them one after another."""
    split = torch.split(joined, [each.numel() for each in like])
    return [part.view(rank, -1) for part, rank in zip(split, ranks, strict=True)]


def _sent(parts: Sequence[Part], products: Sequence[LowRank], rest: Tensor) -> Payload:
    of_matrices, of_rest = iter(products), iter(torch.split(rest, [p.stop - p.start for p in parts if not p.rank]))
    return Concat(tuple(next(of_matrices) if part.rank else Dense(next(of_rest).clone()) for part in parts))


def _spoilt(parts: Sequence[Part], lefts: Sequence[Tensor], rest: Tensor) -> Tensor:
    """Zeros with the entries that are not finite; all of a matrix whose factor is not."""
    numels = [part.stop - part.start for part in parts if part.rank]
    filled = [
        zeros(numel, left.device) if is_finite(left) else zeros(numel, left.device).fill_(torch.nan)
        for numel, left in zip(numels, lefts, strict=True)
    ]
    return _in_order(parts, filled, rest)
