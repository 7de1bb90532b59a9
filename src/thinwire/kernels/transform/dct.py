"""The discrete cosine transform of squares of entries, as products with a small matrix.

Products with the whole matrix, not a fast transform: for the sides in use (64) they take about as long as copying the
vector three times, and their sums have one order that is easily stated.
"""

import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import CPU, array_of, tensor_of, to_device
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries
from thinwire.kernels.jit.compiling import helper, intrinsic, kernel, types
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.hints import always_inline, prefer_wide_vectors
from thinwire.kernels.jit.intrinsics import zeros
from thinwire.kernels.jit.simd import LANES, address, load, spread, store, vector
from thinwire.kernels.jit.threads import run, shares
from thinwire.memo import Memo

_ROWS: Final = 8
_COLUMNS: Final = 2 * LANES
"""A tile of the product that is summed up in registers."""


def cosine_transform(x: Tensor, side: int, *, inverse: bool = False) -> Tensor:
    """The orthonormal 2-D DCT-II of every whole chunk of ``side * side`` entries, or its inverse.

    A chunk ``X``, read row by row, becomes ``(B @ X) @ B.T`` with ``B`` of :func:`cosine_basis`; inverse ``(B.T @ X) @
    B``. Sums of products are taken in order from 0 on, each product and each sum rounded to f32. Entries behind the
    last whole chunk are copied.

    Args:
        x: f32 ``[d]``.
        side: 1 or more.
        inverse: undo it, up to rounding.

    Returns:
        f32 ``[d]``, new.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.arange(9.0)
        >>> bool(torch.allclose(cosine_transform(cosine_transform(x, 2), 2, inverse=True), x, atol=1e-5))
        True
    """
    check_entries(x)
    if side < 1:
        raise ConfigError(f"squares of side {side} were asked for; a side is 1 or more")
    if not x.is_cpu:
        return body_for(cosine_transform_torch, x.device)(x, side, inverse=inverse)
    source, target = array_of(x), arrays.empty_array(x.numel(), np.float32)
    area = side * side
    whole = source.size // area * area
    target[whole:] = source[whole:]
    if not whole:
        return tensor_of(target)  # the matrix of a large side must not be made for a short vector
    left, right = _PADDED_BASES((side, inverse))
    calls = [(source, target, side, a, b, left, right) for a, b in shares(whole, area)]
    run(_transform_range, calls)
    return tensor_of(target)


def cosine_transform_torch(x: Tensor, side: int, *, inverse: bool = False) -> Tensor:
    """:func:`cosine_transform` in torch operations, on any device."""
    whole = x.numel() // (side * side) * side * side
    if not whole:
        return x.clone()
    chunks = x[:whole].view(-1, side, side)
    matrix = to_device(cosine_basis(side), x.device)
    left = matrix.T if inverse else matrix
    # (left @ chunk) @ left.T: rows are mixed, the result turned over, and rows mixed again.
    mixed = _mix(left, _mix(left, chunks).transpose(1, 2)).transpose(1, 2)
    return torch.cat([mixed.reshape(-1), x[whole:]])


def cosine_basis(side: int) -> Tensor:
    """The orthonormal DCT-II matrix: row ``k`` is ``c_k cos(pi (2 j + 1) k / (2 n))``, f32; do not write to it.

    Example:
        >>> bool((cosine_basis(8) @ cosine_basis(8).T - torch.eye(8)).abs().max() < 1e-6)
        True
    """
    return _BASES(side)


def _make_basis(side: int) -> Tensor:
    k = torch.arange(side, dtype=torch.float64, device=CPU)
    rows = torch.cos(math.pi * (2 * k + 1) * k.unsqueeze(1) / (2 * side)) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows.to(torch.float32)


def _mix(matrix: Tensor, chunks: Tensor) -> Tensor:
    """``matrix @ chunk`` for every chunk; not by matmul, which may add in any order."""
    total = torch.zeros_like(chunks, memory_format=torch.contiguous_format)
    for j in range(matrix.shape[1]):
        total += matrix[:, j].view(1, -1, 1) * chunks[:, j : j + 1, :]
    return total


def _make_padded_bases(side_and_inverse: tuple[int, bool]) -> tuple[Any, Any]:
    """The matrix before a chunk and the one after it, with zeros up to whole tiles."""
    side, inverse = side_and_inverse
    basis = cosine_basis(side).T if inverse else cosine_basis(side)
    left = np.zeros((_up(side, _ROWS), side), np.float32)
    right = np.zeros((side, _up(side, _COLUMNS)), np.float32)
    left[:side], right[:, :side] = basis.numpy(), basis.numpy().T
    return left.reshape(-1), right.reshape(-1)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


