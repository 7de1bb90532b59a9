"""Exact top-k by magnitude, in every segment of a vector at once.

Magnitudes are compared as integers: the bits of ``|x|`` order as the numbers do. Only the few entries that pass a safe
lower bound of the k-th magnitude are compared exactly, see :mod:`thinwire.kernels.select.segment`.
"""

import torch
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.flat.checks import check_entries, segment_of_each, selection_arrays
from thinwire.kernels.jit.devices import body_for
from thinwire.kernels.select.parallel import select_all


def top_k(x: Tensor, offsets: Tensor, counts: Tensor) -> Tensor:
    """Indices of the ``counts[s]`` largest magnitudes of each segment ``s``; of equal ones the lower.

    Args:
        x: f32 ``[d]``. NaN is for the caller to refuse; here it counts as larger than inf.
        offsets: int64 ``[s + 1]``, ascending from 0 to ``d``: where the segments begin.
        counts: int64 ``[s]``, 0 to the size of the segment.

    Returns:
        int64 ``[counts.sum()]`` on the device of ``x``: positions in ``x``, ascending.

    Raises:
        ConfigError: shapes, dtypes or numbers that are not as described.

    Example:
        >>> x = torch.tensor([1.0, -3.0, 3.0, 0.0, 0.5])
        >>> top_k(x, torch.tensor([0, 3, 5]), torch.tensor([1, 1])).tolist()
        [1, 4]
    """
    return top_k_entries(x, offsets, counts)[0]


def top_k_entries(x: Tensor, offsets: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of :func:`top_k`, and the entries there: f32 of the same length.

    They come at no cost, where ``x[indices]`` would read memory at random.

    Example:
        >>> top_k_entries(torch.tensor([1.0, -3.0]), torch.tensor([0, 2]), torch.tensor([1]))[1].tolist()
        [-3.0]
    """
    check_entries(x)
    starts, wanted, ends = selection_arrays(offsets, counts, x.numel())
    if not x.is_cpu:
        indices = body_for(top_k_torch, x.device)(x, offsets, counts)
        return indices, x[indices]
    entries = array_of(x)
    chosen, values = select_all(entries, entries, 1.0, False, entries, starts, wanted, ends)
    return tensor_of(chosen), tensor_of(values)


def top_k_torch(x: Tensor, offsets: Tensor, counts: Tensor) -> Tensor:
    """:func:`top_k` in torch operations, on any device: one stable sort by segment, then by magnitude."""
    offsets, counts = to_device(offsets, x.device), to_device(counts, x.device)
    segment = segment_of_each(offsets.diff(), x.numel())
    magnitude = (x.view(torch.int32) & 0x7FFFFFFF).to(torch.int64)
    order = ((segment << 31) + (0x7FFFFFFF - magnitude)).sort(stable=True).indices
    rank = torch.arange(x.numel(), dtype=torch.int64, device=x.device) - offsets[segment]
    return order[rank < counts[segment]].sort().values
