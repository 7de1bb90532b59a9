"""Launching Triton's kernels: the one place that hands a kernel to the device."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor

Argument: TypeAlias = Tensor | int | float
"""What a kernel is given beside its constants."""

BLOCK = 1024
"""Entries of a program, where nothing else is better."""


def launch(
    kernel: Any,
    programs: int,
    arguments: Sequence[Argument],
    constants: Mapping[str, int],
    num_warps: int = 4,
) -> None:
    """Run ``programs`` programs of a kernel of ``triton.jit``; none if there are none.

    They run on the device of the arguments, which need not be the one that is current, on its current stream.

    Products and sums are rounded one by one: Triton would make one operation of them, with other bits than the CPU's.

    Args:
        kernel: the function under ``triton.jit``.
        programs: how many; each finds its number by ``program_id(0)``.
        arguments: tensors of the device and numbers, in the kernel's order. Whole numbers above 2**31 - 1 are taken
            for 64 bits.
        constants: what is compiled into the kernel (``tl.constexpr``), by name.
        num_warps: groups of threads of a program.
    """
    if programs:
        with _current(next(argument for argument in arguments if isinstance(argument, Tensor))):
            kernel[(programs,)](*arguments, **constants, num_warps=num_warps, enable_fp_fusion=False)


def _current(tensor: Tensor) -> AbstractContextManager[object]:
    """The tensor's device is the one that Triton takes: the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
