"""What the Numba kernels share: the compile options, and instructions that Numba does not offer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` when it is first called, once a machine (kept on disk), without the GIL.

    Floats follow IEEE 754 strictly: no fused or reordered operations, so a kernel and its torch twin round
    alike.
    """
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def array_of(tensor: Tensor) -> "np.ndarray[Any, Any]":
    """A contiguous array of the tensor's entries: the memory itself where that is contiguous and on the CPU."""
    # One call where detach, cpu, contiguous and numpy are four; it counts for vectors of a few hundred entries.
    return np.ascontiguousarray(tensor.numpy(force=True))


def tensor_of(array: "np.ndarray[Any, Any]") -> Tensor:
    """The tensor that shares the memory of ``array``.

    Results are allocated by numpy: it asks for huge pages, which makes a fresh large array several times
    cheaper.
    """
    return torch.from_numpy(array)


def _count_trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Number of zero bits below the lowest set bit of a uint64; ``word`` must not be 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


count_trailing_zeros: Any = intrinsic(_count_trailing_zeros)


def _count_leading_zeros(typing_context: Any, word: Any) -> Any:
    """Number of zero bits above the highest set bit of a uint64; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


count_leading_zeros: Any = intrinsic(_count_leading_zeros)


def _load_word(typing_context: Any, data: Any, position: Any) -> Any:
    """The eight bytes of ``data`` from ``position`` on as one uint64; all must lie inside."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(array.data, [arguments[1]])
        word = ir.IntType(64)
        return builder.load(builder.bitcast(address, word.as_pointer()), align=1)

    return types.uint64(data, types.intp), generate


load_word: Any = intrinsic(_load_word)


@kernel
def load_word_padded(data: Any, position: int) -> Any:
    """The eight bytes of ``data`` from ``position`` on as one uint64; what lies outside counts as zero."""
    if position + 8 <= data.size:
        return load_word(data, position)
    word = np.uint64(0)
    for byte in range(max(0, data.size - position)):
        word |= np.uint64(data[position + byte]) << np.uint64(8 * byte)
    return word
