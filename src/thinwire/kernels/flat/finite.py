"""Passes over a vector that find NaN and inf on the way, so that looking for them costs no pass of its own."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of, divisor_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.checks import check_entries
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import seen_as
from thinwire.kernels.jit.threads import STREAMED_NS, run, shares

LARGEST = float(np.finfo(np.float32).max) * (1 - 2.0**-22)
"""What a scale is at most: a part of it, rounded to f32, times the number of parts must not overflow."""

_BLOCK = 4096

INFINITY_BITS = 0x7F800000
"""Of a magnitude that is not finite the bits are this number or more."""


def is_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or inf; True for an empty vector.

    Args:
        x: f32 ``[d]``.

    Raises:
        ConfigError: not a vector of float32.

    Example:
        >>> is_finite(torch.tensor([1.0, -2.0])), is_finite(torch.tensor([1.0, torch.inf]))
        (True, False)
    """
    check_entries(x)
    if not x.is_cpu:
        return int(body_for(first_nonfinite_torch, x.device)(x)) == x.numel()
    array = array_of(x)
    return all(run(_largest, [(array.view(np.uint32)[a:b],) for a, b in shares(array.size, 1, STREAMED_NS)]))


def is_finite_torch(x: Tensor) -> bool:
    """:func:`is_finite` in torch operations, on any device."""
    return bool(torch.isfinite(x).all())


def first_nonfinite(x: Tensor) -> Tensor:
    """Where the first entry is that is NaN or inf, ``d`` if none is: int64 ``[]`` on the device of ``x``, unread.

    Whoever reads it waits for the device; on the CPU :func:`is_finite` is faster.

    Args:
        x: f32 ``[d]``.

    Raises:
        ConfigError: not a vector of float32.

    Example:
        >>> first_nonfinite(torch.tensor([1.0, torch.inf, torch.nan])), first_nonfinite(torch.zeros(2))
        (tensor(1), tensor(2))
    """
    check_entries(x)
    return body_for(first_nonfinite_torch, x.device)(x)


def first_nonfinite_torch(x: Tensor) -> Tensor:
    """:func:`first_nonfinite` in torch operations, on any device."""
    places = torch.arange(x.numel() + 1, dtype=torch.int64, device=x.device)
    places[:-1].masked_fill_(torch.isfinite(x), x.numel())
    return places.amin()


def divide_finite(x: Tensor, divisor: int) -> bool:
    """``x /= divisor`` in place, rounded to f32 once; whether every quotient is finite.

    Args:
        x: contiguous f32 ``[d]``.
        divisor: a positive integer below ``2**24``, so that f32 holds it exactly.

    Raises:
        ConfigError: not such a vector or divisor.

    Example:
        >>> x = torch.tensor([1.0, -torch.inf])
        >>> divide_finite(x, 4), x.tolist()
        (False, [0.25, -inf])
    """
    check_entries(x)
    if not x.is_contiguous():
        raise ConfigError("a vector that is divided in place must be contiguous; this one has gaps")
    if not 1 <= divisor < 2**24:
        raise ConfigError(f"a divisor of {divisor} was given; it must be 1 to 2**24 - 1")
    if not x.is_cpu:
        return body_for(divide_finite_torch, x.device)(x, divisor)
    if divisor == 1:
        return is_finite(x)
    array = array_of(x)
    return all(run(_divide, [(array[a:b], np.float32(divisor)) for a, b in shares(array.size, 1, STREAMED_NS)]))


def divide_finite_torch(x: Tensor, divisor: int) -> bool:
    """:func:`divide_finite` in torch operations, on any device."""
    # A tensor, not a number: some devices multiply by the reciprocal of a number, which rounds otherwise.
    return is_finite_torch(x.div_(divisor_of(x, divisor)))


@kernel
def _largest(bits: Any) -> Any:
    most = np.uint32(0)
    for j in range(bits.size):
        most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
    return most < np.uint32(INFINITY_BITS)


@kernel
def _divide(x: Any, divisor: Any) -> Any:
    most = np.uint32(0)
    for start in range(0, x.size, _BLOCK):
        most = max(most, divide_block(x[start : start + _BLOCK], divisor))
    return most < np.uint32(INFINITY_BITS)


@helper
def divide_block(x: Any, divisor: Any) -> Any:
    """``x /= divisor``, and the bits of the largest magnitude then; for other kernels, of what the cache holds."""
    bits = seen_as(x, np.uint32)
    most = np.uint32(0)
    for j in range(x.size):
        x[j] /= divisor
    # Read again: in one loop with the division it is not vectorised.
    for j in range(x.size):
        most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
    return most
