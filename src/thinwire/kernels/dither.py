"""Rounding at random to a small number of levels, right on average."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.numba_tools import kernel, tensor_of
from thinwire.kernels.philox import check_stream, fill_words, uniform_torch


def quantize_levels(x: Tensor, units: Tensor, offsets: Tensor, num_levels: int, key: int) -> Tensor:
    """Signed level of every entry: ``sign(x_i) * min(floor(r_i) + (u_i < r_i - floor(r_i)), num_levels)``.

    ``r_i = |x_i| / units[s]`` for entry ``i`` of segment ``s`` and ``u_i`` is number ``i`` of
    :func:`thinwire.kernels.philox.uniform`. All arithmetic is f32. Where ``|x_i| <= num_levels * units[s]``
    the expected value of ``level_i * units[s]`` is ``x_i``, up to the 24 bits of ``u_i``.

    Args:
        x: f32 ``[d]``; NaN is for the caller to refuse (here its level is ``num_levels``).
        units: f32 ``[s]``; a unit that is not above 0 makes every level of its segment 0.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        num_levels: 1 to ``2**24``.
        key: of the random numbers, in ``[0, 2**64)``.

    Returns:
        int32 ``[d]`` on the device of ``x``.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([0.0, 1.0, -2.0, 9.0])
        >>> quantize_levels(x, torch.tensor([1.0]), torch.tensor([0, 4]), 3, key=5).tolist()
        [0, 1, -2, 3]
    """
    if x.dtype != torch.float32 or x.dim() != 1 or units.dtype != torch.float32:
        raise ConfigError(f"entries and units are vectors of float32, got {x.dtype} and {units.dtype}")
    if not 1 <= num_levels <= 2**24:
        raise ConfigError(f"{num_levels} levels were asked for; 1 to 2**24 are possible")
    check_offsets(offsets, x.numel())
    if units.shape != (offsets.numel() - 1,):
        raise ConfigError(f"{offsets.numel() - 1} segments need as many units, got shape {tuple(units.shape)}")
    check_stream(key, 0, x.numel())
    if x.device.type != "cpu":
        return quantize_levels_torch(x, units, offsets, num_levels, key)
    levels = np.empty(x.numel(), np.int32)
    _quantize(
        x.detach().contiguous().numpy(),
        units.detach().contiguous().numpy(),
        offsets.contiguous().numpy(),
        np.float32(num_levels),
        np.uint32(key & 0xFFFFFFFF),
        np.uint32(key >> 32),
        levels,
    )
    return tensor_of(levels)


def quantize_levels_torch(x: Tensor, units: Tensor, offsets: Tensor, num_levels: int, key: int) -> Tensor:
    """:func:`quantize_levels` in torch operations, on any device."""
    sizes = offsets.to(x.device).diff()
    unit = units.to(x.device).repeat_interleave(sizes, output_size=x.numel())
    ratio = x.abs() / unit
    floor = ratio.floor()
    level = floor + (uniform_torch(key, 0, x.numel(), x.device) < ratio - floor).to(torch.float32)
    # Written so that a NaN ends at num_levels, as in the kernel.
    level = torch.where(level < num_levels, level, torch.full_like(level, num_levels))
    level = torch.where(unit > 0, level, torch.zeros_like(level))
    return torch.where(x < 0, -level, level).to(torch.int32)


def check_offsets(offsets: Tensor, numel: int) -> None:
    """Raise ConfigError unless ``offsets`` is an ascending int64 vector from 0 to ``numel``."""
    if offsets.dtype != torch.int64 or offsets.dim() != 1 or offsets.numel() < 1:
        raise ConfigError(f"offsets are a vector of int64, got {offsets.dtype} of shape {tuple(offsets.shape)}")
    # In numpy: the same checks in torch would take longer than a small vector's whole selection.
    ends = offsets.cpu().numpy()
    if ends[0] != 0 or ends[-1] != numel or (ends[1:] < ends[:-1]).any():
        raise ConfigError(f"offsets must ascend from 0 to {numel}, the number of entries")


@kernel
def _quantize(x: Any, units: Any, offsets: Any, num_levels: Any, k0: Any, k1: Any, levels: Any) -> None:
    lanes = np.empty((4, 256), np.uint32)
    numbers = np.empty(1024, np.float32)
    words = np.empty(1024, np.uint32)
    segment = 0
    for start in range(0, x.size, 1024):
        end = min(start + 1024, x.size)
        fill_words(k0, k1, start >> 2, lanes, words)
        for j in range(1024):
            numbers[j] = np.float32(np.int32(words[j] >> np.uint32(8))) * np.float32(2.0**-24)
        position = start
        while position < end:
            while offsets[segment + 1] <= position:
                segment += 1
            stop = min(end, offsets[segment + 1])
            _quantize_run(
                x[position:stop],
                units[segment],
                num_levels,
                numbers[position - start :],
                levels[position:stop],
            )
            position = stop


@kernel
def _quantize_run(x: Any, unit: Any, num_levels: Any, numbers: Any, levels: Any) -> None:
    if not unit > np.float32(0):
        levels[:] = 0
        return
    for i in range(x.size):
        ratio = np.abs(x[i]) / unit
        floor = np.floor(ratio)
        level = floor + (np.float32(1) if numbers[i] < ratio - floor else np.float32(0))
        level = level if level < num_levels else num_levels
        levels[i] = np.int32(-level if x[i] < np.float32(0) else level)
