"""Passes over a vector that find NaN and inf on the way, so that looking for them costs no pass of its own."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.numba_tools import array_of, kernel
from thinwire.kernels.threads import run, shares

_BLOCK = 4096
_INF = 0x7F800000


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
    _check(x)
    if not x.is_cpu:
        return is_finite_torch(x)
    array = array_of(x)
    return all(run(_largest, [(array.view(np.uint32)[a:b],) for a, b in shares(array.size)]))


def is_finite_torch(x: Tensor) -> bool:
    """:func:`is_finite` in torch operations, on any device."""
    return bool(torch.isfinite(x).all())


def copy_finite(x: Tensor, out: Tensor) -> bool:
    """``out = x``; whether every entry is finite.

    Args:
        x: f32 ``[d]``.
        out: contiguous f32 ``[d]`` on the device of ``x``; it may be ``x``, but not share a part of its memory.

    Raises:
        ConfigError: shapes, dtypes or devices that are not as described.

    Example:
        >>> out = torch.empty(2)
        >>> copy_finite(torch.tensor([1.0, 2.0]), out), out.tolist()
        (True, [1.0, 2.0])
    """
    _check(x)
    _check_out(x, out)
    if not x.is_cpu:
        return copy_finite_torch(x, out)
    source, target = array_of(x).view(np.uint32), array_of(out).view(np.uint32)
    return all(run(_copy, [(source[a:b], target[a:b]) for a, b in shares(source.size)]))


def copy_finite_torch(x: Tensor, out: Tensor) -> bool:
    """:func:`copy_finite` in torch operations, on any device."""
    out.copy_(x)
    return is_finite_torch(out)


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
    _check(x)
    _check_out(x, x)
    if not 1 <= divisor < 2**24:
        raise ConfigError(f"a divisor of {divisor} was given; it must be 1 to 2**24 - 1")
    if not x.is_cpu:
        return divide_finite_torch(x, divisor)
    if divisor == 1:
        return is_finite(x)
    array = array_of(x)
    return all(run(_divide, [(array[a:b], np.float32(divisor)) for a, b in shares(array.size)]))


def divide_finite_torch(x: Tensor, divisor: int) -> bool:
    """:func:`divide_finite` in torch operations, on any device."""
    # A tensor, not a number: some devices multiply by the reciprocal of a number, which rounds otherwise.
    return is_finite_torch(x.div_(torch.tensor(float(divisor), device=x.device)))


def _check(x: Tensor) -> None:
    if x.dtype != torch.float32 or x.dim() != 1:
        raise ConfigError(f"entries are a vector of float32, got {x.dtype} of shape {tuple(x.shape)}")


def _check_out(x: Tensor, out: Tensor) -> None:
    if out.dtype != torch.float32 or out.shape != x.shape or not out.is_contiguous() or out.device != x.device:
        raise ConfigError(
            f"{x.numel()} entries on {x.device} need a contiguous vector of as many float32 there, got {out.dtype} "
            f"of shape {tuple(out.shape)} on {out.device}"
        )


@kernel
def _largest(bits: Any) -> Any:
    most = np.uint32(0)
    for j in range(bits.size):
        most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
    return most < np.uint32(_INF)


@kernel
def _copy(bits: Any, out: Any) -> Any:
    most = np.uint32(0)
    for j in range(bits.size):
        out[j] = bits[j]
        most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
    return most < np.uint32(_INF)


@kernel
def _divide(x: Any, divisor: Any) -> Any:
    most = np.uint32(0)
    bits = x.view(np.uint32)
    for start in range(0, x.size, _BLOCK):
        part = x[start : start + _BLOCK]
        quotients = bits[start : start + _BLOCK]
        for j in range(part.size):
            part[j] /= divisor
        # Read again while the block is in the cache.
        for j in range(quotients.size):
            most = max(most, quotients[j] & np.uint32(0x7FFFFFFF))
    return most < np.uint32(_INF)
