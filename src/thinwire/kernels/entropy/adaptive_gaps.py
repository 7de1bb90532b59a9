"""Ascending indices as gaps in an arithmetic code that learns their sizes as it goes.

With the gaps ``g_j`` of :mod:`thinwire.kernels.entropy.rice`, ``q_j = g_j + 1`` and ``w_j = floor(log2(q_j))``, every
gap is a row of yes-or-no decisions: for ``t = 0, 1, ..., w_j`` whether ``w_j = t``; then the ``w_j`` low bits of
``q_j``, the highest first. Decision ``t``, and the highest low bit for each ``w``, have an estimate of their
probability; the other bits count as even. An estimate is the mean of two that follow what was seen, one fast and one
slow, so nothing is sent about the gaps beforehand. It takes fewer bits than :mod:`thinwire.kernels.entropy.exp_golomb`
and several times as long: for the few indices of small vectors.

The arithmetic code keeps an interval of 32-bit numbers and halves it, in proportion, at each decision. Bytes that all
numbers of the interval begin with are written at once.
"""

from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of, tensor_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.arithmetic import (
    NOT_SHORTEST,
    first_number,
    learn,
    middle_of,
    pass_agreed,
    pass_end,
    write_agreed,
    write_end,
)
from thinwire.kernels.entropy.gap_streams import ENDED, REASONS, TOO_LARGE
from thinwire.kernels.entropy.rice import gaps_of
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.intrinsics import count_leading_zeros, empty

MAX_COUNT = 2**13
"""Most indices: what bounds the time, and the memory that a few bytes can ask for."""

MAX_WIDTH = 48
"""Most low bits of one ``q_j``, whose gap is below ``2**48``."""

_FIRST_ENDS, _EVEN = 20000, 32768
_LONGEST = MAX_WIDTH + 1
_REASONS = {**REASONS, NOT_SHORTEST: "the last bytes of the indices are not those that an encoder writes"}


def adaptive_encode(indices: Tensor) -> Tensor:
    """The code of at most ``2**13`` indices.

    Args:
        indices: int64 ``[n]``, strictly ascending, not negative, below ``2**48``; of another device than the
            CPU they are copied first.

    Returns:
        uint8, on the CPU; empty for ``n = 0``.

    Raises:
        ConfigError: indices that are not as described.

    Example:
        >>> import torch
        >>> adaptive_encode(torch.tensor([0, 3])).tolist()
        [26]
    """
    gaps = gaps_of(indices.cpu())
    # A decision takes at most 11 bits, and a gap has at most 49 and a few bits more.
    code = encode_adaptive_gaps(gaps, 100 * gaps.numel() + 4)
    assert code is not None
    return code


def encode_adaptive_gaps(gaps: Tensor, num_bytes: int) -> Tensor | None:
    """:func:`adaptive_encode` of the gaps that :func:`.rice.gaps_of` gives; None if it takes more than ``num_bytes``.

    Raises:
        ConfigError: more gaps than ``2**13``, or one that is not below ``2**48``.

    Example:
        >>> import torch
        >>> encode_adaptive_gaps(torch.tensor([0, 2]), 1), encode_adaptive_gaps(torch.tensor([0, 2]), 0)
        (tensor([26], dtype=torch.uint8), None)
    """
    if gaps.numel() > MAX_COUNT:
        raise ConfigError(f"{gaps.numel()} indices were given; this code is for at most {MAX_COUNT}")
    data = np.empty(num_bytes, np.uint8)
    written = int(_encode(gaps.numpy(), data))
    if written == TOO_LARGE:
        raise ConfigError(f"a gap between indices must be 0 to 2**{MAX_WIDTH} - 1")
    return tensor_of(data[:written]) if written >= 0 else None


