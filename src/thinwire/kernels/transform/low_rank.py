"""Products of a long matrix with a few vectors, and orthonormal vectors, in an order that is the same everywhere."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import array_of, tensor_of
from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import empty
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.reduce.block_norms import fold

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
        return body_for(rows_times_torch, matrix.device)(matrix, vectors)
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
        return body_for(columns_times_torch, matrix.device)(matrix, vectors)
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
    """An orthonormal basis of what the vectors span, by Gram-Schmidt, done twice, in f64.

    A vector of which less than ``1e-5`` is left after the ones before it are taken out becomes zeros. Vectors are
    scaled by their largest entry first, so that no square overflows. Inner products are folded as in
    :func:`rows_times`.

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
    if not vectors.is_cpu:
        return body_for(orthonormal_torch, vectors.device)(vectors)
    # As f64 from and to f32; few vectors, so one thread does.
    basis = vectors.to(torch.float64, copy=True).contiguous()
    _gram_schmidt(array_of(basis), np.empty(vectors.shape[1], np.float64))
    return basis.to(torch.float32)


def orthonormal_torch(vectors: Tensor) -> Tensor:
    """:func:`orthonormal` in torch operations, on any device."""
    basis = vectors.to(torch.float64, copy=True)
    for k, vector in enumerate(basis):
        most = vector.abs().max() if vector.numel() else vector.new_zeros(())
        if not bool(most > 0):
            continue
        vector /= most
        before = _fold_torch(vector * vector)
        for _ in range(2):
            for other in basis[:k]:
                vector -= _fold_torch(other * vector) * other
        square = float(_fold_torch(vector * vector))
        # Not torch's root: on some processors it is not rounded correctly.
        vector *= 1.0 / math.sqrt(square) if square > 1e-10 * float(before) else 0.0
    return basis.to(torch.float32)


def outer_products(left: Tensor, right: Tensor, numel: int) -> Tensor:
    """The first ``numel`` entries of ``left @ right.T``, row by row; products are added up in order, rounded to f32.

    Args:
        left: f32 ``[m, r]``.
        right: f32 ``[n, r]``.
        numel: at most ``m * n``.

    Returns:
        f32 ``[numel]``, new.

    Raises:
        ConfigError: shapes or dtypes that are not as described.

    Example:
        >>> outer_products(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]), 3).tolist()
        [3.0, 4.0, 6.0]
    """
    _check(left, right, right.shape[1:])
    rows, columns = left.shape[0], right.shape[0]
    if left.shape[1] != right.shape[1] or not 0 <= numel <= rows * columns:
        raise ConfigError(
            f"{numel} entries of the product of {tuple(left.shape)} and {tuple(right.shape)} transposed were asked for"
        )
    if not left.is_cpu:
        return body_for(outer_products_torch, left.device)(left, right, numel)
    out = arrays.empty_array(numel, np.float32)
    # The vectors of the rows lie side by side, so that neighbours are multiplied by one number.
    arguments = (array_of(left), array_of(right.T), out)
    run(_outer_products, [(*arguments, start, stop) for start, stop in shares(numel, max(columns, 1))])
    return tensor_of(out)


def outer_products_torch(left: Tensor, right: Tensor, numel: int) -> Tensor:
    """:func:`outer_products` in torch operations, on any device."""
    total = torch.zeros(left.shape[0], right.shape[0], dtype=torch.float32, device=left.device)
    for rank in range(left.shape[1]):
        # Not addr or matmul: they may fuse the product with the sum, which rounds otherwise.
        total += left[:, rank : rank + 1] * right[:, rank]
    return total.view(-1)[:numel]


def _fold_torch(numbers: Tensor) -> Tensor:
    """Their sum by halving, ``a = a[:n/2] + a[n/2:]`` with zeros up to a power of two."""
    size = 1 << max(numbers.numel() - 1, 0).bit_length()
    numbers = torch.nn.functional.pad(numbers, (0, size - numbers.numel()))
    while numbers.numel() > 1:
        half = numbers.numel() // 2
        numbers = numbers[:half] + numbers[half:]
    return numbers[0]


def _check(matrix: Tensor, vectors: Tensor, shape: torch.Size) -> None:
    if matrix.dtype != torch.float32 or matrix.dim() != 2 or vectors.dtype != torch.float32 or vectors.dim() != 2:
        raise ConfigError(f"matrices of float32 are needed, got {matrix.dtype} and {vectors.dtype}")
    if vectors.shape[1:] != shape:
        raise ConfigError(f"a matrix of shape {tuple(matrix.shape)} cannot be multiplied by {tuple(vectors.shape)}")


@kernel
def _rows_times(matrix: Any, vectors: Any, out: Any, first: int, last: int) -> None:
    count = matrix.shape[1]
    products = empty(count, np.float32)
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
def _outer_products(left: Any, right: Any, out: Any, start: int, stop: int) -> None:
    """Entries ``start``, the first of a row, to ``stop``."""
    prefer_wide_vectors()
    columns = right.shape[1]
    ranks = right.shape[0]
    for begin in range(start, stop, columns):
        line = out[begin : min(begin + columns, stop)]
        weights = left[begin // columns]
        for j in range(line.size):
            line[j] = np.float32(0)
        # Pieces that stay in the nearest cache.
        for first in range(0, line.size, 1024):
            part = line[first : first + 1024]
            for k in range(ranks):
                weight = weights[k]
                other = right[k, first : first + part.size]
                for j in range(part.size):
                    part[j] += weight * other[j]


@helper
def _inner(one: Any, other: Any, products: Any) -> Any:
    for j in range(one.size):
        products[j] = one[j] * other[j]
    return fold(products, one.size)


@kernel
def _gram_schmidt(basis: Any, products: Any) -> None:
    for k in range(basis.shape[0]):
        vector = basis[k]
        most = 0.0
        for j in range(vector.size):
            most = max(most, abs(vector[j]))
        if not most > 0.0:
            continue
        for j in range(vector.size):
            vector[j] /= most
        before = _inner(vector, vector, products)
        for _ in range(2):
            for number in range(k):
                other = basis[number]
                overlap = _inner(other, vector, products)
                for j in range(vector.size):
                    vector[j] -= overlap * other[j]
        square = _inner(vector, vector, products)
        scale = 1.0 / np.sqrt(square) if square > 1e-10 * before else 0.0
        for j in range(vector.size):
            vector[j] *= scale
