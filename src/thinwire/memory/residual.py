"""A residual in as few bits as it is to be kept in."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from thinwire.arrays import blocks, zeros
from thinwire.compressors.base import add_residual
from thinwire.kernels.quantize.bf16 import round_to_bf16
from thinwire.layout import State
from thinwire.random import Key

ResidualDtype: TypeAlias = Literal["f32", "bf16"]


def residual_zeros(like: Tensor, dtype: ResidualDtype) -> Tensor:
    """A residual of zeros: ``[d]`` on the device of ``like``.

    Example:
        >>> residual_zeros(torch.ones(2), "bf16")
        tensor([0., 0.], dtype=torch.bfloat16)
    """
    if dtype == "f32":
        return zeros(like.numel(), like.device)
    return torch.zeros(like.numel(), dtype=torch.bfloat16, device=like.device)


def add_kept(x: Tensor, residual: Tensor, decay: float, out: Tensor) -> Tensor:
    """``out = decay * residual + x`` in f32, whatever the residual is kept in; ``out`` may be ``x``.

    Example:
        >>> x = torch.ones(2)
        >>> add_kept(x, torch.ones(2, dtype=torch.bfloat16), 0.5, x)
        tensor([1.5000, 1.5000])
    """
    if residual.dtype == torch.float32:
        return add_residual(x, residual, decay, out)
    # In blocks, since torch widens what it adds: a vector of the model's length.
    for given, kept, result in zip(blocks(x), blocks(residual), blocks(out), strict=True):
        add_residual(given, kept.to(torch.float32), decay, result)
    return out


def keep_residual(state: State, present: State, key: Key) -> State:
    """A state as it is kept from now on, whose residual is rounded at random where the present one has fewer bits.

    ``E[kept] = residual``, independently at every exchange (:func:`.kernels.quantize.bf16.round_to_bf16`): no part of
    what is owed is lost on average, whereas rounding to nearest would lose each gradient below half a step of the
    residual that it is added to.

    Args:
        state: what an exchange left, f32.
        present: its residual is written over.
        key: addresses the random numbers.
    """
    residual, before = state["residual"], present["residual"]
    if residual.dtype == before.dtype:
        return state
    return {**state, "residual": round_to_bf16(residual, key.fold("residual").bits64(), before)}
