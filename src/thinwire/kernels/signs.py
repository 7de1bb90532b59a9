"""The signs of numbers as packed bits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bits import pack_torch
from thinwire.kernels.numba_tools import array_of, kernel, tensor_of


def sign_bits(x: Tensor) -> Tensor:
    """One bit an entry, set where ``x_i < 0``; the layout of :func:`thinwire.kernels.bits.pack` with width 1.

    Args:
        x: f32 ``[d]``; zero of either sign and NaN count as not negative.

    Returns:
        uint8 ``[ceil(d / 8)]`` on the device of ``x``, unused bits zero.

    Raises:
        ConfigError: not a vector of float32.

    Example:
        >>> sign_bits(torch.tensor([-1.0, 2.0, -0.5, -0.0])).tolist()
        [5]
    """
    if x.dtype != torch.float32 or x.dim() != 1:
        raise ConfigError(f"entries are a vector of float32, got {x.dtype} of shape {tuple(x.shape)}")
    if not x.is_cpu:
        return sign_bits_torch(x)
    bits = np.empty((x.numel() + 7) // 8, np.uint8)
    _sign_bits(array_of(x), bits)
    return tensor_of(bits)


def sign_bits_torch(x: Tensor) -> Tensor:
    """:func:`sign_bits` in torch operations, on any device."""
    return pack_torch((x < 0).to(torch.uint8), 1)


@kernel
def _sign_bits(x: Any, bits: Any) -> None:
    # Eight bytes of 0 or 1 are gathered into one by a multiplication that shifts each to its place in the top
    # byte.
    block = np.empty(1024, np.uint8)
    words = block.view(np.uint64)
    for start in range(0, x.size, 1024):
        part = x[start : start + 1024]
        for j in range(part.size):
            block[j] = np.uint8(part[j] < np.float32(0))
        block[part.size : (part.size + 7) // 8 * 8] = 0
        out = bits[start // 8 : start // 8 + (part.size + 7) // 8]
        for j in range(out.size):
            out[j] = np.uint8((words[j] * np.uint64(0x0102040810204080)) >> np.uint64(56))
