"""Many tensors into one vector in one pass, which also says whether all is finite."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.errors import ConfigError
from thinwire.kernels.flat.finite import first_nonfinite_torch
from thinwire.kernels.flat.sixteen import FORMATS, flatten_any_format, formats_of
from thinwire.kernels.jit.compiling import carray, kernel
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.jit.intrinsics import pointer
from thinwire.kernels.jit.threads import STREAMED_NS, run, shares


def flatten_finite(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None = None) -> bool:
    """``out`` = the entries of all tensors, one tensor after another; whether every entry is finite.

    With a ``minuend``, ``out = minuend - entries``, in the same pass; what is asked is still of the entries.

    Args:
        tensors: f32, bf16 or f16, of any shapes, on the device of ``out``, ``d`` entries in all. Those of 16 bits are
            widened.
        out: contiguous f32 ``[d]`` that shares no memory with them.
        minuend: contiguous f32 ``[d]``.

    Raises:
        ConfigError: another dtype, device or number of entries.

    Example:
        >>> out = torch.empty(3)
        >>> flatten_finite([torch.ones(1, 2), torch.tensor(2.0)], out), out.tolist()
        (True, [1.0, 1.0, 2.0])
    """
    sources, end = _check(tensors, out, minuend), out.numel()
    if not out.is_cpu:
        return int(body_for(flatten_unread_torch, out.device)(tensors, out, minuend)) == end
    # The kernel is given addresses: what they belong to must live until it is done.
    pieces = pieces_of(sources)
    vectors = array_of(out if minuend is None else minuend), array_of(out)
    subtracts = minuend is not None
    ranges = shares(end, 1, STREAMED_NS)
    if {source.dtype for source in sources} - {torch.float32}:
        given = (pieces, formats_of(sources), *vectors, subtracts)
        return all(run(flatten_any_format, [(*given, start, stop) for start, stop in ranges]))
    return all(run(_flatten, [(pieces, *vectors, subtracts, start, stop) for start, stop in ranges]))


def _check(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None) -> list[Tensor]:
    """The tensors without gaps."""
    if out.dtype != torch.float32 or out.dim() != 1 or not out.is_contiguous():
        raise ConfigError(f"the vector is contiguous float32, got {out.dtype} of shape {tuple(out.shape)}")
    if minuend is not None and (minuend.dtype, minuend.shape, minuend.is_contiguous()) != (out.dtype, out.shape, True):
        raise ConfigError(f"the minuend is as the vector, got {minuend.dtype} of shape {tuple(minuend.shape)}")
    kinds, places = {tensor.dtype for tensor in tensors}, {tensor.device for tensor in tensors}
    if not kinds <= FORMATS.keys() or not places <= {out.device}:
        raise ConfigError(
            f"tensors are float32, bfloat16 or float16 on {out.device}, got {', '.join(map(str, kinds))} on "
            f"{', '.join(map(str, places))}"
        )
    sources = [tensor if tensor.is_contiguous() else tensor.detach().contiguous() for tensor in tensors]
    end = sum(map(Tensor.numel, sources))
    if end != out.numel():
        raise ConfigError(f"{end} entries do not fill {out.numel()} places")
    return sources


def pieces_of(tensors: Sequence[Tensor]) -> Any:
    """Where contiguous tensors begin in memory, then up to which entry of the flat vector each goes: int64 ``[2 n]``.

    A list of lists would take numpy longer than the work on a small model.
    """
    ends = itertools.accumulate(map(Tensor.numel, tensors))
    return np.array([*[tensor.data_ptr() for tensor in tensors], *ends], np.int64)


def flatten_unread(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None = None) -> Tensor:
    """:func:`flatten_finite` of tensors on a device that need not be waited for.

    Args:
        tensors: f32, bf16 or f16, of any shapes, on the device of ``out``, ``d`` entries in all.
        out: contiguous f32 ``[d]`` that shares no memory with them.
        minuend: contiguous f32 ``[d]``.

    Returns:
        Where the first of the entries is that is not finite, ``d`` if none is: int64 ``[]`` on the device, unread.

    Raises:
        ConfigError: another dtype, device or number of entries.

    Example:
        >>> flatten_unread([torch.ones(1, 2), torch.tensor(torch.nan)], torch.empty(3))
        tensor(2)
    """
    _check(tensors, out, minuend)
    return body_for(flatten_unread_torch, out.device)(tensors, out, minuend)


def flatten_unread_torch(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None = None) -> Tensor:
    """:func:`flatten_unread` in torch operations, on any device."""
    if tensors:
        torch.cat([tensor.detach().reshape(-1) for tensor in tensors], out=out)
    first = first_nonfinite_torch(out)
    if minuend is not None:
        torch.sub(minuend, out, out=out)
    return first


@kernel
def _flatten(pieces: Any, minuend: Any, out: Any, subtracts: bool, start: int, stop: int) -> Any:
    most = np.uint32(0)
    begin = 0
    addresses, ends = pieces[: pieces.size // 2], pieces[pieces.size // 2 :]
    for number in range(addresses.size):
        end = ends[number]
        first = max(start, begin)
        last = min(stop, end)
        if first < last:
            place = pointer(addresses[number])
            bits = carray(place, (end - begin,), np.uint32)[first - begin : last - begin]
            part = carray(place, (end - begin,), np.float32)[first - begin : last - begin]
            target, base = out[first:last], minuend[first:last]
            if subtracts:
                for j in range(part.size):
                    target[j] = base[j] - part[j]
                    most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
            else:
                for j in range(part.size):
                    target[j] = part[j]
                    most = max(most, bits[j] & np.uint32(0x7FFFFFFF))
        begin = end
    return most < np.uint32(0x7F800000)
