"""What functions of a cut vector share: checks of its entries, and of the offsets where its segments begin."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinwire.arrays import array_of
from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import kernel


def check_offsets(offsets: Tensor, numel: int) -> None:
    """Raise ConfigError unless ``offsets`` is an ascending int64 vector from 0 to ``numel``.

    Example:
        >>> check_offsets(torch.tensor([0, 3, 3, 5]), 5)
    """
    offsets_array(offsets, numel)


def offsets_array(offsets: Tensor, numel: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The offsets as a contiguous array on the CPU, if they pass :func:`check_offsets`.

    Example:
        >>> offsets_array(torch.tensor([0, 2]), 2).tolist()
        [0, 2]
    """
    if offsets.dtype != torch.int64 or offsets.dim() != 1 or offsets.numel() < 1:
        raise ConfigError(f"offsets are a vector of int64, got {offsets.dtype} of shape {tuple(offsets.shape)}")
    ends: np.ndarray[Any, np.dtype[np.int64]] = array_of(offsets)
    # Compiled: the same checks by numpy or torch would take longer than a small vector's whole selection.
    if not _ascend(ends, numel):
        raise ConfigError(f"offsets must ascend from 0 to {numel}, the number of entries")
    return ends


def segment_of_each(sizes: Tensor, numel: int | None = None) -> Tensor:
    """In which of consecutive segments each entry lies: int64, as many entries as the sizes (int64) add up to.

    Args:
        sizes: of the segments.
        numel: their sum, if it is known: an accelerator need not be waited for then.

    Example:
        >>> segment_of_each(torch.tensor([2, 0, 1])).tolist()
        [0, 0, 2]
    """
    numbers = torch.arange(sizes.numel(), dtype=torch.int64, device=sizes.device)
    return numbers.repeat_interleave(sizes, output_size=numel)


def check_entries(x: Tensor) -> None:
    """Raise ConfigError unless ``x`` is a vector of float32.

    Example:
        >>> check_entries(torch.zeros(5))
    """
    if x.dtype != torch.float32 or x.dim() != 1:
        raise ConfigError(f"entries are a vector of float32, got {x.dtype} of shape {tuple(x.shape)}")


def check_sum(scales: Tensor, offsets: Tensor, out: Tensor) -> None:
    """Raise ConfigError unless ``out`` is contiguous f32 and ``scales`` has one f32 for each segment.

    Example:
        >>> check_sum(torch.ones(1), torch.tensor([0, 5]), torch.zeros(5))
    """
    check_target(out)
    check_scales(scales, offsets)


def check_target(out: Tensor) -> None:
    """Raise ConfigError unless this is a contiguous vector of float32, to be added to.

    Example:
        >>> check_target(torch.zeros(5))
    """
    if out.dtype != torch.float32 or out.dim() != 1 or not out.is_contiguous():
        raise ConfigError(f"the sum is a contiguous vector of float32, got {out.dtype} of shape {tuple(out.shape)}")


def check_scales(scales: Tensor, offsets: Tensor) -> None:
    """Raise ConfigError unless there is one f32 for each segment.

    Example:
        >>> check_scales(torch.ones(1), torch.tensor([0, 5]))
    """
    if scales.dtype != torch.float32 or scales.dim() != 1 or scales.numel() != offsets.numel() - 1:
        raise ConfigError(f"{offsets.numel() - 1} segments need as many float32, got shape {tuple(scales.shape)}")


@kernel
def _ascend(ends: Any, numel: int) -> bool:
    if ends[0] != 0 or ends[ends.size - 1] != numel:
        return False
    falls = 0
    for j in range(1, ends.size):
        falls += 1 if ends[j] < ends[j - 1] else 0
    return falls == 0


def check_indices(indices: Tensor) -> None:
    """Their type and shape.

    Raises:
        ConfigError: indices that are not a vector of int64.

    Example:
        >>> check_indices(torch.tensor([0.5]))
        Traceback (most recent call last):
        thinwire.errors.ConfigError: indices are a vector of int64, got torch.float32 of shape (1,)
    """
    if indices.dtype != torch.int64 or indices.dim() != 1:
        raise ConfigError(f"indices are a vector of int64, got {indices.dtype} of shape {tuple(indices.shape)}")


def selection_arrays(offsets: Tensor, counts: Tensor, numel: int) -> tuple[Any, Any, Any]:
    """Offsets and counts as checked arrays, and where each segment's selection begins: int64 ``[s + 1]``.

    Raises:
        ConfigError: as :func:`top_k`.
    """
    starts = offsets_array(offsets, numel)
    if counts.dtype != torch.int64 or counts.shape != (starts.size - 1,):
        raise ConfigError(
            f"{starts.size - 1} segments need as many int64 counts, got {counts.dtype} of shape {tuple(counts.shape)}"
        )
    wanted, ends = array_of(counts), np.empty(starts.size, np.int64)
    if not _sum_up(starts, wanted, ends):
        raise ConfigError("the count of a segment must be 0 to its size")
    return starts, wanted, ends


@kernel
def _sum_up(offsets: Any, counts: Any, ends: Any) -> bool:
    """Write the sums of the counts so far; False if a count is not 0 to the size of its segment."""
    total = 0
    ends[0] = 0
    for segment in range(counts.size):
        if counts[segment] < 0 or counts[segment] > offsets[segment + 1] - offsets[segment]:
            return False
        total += counts[segment]
        ends[segment + 1] = total
    return True


def check_ascending(indices: Any, numel: int) -> None:
    """Raise :class:`ConfigError` unless an array of int64 ascends strictly and lies in ``[0, numel)``."""
    if not ascend_within(indices, numel):
        raise out_of_order(numel)


def out_of_order(numel: int) -> ConfigError:
    """What is wrong with indices that do not :func:`ascend_within`."""
    return ConfigError(f"indices must ascend strictly and lie in [0, {numel}), the entries of the sum")


@kernel
def ascend_within(indices: Any, numel: int) -> bool:
    """Whether indices ascend strictly and lie in ``[0, numel)``."""
    if indices.size == 0:
        return True
    if indices[0] < 0 or indices[indices.size - 1] >= numel:
        return False
    before, after = indices[:-1], indices[1:]
    falls = 0
    for j in range(after.size):
        falls += 1 if after[j] <= before[j] else 0
    return falls == 0
