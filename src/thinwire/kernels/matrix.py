"""Products of a long matrix with a few vectors, and orthonormal vectors, in an order that is the same everywhere."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.measures import fold
from thinwire.kernels.numba_tools import array_of, kernel, tensor_of
from thinwire.kernels.threads import run, shares

_STRIP = 1024
"""Columns whose sums are made at a time."""


def rows_times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """``matrix @ vectors.T``: the inner product of every row with every vector.

    Products are rounded to f32 and folded, ``a = a[:n/2] + a[n/2:]`` with zeros up to a power of two, in f32.

    Args:
        matrix: f32 ``[m, n]``.
        vectors: f32 ``[r, n]``.

    Returns:
        f32 ``[m, r]``.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> rows_times(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0]])).tolist()
        [[3.0], [3.0]]
    """
    _check(matrix, vectors, matrix.shape[1:])
    if not matrix.is_cpu:
        return rows_times_torch(matrix, vectors)
    m, n = matrix.shape
    out = np.zeros((m, vectors.shape[0]), np.float32)
    arguments = (array_of(matrix), array_of(vectors), out)
    run(_rows_times, [(*arguments, a // max(n, 1), b // max(n, 1)) for a, b in shares(m * n, max(n, 1))])
    return tensor_of(out)


def rows_times_torch(matrix: Tensor, vectors: Tensor) -> Tensor:
    """:func:`rows_times` in torch operations, on any device."""
    products = matrix.unsqueeze(1) * vectors.unsqueeze(0)
    size = 1 << max(matrix.shape[1] - 1, 0).bit_length()
    products = torch.nn.functional.pad(products, (0, size - matrix.shape[1]))
    while products.shape[2] > 1:
        half = products.shape[2] // 2
        products = products[:, :, :half] + products[:, :, half:]
    return products[:, :, 0] + 0.0


def columns_times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """``vectors @ matrix``: for each vector the sum of the rows, weighted by its entries, row by row in f32.

    Args:
        matrix: f32 ``[m, n]``.
        vectors: f32 ``[r, m]``.

    Returns:
        f32 ``[r, n]``.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> columns_times(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0]])).tolist()
        [[1.0, 5.0]]
    """
    _check(matrix, vectors, matrix.shape[:1])
    if not matrix.is_cpu:
        return columns_times_torch(matrix, vectors)
    m, n = matrix.shape
    out = np.zeros((vectors.shape[0], n), np.float32)
    arguments = (array_of(matrix), array_of(vectors), out)
    run(_columns_times, [(*arguments, a // max(m, 1), b // max(m, 1)) for a, b in shares(m * n, _STRIP * max(m, 1))])
    return tensor_of(out)


def columns_times_torch(matrix: Tensor, vectors: Tensor) -> Tensor:
    """:func:`columns_times` in torch operations, on any device."""
    total = matrix.new_zeros(vectors.shape[0], matrix.shape[1])
    for row, weights in zip(matrix, vectors.T, strict=True):
        total += weights.unsqueeze(1) * row
    return total


def orthonormal(vectors: Tensor) -> Tensor:
    """An orthonormal basis of what the vectors span, by Gram-Schmidt, done twice, in f64 one entry after another.

    A vector of which less than ``1e-5`` is left after the ones before it are taken out becomes zeros. Vectors are
    scaled by their largest entry first, so that no square overflows.

    Args:
        vectors: f32 ``[r, n]``.

    Returns:
        f32 ``[r, n]``.

    Raises:
        ConfigError: not a matrix of float32.

    Example:
        >>> orthonormal(torch.tensor([[3.0, 4.0], [0.0, 2.0]])) @ torch.tensor([[3.0], [4.0]])
        tensor([[5.],
                [0.]])
    """
    _check(vectors, vectors, vectors.shape[1:])
    # As f64 from and to f32; few vectors, so one thread does.
    basis = vectors.to("cpu", torch.float64, copy=True).contiguous()
    _gram_schmidt(basis.numpy())
    return basis.to(vectors.device, torch.float32)


def _check(matrix: Tensor, vectors: Tensor, shape: torch.Size) -> None:
    if matrix.dtype != torch.float32 or matrix.dim() != 2 or vectors.dtype != torch.float32 or vectors.dim() != 2:
        raise ConfigError(f"matrices of float32 are needed, got {matrix.dtype} and {vectors.dtype}")
    if vectors.shape[1:] != shape:
        raise ConfigError(f"a matrix of shape {tuple(matrix.shape)} cannot be multiplied by {tuple(vectors.shape)}")


@kernel
def _rows_times(matrix: Any, vectors: Any, out: Any, first: int, last: int) -> None:
    count = matrix.shape[1]
    products = np.empty(count, np.float32)
    for i in range(first, last):
        row = matrix[i]
        for k in range(vectors.shape[0]):
            vector = vectors[k]
            for j in range(count):
                products[j] = row[j] * vector[j]
            out[i, k] = np.float32(fold(products, count)) + np.float32(0)


@kernel
def _columns_times(matrix: Any, vectors: Any, out: Any, first: int, last: int) -> None:
    for begin in range(first, last, 1024):
        end = min(begin + 1024, last)
        for i in range(matrix.shape[0]):
            row = matrix[i, begin:end]
            for k in range(vectors.shape[0]):
                weight = vectors[k, i]
                total = out[k, begin:end]
                for j in range(end - begin):
                    total[j] += weight * row[j]


@kernel
def _gram_schmidt(basis: Any) -> None:
    count = basis.shape[1]
    for k in range(basis.shape[0]):
        most = 0.0
        for j in range(count):
            most = max(most, abs(basis[k, j]))
        if not most > 0.0:
            continue
        square = 0.0
        for j in range(count):
            basis[k, j] /= most
            square += basis[k, j] * basis[k, j]
        before = square
        for _ in range(2):
            for other in range(k):
                overlap = 0.0
                for j in range(count):
                    overlap += basis[other, j] * basis[k, j]
                for j in range(count):
                    basis[k, j] -= overlap * basis[other, j]
        square = 0.0
        for j in range(count):
            square += basis[k, j] * basis[k, j]
        scale = 1.0 / np.sqrt(square) if square > 1e-10 * before else 0.0
        for j in range(count):
            basis[k, j] *= scale
