"""An arithmetic code of yes-or-no decisions whose probabilities are learnt on the way: what its users share.

The code keeps an interval of 32-bit numbers and halves it, in proportion, at each decision. Bytes that all numbers of
the interval begin with are written at once. An estimate of a probability is the mean of two that follow what was seen,
one fast and one slow.
"""

from typing import Any

import numpy as np

from thinwire.kernels.entropy.gap_streams import ENDED
from thinwire.kernels.jit.compiling import helper

_FAST, _SLOW = 4, 7
NOT_SHORTEST = -4
"""What a reader says of last bytes that are not those that a writer ends with; beside the signs of ``gap_streams``."""


@helper
def _end_of(low: Any, high: Any) -> Any:
    """The fewest bytes after which any others may follow inside the interval, as a number and how many."""
    for num_bytes in range(4):
        step = np.int64(1) << (32 - 8 * num_bytes)
        start = (low + step - 1) // step * step
        if start + step - 1 <= high:
            return start, num_bytes
    return low, 4


@helper
def _byte_at(data: Any, position: Any) -> Any:
    """The byte there; zeros follow the end."""
    return np.int64(data[position]) if position < data.size else np.int64(0)


@helper
def middle_of(low: Any, high: Any, estimates: Any, which: Any) -> Any:
    """The last number that stands for a 1: its share of the interval is the estimate, never nearly 0 or 1."""
    probability = min(max((estimates[2 * which] + estimates[2 * which + 1]) >> 1, 64), 65536 - 64)
    return low + (((high - low) * probability) >> 16)


@helper
def learn(estimates: Any, which: Any, bit: Any) -> None:
    """Both estimates follow what was seen."""
    estimates[2 * which] += ((bit << 16) - estimates[2 * which]) >> _FAST
    estimates[2 * which + 1] += ((bit << 16) - estimates[2 * which + 1]) >> _SLOW


@helper
def write_agreed(low: Any, high: Any, data: Any, written: Any) -> Any:
    """The interval without the bytes that all its numbers begin with; bytes that ``data`` cannot hold are counted."""
    while (low ^ high) >> 24 == 0:
        if written < data.size:
            data[written] = np.uint8(low >> 24)
        written += 1
        low = (low << 8) & np.int64(0xFFFFFFFF)
        high = ((high << 8) & np.int64(0xFFFFFFFF)) | 0xFF
    return low, high, written


@helper
def pass_agreed(low: Any, high: Any, code: Any, data: Any, passed: Any) -> Any:
    """The same for a reader, whose number goes on with the next bytes; zeros follow the end of ``data``."""
    while (low ^ high) >> 24 == 0:
        low = (low << 8) & np.int64(0xFFFFFFFF)
        high = ((high << 8) & np.int64(0xFFFFFFFF)) | 0xFF
        code = ((code << 8) & np.int64(0xFFFFFFFF)) | _byte_at(data, passed + 4)
        passed += 1
    return low, high, code, passed


@helper
def write_end(low: Any, high: Any, data: Any, written: Any) -> Any:
    """End the code: how many bytes it has, or ``ENDED`` if ``data`` cannot hold them."""
    start, num_bytes = _end_of(low, high)
    if written + num_bytes > data.size:
        return ENDED
    for place in range(num_bytes):
        data[written + place] = np.uint8(start >> (24 - 8 * place))
    return written + num_bytes


@helper
def first_number(data: Any) -> Any:
    """What a reader begins with: the first four bytes."""
    code = np.int64(0)
    for place in range(4):
        code |= _byte_at(data, place) << (24 - 8 * place)
    return code


@helper
def pass_end(low: Any, high: Any, data: Any, passed: Any) -> Any:
    """Where a code ends that a reader has read: a place in ``data``, or what is wrong with its last bytes."""
    start, num_bytes = _end_of(low, high)
    if passed + num_bytes > data.size:
        return ENDED
    for place in range(num_bytes):
        if data[passed + place] != np.uint8(start >> (24 - 8 * place)):
            return NOT_SHORTEST
    return passed + num_bytes
