"""How words changed, coded by what is known of them before: few bytes where the small ones change and the large do not.

The words are floats, or plain bytes, whose bits are before and after known to the writer, and before to the reader. A
word's *class* is its exponent before. An optimizer's step moves numbers of all sizes about equally far, so the class
says how likely the last place of a word is to change, and by how much. In the order of classes, and of places within
each, the code has

- how many words of the class changed,
- for each of them how many of its class lie between it and the one before,
- whether its step is negative, and the step's magnitude less one.

A step is the distance between two bit patterns in the order of the numbers that they stand for, modulo ``2**bits``. All
numbers are coded as in :mod:`thinwire.kernels.entropy.adaptive_gaps`, with estimates of their own for counts, gaps and
steps, which go on from class to class. Classes without words are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from thinwire.arrays import array_of, empty_array, tensor_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.arithmetic import byte_at, end_of, learn, middle_of, pass_agreed, write_agreed
from thinwire.kernels.entropy.gap_streams import ENDED, REASONS, TOO_LARGE
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.intrinsics import count_leading_zeros, empty
from thinwire.kernels.jit.threads import run

MAX_NUMEL = 2**30
"""Most words of one code."""

_WIDEST = 32
"""Most low bits of a number: gaps and counts are below ``2**30``, steps at most ``2**31``."""
_LONGEST = _WIDEST + 1
_NUMBER = 3 * _LONGEST
"""Estimates of one sort of numbers: whether the width is ``t``, then the two highest low bits of each width."""
_COUNTS, _GAPS, _STEPS, _SIGN = 0, _NUMBER, 2 * _NUMBER, 3 * _NUMBER
_NUM_CLASSES = 256
_FIRST_ENDS, _EVEN = 20000, 32768
_NOT_SHORTEST, _OTHER_COUNT = -4, -5
_REASONS = {
    **REASONS,
    _NOT_SHORTEST: "the last bytes of the steps are not those that an encoder writes",
    _OTHER_COUNT: "as many words as are declared do not change",
}


@dataclass(frozen=True, slots=True)
class Words:
    """What the bits of a word mean.

    Args:
        bits: of a word: 8, 16 or 32.
        shift: bits below the exponent.
        exponent_bits: of the exponent, at most 8; 0 where words are plain numbers without a sign.

    Example:
        >>> Words(16, 7, 8).unsigned
        dtype('uint16')
    """

    bits: int
    shift: int
    exponent_bits: int

    @property
    def unsigned(self) -> "np.dtype[Any]":
        """The format of the words as numbers."""
        return np.dtype(f"uint{self.bits}")

    @property
    def _numbers(self) -> tuple[int, int, int]:
        return self.shift, (1 << self.exponent_bits) - 1, self.bits if self.exponent_bits else -self.bits


def count_changed(befores: Sequence[Tensor], afters: Sequence[Tensor], words: Words) -> list[int]:
    """How many words of each pair of vectors differ; pairs are looked at by several threads.

    Args:
        befores, afters: vectors of integers of ``words.bits``, on the CPU.
        words: their format.

    Raises:
        ConfigError: vectors of another format, or of different lengths.

    Example:
        >>> import torch
        >>> bits = torch.tensor([1, 2], dtype=torch.uint8)
        >>> count_changed([bits], [bits + 1], Words(8, 0, 0))
        [2]
    """
    calls = [_arrays(before, after, words) for before, after in zip(befores, afters, strict=True)]
    return [int(count) for count in run(_count, calls)] if calls else []


def encode_steps(
    befores: Sequence[Tensor], afters: Sequence[Tensor], words: Words, counts: Sequence[int], limits: Sequence[int]
) -> list[Tensor | None]:
    """The code of each pair of vectors, which several threads write; None where it takes more bytes than the limit.

    Args:
        befores, afters, words: as in :func:`count_changed`.
        counts: what that said.
        limits: the most bytes of each code.

    Returns:
        uint8 vectors.

    Raises:
        ConfigError: as :func:`count_changed`.

    Example:
        >>> import torch
        >>> before = torch.tensor([0.1, 0.2, 30.0]).bfloat16()
        >>> after = torch.tensor([0.1, 0.201, 30.0]).bfloat16()
        >>> codes = encode_steps([before.view(torch.int16)], [after.view(torch.int16)], Words(16, 7, 8), [1], [100])
        >>> codes[0].tolist()
        [34, 246]
    """
    calls = []
    for before, after, count, limit in zip(befores, afters, counts, limits, strict=True):
        events = empty_array(count, np.int32), empty_array(count, np.int32)
        calls.append((*_arrays(before, after, words), *words._numbers, *events, np.empty(limit, np.uint8)))
    sizes = run(_encode, calls) if calls else []
    return [tensor_of(call[-1][:size]) if size >= 0 else None for call, size in zip(calls, sizes, strict=True)]


def decode_steps(
    vectors: Sequence[Tensor], codes: Sequence[Tensor], words: Words, counts: Sequence[int]
) -> list[Tensor]:
    """Make the words before those after, in place, by several threads; a vector whose code is refused stays as it was.

    Args:
        vectors: contiguous vectors of integers of ``words.bits``, on the CPU.
        codes: what :func:`encode_steps` gave for them.
        words: their format.
        counts: how many words of each change.

    Returns:
        Where the words of each vector are that changed: int32, ascending.

    Raises:
        ConfigError: as :func:`count_changed`.
        WireError: codes that :func:`encode_steps` does not write, or of other vectors; others may be decoded.

    Example:
        >>> import torch
        >>> vector = torch.tensor([0.1, 0.2, 30.0]).bfloat16()
        >>> code = torch.tensor([34, 246], dtype=torch.uint8)
        >>> decode_steps([vector.view(torch.int16)], [code], Words(16, 7, 8), [1]), vector[1].item()
        ([tensor([1], dtype=torch.int32)], 0.201171875)
    """
    calls = []
    for vector, code, count in zip(vectors, codes, counts, strict=True):
        if not 0 <= count <= vector.numel():
            raise WireError(f"{count} of {vector.numel()} words are declared to change")
        array, _ = _arrays(vector, vector, words)
        events = empty_array(count, np.int32), empty_array(count, np.int32)
        calls.append((array, array_of(code), *words._numbers, *events, empty_array(count, np.int32)))
    for result in run(_decode, calls) if calls else []:
        if result < 0:
            raise WireError(_REASONS[int(result)])
    return [tensor_of(call[-1]) for call in calls]


def _arrays(before: Tensor, after: Tensor, words: Words) -> tuple[Any, Any]:
    for each in (before, after):
        right = each.is_cpu and each.dim() == 1 and each.is_contiguous() and not each.dtype.is_floating_point
        if not right or 8 * each.dtype.itemsize != words.bits or not each.numel() == before.numel() <= MAX_NUMEL:
            raise ConfigError(
                f"words are two vectors of {words.bits}-bit integers of one length, at most 2**30, on the CPU; got "
                f"{before.dtype} of shape {tuple(before.shape)} and {after.dtype} of shape {tuple(after.shape)}"
            )
    return before.detach().numpy().view(words.unsigned), after.detach().numpy().view(words.unsigned)


@kernel
def _count(before: Any, after: Any) -> Any:
    count = 0
    for i in range(before.size):
        count += before[i] != after[i]
    return count


@helper
def _in_order(word: Any, bits: Any) -> Any:
    """The place of a word in the order of the numbers; ``bits`` is negative where it is its own."""
    number = np.int64(word)
    if bits < 0:
        return number
    top = np.int64(1) << (bits - 1)
    return 2 * top - 1 - number if number & top else number | top


@helper
def _moved(word: Any, step: Any, bits: Any) -> Any:
    """The word that lies so many places further."""
    top = np.int64(1) << (abs(bits) - 1)
    number = (_in_order(word, bits) + step) & (2 * top - 1)
    if bits < 0:
        return number
    return number ^ top if number & top else 2 * top - 1 - number


@helper
def _new_estimates() -> Any:
    estimates = empty(2 * (3 * _NUMBER + 1), np.int64)
    estimates[:] = _EVEN
    for kind in range(3):
        estimates[2 * kind * _NUMBER : 2 * (kind * _NUMBER + _LONGEST)] = _FIRST_ENDS
    return estimates


@helper
def _write_bit(low: Any, high: Any, written: Any, data: Any, estimates: Any, which: Any, bit: Any) -> Any:
    middle = middle_of(low, high, estimates, which)
    low, high = (low, middle) if bit else (middle + 1, high)
    learn(estimates, which, np.int64(bit))
    return write_agreed(low, high, data, written)


@helper
def _write_number(low: Any, high: Any, written: Any, data: Any, estimates: Any, first: Any, number: Any) -> Any:
    """A number from 0 on, by the estimates of its sort."""
    number = np.int64(number) + 1
    width = 63 - np.int64(count_leading_zeros(np.uint64(number)))
    for t in range(width + 1):
        low, high, written = _write_bit(low, high, written, data, estimates, first + t, t == width)
    for place in range(width - 1, -1, -1):
        bit = (number >> place) & 1
        if place >= width - 2:
            which = first + _LONGEST * (width - place) + width
            low, high, written = _write_bit(low, high, written, data, estimates, which, bit)
        else:
            middle = low + ((high - low) >> 1)
            low, high = (low, middle) if bit else (middle + 1, high)
            low, high, written = write_agreed(low, high, data, written)
    return low, high, written


@helper
def _read_bit(low: Any, high: Any, code: Any, passed: Any, data: Any, estimates: Any, which: Any) -> Any:
    middle = middle_of(low, high, estimates, which)
    bit = np.int64(code <= middle)
    low, high = (low, middle) if bit else (middle + 1, high)
    learn(estimates, which, bit)
    low, high, code, passed = pass_agreed(low, high, code, data, passed)
    return bit, low, high, code, passed


@helper
def _read_number(low: Any, high: Any, code: Any, passed: Any, data: Any, estimates: Any, first: Any) -> Any:
    """The number, -1 if it is wider than any, and where the reader is then."""
    width = np.int64(0)
    ended, low, high, code, passed = _read_bit(low, high, code, passed, data, estimates, first)
    while not ended:
        width += 1
        if width > _WIDEST:
            return np.int64(-1), low, high, code, passed
        ended, low, high, code, passed = _read_bit(low, high, code, passed, data, estimates, first + width)
    number = np.int64(1)
    for place in range(width - 1, -1, -1):
        if place >= width - 2:
            which = first + _LONGEST * (width - place) + width
            bit, low, high, code, passed = _read_bit(low, high, code, passed, data, estimates, which)
        else:
            middle = low + ((high - low) >> 1)
            bit = np.int64(code <= middle)
            low, high = (low, middle) if bit else (middle + 1, high)
            low, high, code, passed = pass_agreed(low, high, code, data, passed)
        number = 2 * number + bit
    return number - 1, low, high, code, passed


@kernel
def _encode(
    before: Any, after: Any, shift: Any, mask: Any, bits: Any, ranks: Any, steps: Any, data: Any
) -> Any:  # fmt: skip
    sizes = empty(_NUM_CLASSES, np.int64)
    nexts = empty(_NUM_CLASSES + 1, np.int64)
    sizes[:] = 0
    nexts[:] = 0
    for i in range(before.size):
        if before[i] != after[i]:
            nexts[((np.int64(before[i]) >> shift) & mask) + 1] += 1
    for group in range(_NUM_CLASSES):
        nexts[group + 1] += nexts[group]
    if nexts[_NUM_CLASSES] != ranks.size:
        return _OTHER_COUNT
    half = np.int64(1) << (abs(bits) - 1)
    for i in range(before.size):
        group = (np.int64(before[i]) >> shift) & mask
        if before[i] != after[i]:
            ranks[nexts[group]] = sizes[group]
            step = _in_order(after[i], bits) - _in_order(before[i], bits)
            # The nearer way round: the difference is below 2**bits on either side.
            steps[nexts[group]] = ((step + half) & (2 * half - 1)) - half
            nexts[group] += 1
        sizes[group] += 1
    estimates = _new_estimates()
    low, high, written = np.int64(0), np.int64(0xFFFFFFFF), 0
    event = 0
    for group in range(_NUM_CLASSES):
        if sizes[group] == 0:
            continue
        # `nexts` has moved on to where the next class begins.
        low, high, written = _write_number(low, high, written, data, estimates, _COUNTS, nexts[group] - event)
        last = np.int64(-1)
        while event < nexts[group]:
            gap = ranks[event] - last - 1
            low, high, written = _write_number(low, high, written, data, estimates, _GAPS, gap)
            last += gap + 1
            step = np.int64(steps[event])
            low, high, written = _write_bit(low, high, written, data, estimates, _SIGN, step < 0)
            low, high, written = _write_number(low, high, written, data, estimates, _STEPS, abs(step) - 1)
            event += 1
            if written > data.size:
                return ENDED
    start, num_bytes = end_of(low, high)
    if written + num_bytes > data.size:
        return ENDED
    for place in range(num_bytes):
        data[written + place] = np.uint8(start >> (24 - 8 * place))
    return written + num_bytes


@helper
def _read_events(sizes: Any, ends: Any, half: Any, data: Any, ranks: Any, steps: Any) -> Any:
    """Ranks and steps in the order of classes, and where each class ends; 0, or what is wrong."""
    estimates = _new_estimates()
    low, high, code, passed = np.int64(0), np.int64(0xFFFFFFFF), np.int64(0), 0
    for place in range(4):
        code |= byte_at(data, place) << (24 - 8 * place)
    event = 0
    for group in range(_NUM_CLASSES):
        ends[group] = event
        if sizes[group] == 0:
            continue
        count, low, high, code, passed = _read_number(low, high, code, passed, data, estimates, _COUNTS)
        if count < 0 or count > ranks.size - event:
            return _OTHER_COUNT
        last = np.int64(-1)
        for _ in range(count):
            gap, low, high, code, passed = _read_number(low, high, code, passed, data, estimates, _GAPS)
            negative, low, high, code, passed = _read_bit(low, high, code, passed, data, estimates, _SIGN)
            number, low, high, code, passed = _read_number(low, high, code, passed, data, estimates, _STEPS)
            if passed > data.size:
                return ENDED
            last += gap + 1
            if gap < 0 or last >= sizes[group] or number < 0 or number + 1 - negative >= half:
                return TOO_LARGE
            ranks[event] = last
            steps[event] = -(number + 1) if negative else number + 1
            event += 1
        ends[group] = event
    if event != ranks.size:
        return _OTHER_COUNT
    start, num_bytes = end_of(low, high)
    if passed + num_bytes != data.size:
        return ENDED if passed + num_bytes > data.size else _NOT_SHORTEST
    for place in range(num_bytes):
        if data[passed + place] != np.uint8(start >> (24 - 8 * place)):
            return _NOT_SHORTEST
    return 0


@kernel
def _decode(
    words: Any, data: Any, shift: Any, mask: Any, bits: Any, ranks: Any, steps: Any, places: Any
) -> Any:  # fmt: skip
    sizes = empty(_NUM_CLASSES, np.int64)
    ends = empty(_NUM_CLASSES, np.int64)
    sizes[:] = 0
    for i in range(words.size):
        sizes[(np.int64(words[i]) >> shift) & mask] += 1
    wrong = _read_events(sizes, ends, np.int64(1) << (abs(bits) - 1), data, ranks, steps)
    if wrong < 0:
        return wrong
    # Of each class the next event, and how many words lie before its word.
    events = empty(_NUM_CLASSES, np.int64)
    waits = empty(_NUM_CLASSES, np.int64)
    for group in range(_NUM_CLASSES):
        events[group] = ends[group - 1] if group else 0
        waits[group] = np.int64(ranks[events[group]]) if events[group] < ends[group] else np.int64(-1)
    found = 0
    for i in range(words.size):
        group = (np.int64(words[i]) >> shift) & mask
        if waits[group] == 0:
            event = events[group]
            words[i] = _moved(words[i], np.int64(steps[event]), bits)
            places[found] = i
            found += 1
            events[group] = event + 1
            waits[group] = np.int64(ranks[event + 1]) - ranks[event] if event + 1 < ends[group] else np.int64(0)
        waits[group] -= 1
    return found
