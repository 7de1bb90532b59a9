"""A vector in the coordinates of the discrete cosine transform."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.payloads.base import Payload, add_dense


@dataclass(frozen=True, slots=True, eq=False)
class Cosine:
    """The vector whose chunks of ``side * side`` entries have the orthonormal 2-D DCT ``inner``, row by row.

    Every whole chunk ``Y`` of the inner vector, as a matrix, stands for ``B.T @ Y @ B`` with ``B`` of :func:`basis`;
    what is left at the end stands for itself.

    Example:
        >>> from thinwire.payloads import Dense
        >>> Cosine(Dense(torch.tensor([2.0, 0.0, 0.0, 0.0, 7.0])), 2).to_dense().round(decimals=6).tolist()
        [1.0, 1.0, 1.0, 1.0, 7.0]
    """

    inner: Payload
    side: int

    @property
    def numel(self) -> int:
        """Length of the vector."""
        return self.inner.numel

    def to_dense(self) -> Tensor:
        """The inner vector, transformed back."""
        return transform(self.inner.to_dense(), self.side, inverse=True)

    def add_to(self, out: Tensor, scale: float = 1.0) -> None:
        """``out += scale * vector``, entry by entry."""
        add_dense(self.to_dense(), out, scale)


@functools.lru_cache(maxsize=16)
def basis(side: int) -> Tensor:
    """The orthonormal DCT-II matrix: row ``k`` is ``c_k cos(pi (2 j + 1) k / (2 n))``, f32; do not write to it.

    Example:
        >>> bool((basis(8) @ basis(8).T - torch.eye(8)).abs().max() < 1e-6)
        True
    """
    k = torch.arange(side, dtype=torch.float64)
    rows = torch.cos(math.pi * (2 * k + 1) * k.unsqueeze(1) / (2 * side)) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows.to(torch.float32)


def transform(x: Tensor, side: int, *, inverse: bool = False) -> Tensor:
    """The DCT of every whole chunk of ``side * side`` entries of ``x``, or its inverse; a new vector.

    Sums of products are taken in order, each rounded to f32, so that every machine gets the same bits.

    Example:
        >>> x = torch.arange(9.0)
        >>> bool(torch.allclose(transform(transform(x, 2), 2, inverse=True), x, atol=1e-5))
        True
    """
    whole = x.numel() // (side * side) * side * side
    if not whole:
        return x.clone()
    chunks = x[:whole].view(-1, side, side)
    matrix = basis(side).to(x.device)
    left = matrix.T if inverse else matrix
    # (left @ chunk) @ left.T: rows are mixed, the result turned over, and rows mixed again.
    mixed = _mix(left, _mix(left, chunks).transpose(1, 2)).transpose(1, 2)
    return torch.cat([mixed.reshape(-1), x[whole:]])


def _mix(matrix: Tensor, chunks: Tensor) -> Tensor:
    """``matrix @ chunk`` for every chunk; not by matmul, which may add in any order."""
    total = torch.zeros_like(chunks, memory_format=torch.contiguous_format)
    for j in range(matrix.shape[1]):
        total += matrix[:, j].view(1, -1, 1) * chunks[:, j : j + 1, :]
    return total