def adaptive_decode_prefix(data: Tensor, count: int, numel: int) -> tuple[Tensor, int]:
    """The indices at the beginning of ``data``, and how many bytes they take: the code ends itself.

    Args:
        data: uint8; more bytes may follow the code.
        count: number of indices, at most ``2**13``.
        numel: every index must be below; at most ``2**48``.

    Returns:
        int64 ``[count]``, strictly ascending; and the length of the code.

    Raises:
        WireError: data that :func:`adaptive_encode` does not write for any indices, or numbers out of range.

    Example:
        >>> import torch
        >>> indices, num_bytes = adaptive_decode_prefix(torch.tensor([26, 77], dtype=torch.uint8), 2, 4)
        >>> indices.tolist(), num_bytes
        ([0, 3], 1)
    """
    if not 0 <= count <= min(numel, MAX_COUNT) or numel > 2**MAX_WIDTH:
        raise WireError(f"this code holds at most {MAX_COUNT} indices, {count} below {numel} are declared")
    indices = np.empty(count, np.int64)
    result = int(_decode(array_of(data), numel, indices))
    if result < 0:
        raise WireError(_REASONS[result])
    return tensor_of(indices), result


@helper
def _new_estimates() -> Any:
    """A fast and a slow one for each decision: whether the width is ``t``, then the highest low bit of each width."""
    estimates = empty(4 * _LONGEST, np.int64)
    estimates[: 2 * _LONGEST] = _FIRST_ENDS
    estimates[2 * _LONGEST :] = _EVEN
    return estimates


@kernel
def _encode(gaps: Any, data: Any) -> Any:
    estimates = _new_estimates()
    low = np.int64(0)
    high = np.int64(0xFFFFFFFF)
    written = 0
    for j in range(gaps.size):
        number = gaps[j] + 1
        if number <= 0 or number > np.int64(1) << 48:
            return TOO_LARGE
        width = 63 - np.int64(count_leading_zeros(np.uint64(number)))
        for t in range(width):
            low = middle_of(low, high, estimates, t) + 1
            learn(estimates, t, 0)
            low, high, written = write_agreed(low, high, data, written)
        high = middle_of(low, high, estimates, width)
        learn(estimates, width, 1)
        low, high, written = write_agreed(low, high, data, written)
        middle = middle_of(low, high, estimates, _LONGEST + width)
        for place in range(width - 1, -1, -1):
            bit = (number >> place) & 1
            low, high = (low, middle) if bit else (middle + 1, high)
            if place == width - 1:
                learn(estimates, _LONGEST + width, bit)
            low, high, written = write_agreed(low, high, data, written)
            middle = low + ((high - low) >> 1)
        if written > data.size:
            return ENDED
    return write_end(low, high, data, written)


@kernel
def _decode(data: Any, numel: int, indices: Any) -> Any:
    estimates = _new_estimates()
    low = np.int64(0)
    high = np.int64(0xFFFFFFFF)
    code = first_number(data)
    # Bytes that the interval has passed; four more lie in `code`.
    passed = 0
    index = np.int64(-1)
    for j in range(indices.size):
        width = np.int64(0)
        ended = False
        while not ended:
            middle = middle_of(low, high, estimates, width)
            ended = code <= middle
            learn(estimates, width, np.int64(ended))
            low, high = (low, middle) if ended else (middle + 1, high)
            low, high, code, passed = pass_agreed(low, high, code, data, passed)
            if not ended:
                width += 1
                if width > MAX_WIDTH:
                    return ENDED if passed > data.size else TOO_LARGE
        number = np.int64(1)
        middle = middle_of(low, high, estimates, _LONGEST + width)
        for place in range(width):
            bit = np.int64(code <= middle)
            low, high = (low, middle) if bit else (middle + 1, high)
            if place == 0:
                learn(estimates, _LONGEST + width, bit)
            number = 2 * number + bit
            low, high, code, passed = pass_agreed(low, high, code, data, passed)
            middle = low + ((high - low) >> 1)
        if passed > data.size:
            return ENDED
        index += number
        if index >= numel:
            return TOO_LARGE
        indices[j] = index
    return pass_end(low, high, data, passed)
