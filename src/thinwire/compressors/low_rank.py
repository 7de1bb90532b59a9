"""A matrix by its projection to a few directions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import copy_of, to_device
from thinwire.compressors.base import Traits, check_vector, outline_of_zeros
from thinwire.compressors.shortening import shortened
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.random.philox import uniform
from thinwire.kernels.transform.low_rank import columns_times, orthonormal, rows_times
from thinwire.layout import Segments
from thinwire.payloads import Concat, Dense, Payload
from thinwire.payloads import LowRank as LowRankPayload
from thinwire.random import Key


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """``C(M) = M V V^T`` (or ``U U^T M``), r orthonormal directions V found by subspace iteration from a random start.

    Each segment is read row by row as a matrix of m rows and n columns, the last row filled up with zeros. From r
    random vectors of the shorter side, r products with the matrix, made orthonormal, give the directions:
    ``V = orth(M^T U)`` for ``m <= n``. Each further round goes there and back.
    Segments too small to gain are sent as they are.

    Constant: ``gamma >= r / min(m, n)``, attained where all singular values are equal: of r directions taken at random
        from the shorter side the matrix keeps as much in expectation, and each product with it only keeps more
        (Cauchy-Schwarz). A matrix of rank at most r is sent exactly.
    Bits: ``32 r (m + n)``, or ``32 m n`` if that is less.
    Paper: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical low-rank gradient compression for distributed
        optimization", NeurIPS 2019. A warm start from the last step's directions, the mean of the factors over workers
        (``linear`` there) and error feedback are the method's business, not the operator's: here every message starts
        anew and stands for itself, and messages of different workers do not add.
    Use it when: gradients of weight matrices are nearly of low rank: make each tensor a segment and give ``columns``.

    Args:
        rank: r, 1 or more.
        rounds: subspace iterations, 1 or more.
        columns: n; if not given the least divisor of the size from its root on, if it is at most twice the root, else
            the root rounded up.

    Raises:
        ConfigError: a number below 1.

    Example:
        >>> outer = torch.outer(torch.arange(1.0, 9.0), torch.tensor([1.0, -1.0] * 4)).view(-1)
        >>> payload = LowRank(rank=1, columns=8).compress(outer, Key(0), Segments.whole(64))
        >>> bool((payload.to_dense() - outer).abs().max() < 1e-5)
        True
    """

    rank: int
    rounds: int = 1
    columns: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.rank < 1 or self.rounds < 1 or (self.columns is not None and self.columns < 1):
            raise ConfigError(
                f"rank {self.rank}, {self.rounds} rounds, {self.columns} columns were asked for; each is 1 or more"
            )

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """Two thin factors for each segment, or the segment itself."""
        check_vector(x, segments)
        return shortened(lambda x: self._compress(x, key, segments), x)

    def _compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        if segments.count == 1:
            return self._one(x, key)
        sizes: list[int] = segments.offsets().diff().tolist()
        parts = [self._one(part, key.fold("segment", number)) for number, part in enumerate(torch.split(x, sizes))]
        return Concat(tuple(parts)) if parts else Dense(copy_of(x))

    def outline(self, segments: Segments) -> Payload:
        """Every payload for the same segments has the same shape."""
        return outline_of_zeros(self, segments)

    def traits(self, numel: int) -> Traits:
        """A contraction with ``gamma >= r / min(m, n)``."""
        rows, columns = self._shape(numel)
        if self._is_dense(rows, columns, numel):
            return Traits(unbiased=True, error=0.0)
        return Traits(unbiased=False, error=max(0.0, 1.0 - self.rank / min(rows, columns)))

    def _shape(self, numel: int) -> tuple[int, int]:
        columns = self.columns if self.columns is not None else _columns(numel)
        return -(-numel // columns), columns

    def _is_dense(self, rows: int, columns: int, numel: int) -> bool:
        return self.rank * (rows + columns) >= numel

    def _one(self, x: Tensor, key: Key) -> Payload:
        rows, columns = self._shape(x.numel())
        if self._is_dense(rows, columns, x.numel()):
            return Dense(copy_of(x))
        matrix = torch.nn.functional.pad(x, (0, rows * columns - x.numel())).view(rows, columns)
        # Symmetric about 0 and never 0.
        start = uniform(key.bits64(), 0, self.rank * min(rows, columns)) * 2.0 - (1.0 - 2.0**-24)
        basis = orthonormal(to_device(start.view(self.rank, -1), x.device))
        is_wide = rows <= columns
        for number in range(2 * self.rounds - 1):
            # Over to the other side, and back again before each further round.
            over = is_wide == (number % 2 == 0)
            basis = orthonormal(columns_times(matrix, basis) if over else rows_times(matrix, basis).T.contiguous())
        if is_wide:
            return LowRankPayload(rows_times(matrix, basis), basis.T.contiguous(), x.numel())
        return LowRankPayload(basis.T.contiguous(), columns_times(matrix, basis).T.contiguous(), x.numel())


def _columns(numel: int) -> int:
    root = math.isqrt(max(numel - 1, 0)) + 1
    return next((n for n in range(root, 2 * root + 1) if numel % n == 0), root)
