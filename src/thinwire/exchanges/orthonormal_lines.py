"""Steps that are orthonormal in a few rows or columns of each matrix, drawn alike on all workers."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.compressors import Identity
from thinwire.compressors.base import Compressor
from thinwire.compressors.seeded_rand_k import common_key
from thinwire.config import Share, check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges.base import Aggregate, Context
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.sample.subset import random_subset
from thinwire.kernels.transform.low_rank import columns_times, rows_times
from thinwire.layout import State
from thinwire.memory.handed import Handed
from thinwire.memory.sender import Sender, first_nonfinite
from thinwire.payloads import Dense, Sparse
from thinwire.random import Key
from thinwire.steps import Steps, all_gather, all_reduce
from thinwire.wire import encode

_QUINTIC = (3.4445, -4.775, 2.0315)
"""Muon's: five steps bring every singular value that is not tiny to between about .7 and 1.2."""
_NUM_STEPS = 5
_EPS = 1e-7


@register
@dataclass(frozen=True, slots=True)
class OrthonormalLines:
    """``sqrt(m / n) orth(mean of S_i)``, of ``share`` of the rows, or of the columns if these are fewer; 0 elsewhere.

    Which lines S is drawn anew for each exchange, alike on all workers, so that only they are all-reduced. A tensor of
    two or more dimensions is a matrix of ``shape[0]`` rows; other tensors are all-reduced as they are, and workers go
    on with their sign. The nearest orthonormal matrix is found by the five Newton-Schulz steps of Muon (Jordan et al.
    2024). What counts as sent are a worker's own lines, so that a memory can let them fade and keep the others (Dion2,
    Ahn, Amsel, Langford 2025). ``message_bytes`` are those of the f32 that are all-reduced.

    Args:
        share: of the lines of each matrix, above 0, at most 1: a number, or text such as ``"25%"``; one at least.

    Raises:
        ConfigError: a share out of range.
    """

    share: Share = 0.25

    needs_linear: ClassVar[bool] = True
    """Lines are added as they are."""

    workers_agree: ClassVar[bool] = True
    """All make the same of the same mean."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"a share of {self.share} of the lines was asked for; it is above 0 and at most 1")

    def init(self, ctx: Context, compressor: Compressor) -> State:
        """Nothing is remembered.

        Raises:
            ConfigError: a compressor, which would have no effect.
        """
        if not isinstance(compressor, Identity):
            raise ConfigError(
                f"{compressor} has no effect with OrthonormalLines, which chooses by itself what is sent; leave it out"
            )
        return {}

    def run(self, x: Handed, sender: Sender, ctx: Context, state: State) -> Steps[Aggregate]:
        """One all-reduce, of the lines and of what is no matrix."""
        intended = sender.add_residual(x)
        parts = self._draw(ctx)
        indices = torch.cat([part.indices for part in parts])
        own = intended.index_select(0, indices)
        # What is not finite may lie outside of the lines: a flag tells all.
        is_fine = is_finite(intended)
        handed_over = zeros(own.numel() + 1, ctx.device)
        if is_fine:
            handed_over[:-1] = own
        else:
            handed_over[-1] = 1.0
        num_bytes = handed_over.nbytes
        mean = yield from all_reduce(handed_over, divisor=ctx.size)
        sent = Sparse(intended.numel(), indices, Dense(own))
        if float(mean[-1]) > 0.0:
            told = encode(first_nonfinite(intended))
            spoilt, _ = yield from all_gather(told, ctx.reader.mean, ctx.max_num_bytes)
            return Aggregate(spoilt, False, num_bytes, sent, ctx.size)
        if not is_finite(mean):
            return Aggregate(Sparse(intended.numel(), indices, Dense(mean[:-1])), False, num_bytes, sent, ctx.size)
        result = zeros(intended.numel(), ctx.device)
        for part, values in zip(parts, torch.split(mean[:-1], [part.indices.numel() for part in parts]), strict=True):
            result[part.indices] = part.step(values)
        sender.commit(sent)
        return Aggregate(result, True, num_bytes, sent, ctx.size, state)

    def _draw(self, ctx: Context) -> "list[Lines]":
        found, start = [], 0
        key = common_key(ctx.key)
        for number, shape in enumerate(ctx.layout.shapes):
            found.append(_lines(shape, start, self.share, key.fold("lines", number), ctx.device))
            start += math.prod(shape)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Entries of one tensor: lines of a matrix of ``rows`` and ``columns``, or all of it if there are no rows.

    Args:
        indices: in the vector, ascending.
        rows: of the whole matrix.
        columns: of the whole matrix.
        are_rows: whether the lines are rows.
    """

    indices: Tensor
    rows: int
    columns: int
    are_rows: bool

    def step(self, values: Tensor) -> Tensor:
        """What becomes of the entries' mean."""
        if not self.rows:
            return values.sign()
        lines = values.view(-1, self.columns) if self.are_rows else values.view(self.rows, -1).T.contiguous()
        found = orthonormal_near(lines) * math.sqrt(self.rows / self.columns)
        return (found if self.are_rows else found.T).reshape(-1)


def _lines(shape: torch.Size, start: int, share: float, key: Key, device: torch.device) -> Lines:
    numel = math.prod(shape)
    if len(shape) < 2 or not numel:
        return Lines(torch.arange(start, start + numel, dtype=torch.int64, device=device), 0, 0, True)
    rows, columns = shape[0], numel // shape[0]
    are_rows = rows <= columns
    length = min(rows, columns)
    drawn = random_subset(key.bits64(), length, max(1, math.ceil(share * length)), device=device)
    heads = drawn * columns if are_rows else torch.arange(rows, dtype=torch.int64, device=device) * columns
    tails = torch.arange(columns, dtype=torch.int64, device=device) if are_rows else drawn
    return Lines(start + (heads.unsqueeze(1) + tails).reshape(-1), rows, columns, are_rows)


def orthonormal_near(lines: Tensor) -> Tensor:
    """About the nearest matrix to ``lines`` (f32 ``[k, n]``) with orthonormal rows: ``U V^T``, singular values near 1.

    Example:
        >>> found = orthonormal_near(torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        >>> [0.6 < value < 1.3 for value in torch.linalg.svdvals(found).tolist()]
        [True, True]
    """
    a, b, c = _QUINTIC
    largest = lines.abs().max() if lines.numel() else lines.new_zeros(())
    scaled = lines / torch.where(largest > 0, largest, torch.ones_like(largest))  # whose squares do not overflow
    found = scaled / (rows_times(scaled.reshape(1, -1), scaled.reshape(1, -1)).sqrt() + _EPS)
    for _ in range(_NUM_STEPS):
        products = rows_times(found, found)
        factors = products * b + rows_times(products, products) * c
        found = found * a + columns_times(found, factors)
    return found