_BASES = Memo(_make_basis, lambda _, basis: basis.nbytes, 1 << 22)
_PADDED_BASES = Memo(_make_padded_bases, lambda _, bases: sum(each.nbytes for each in bases), 1 << 23)


def _multiply_tile(
    typing_context: Any, a: Any, a_at: Any, a_stride: Any, b: Any, b_at: Any, b_stride: Any, c: Any, c_at: Any,
    c_stride: Any, count: Any,
) -> Any:  # fmt: skip
    """8 rows and 32 columns of a product: ``C[i, k] = 0 + A[i, 0] B[0, k] + ... + A[i, count - 1] B[count - 1, k]``.

    Each matrix lies in an array from a position on, its rows a stride apart.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        row = vector(ir.FloatType())
        kinds = signature.args
        factor = address(context, builder, kinds[0], arguments[0], arguments[1])
        lines = address(context, builder, kinds[3], arguments[3], arguments[4])
        target = address(context, builder, kinds[6], arguments[6], arguments[7])
        count = arguments[9]

        def far(pointer: Any, stride: Any, number: int, more: Any) -> Any:
            return builder.gep(pointer, [builder.add(builder.mul(stride, stride.type(number)), more)])

        zero = ir.Constant(row, [ir.Constant(ir.FloatType(), 0.0)] * LANES)
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        step = builder.phi(count.type)
        sums = [builder.phi(row) for _ in range(2 * _ROWS)]
        step.add_incoming(count.type(0), before)
        for total in sums:
            total.add_incoming(zero, before)
        builder.cbranch(builder.icmp_signed("<", step, count), body, after)
        builder.position_at_end(body)
        line = builder.gep(lines, [builder.mul(step, arguments[5])])
        columns = [load(builder, builder.gep(line, [step.type(LANES * part)]), row) for part in range(2)]
        for number in range(_ROWS):
            weight = spread(builder, builder.load(far(factor, arguments[2], number, step)))
            for part in range(2):
                total = sums[2 * number + part]
                total.add_incoming(builder.fadd(total, builder.fmul(weight, columns[part])), body)
        step.add_incoming(builder.add(step, step.type(1)), body)
        builder.branch(head)
        builder.position_at_end(after)
        for number in range(_ROWS):
            for part in range(2):
                place = far(target, arguments[8], number, count.type(LANES * part))
                store(builder, sums[2 * number + part], place)
        return context.get_dummy_value()

    index = types.intp
    return types.void(a, index, index, b, index, index, c, index, index, index), generate


multiply_tile: Any = intrinsic(_multiply_tile)


@helper
def _multiply(
    a: Any, a_at: int, a_stride: int, b: Any, b_at: int, b_stride: int, c: Any, c_at: int, c_stride: int, count: int,
    rows: int, columns: int,
) -> None:  # fmt: skip
    """``rows`` and ``columns`` of a product, whole tiles of them."""
    prefer_wide_vectors()
    always_inline()
    for i in range(0, rows, 8):
        for k in range(0, columns, 32):
            multiply_tile(
                a, a_at + i * a_stride, a_stride, b, b_at + k, b_stride, c, c_at + i * c_stride + k, c_stride, count
            )


@kernel
def _transform_range(source: Any, target: Any, side: int, start: int, stop: int, left: Any, right: Any) -> None:
    """The whole chunks from ``start`` to ``stop``."""
    prefer_wide_vectors()
    rows, wide = (side + 7) // 8 * 8, (side + 31) // 32 * 32
    half = zeros(rows * wide, np.float32)
    # Chunks of whole tiles are read and written where they lie.
    fits = wide == side
    chunk = zeros(side * wide, np.float32)
    result = zeros(rows * wide, np.float32)
    for begin in range(start, stop, side * side):
        if fits:
            _multiply(left, 0, side, source, begin, side, half, 0, wide, side, rows, wide)
            _multiply(half, 0, wide, right, 0, wide, target, begin, side, side, rows, wide)
            continue
        for i in range(side):
            for j in range(side):
                chunk[i * wide + j] = source[begin + i * side + j]
        _multiply(left, 0, side, chunk, 0, wide, half, 0, wide, side, rows, wide)
        _multiply(half, 0, wide, right, 0, wide, result, 0, wide, side, rows, wide)
        for i in range(side):
            for j in range(side):
                target[begin + i * side + j] = result[i * wide + j]
