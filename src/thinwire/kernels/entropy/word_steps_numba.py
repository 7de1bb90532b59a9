"""The loops of :mod:`thinwire.kernels.entropy.word_steps`."""

from typing import Any

import numpy as np

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
from thinwire.kernels.entropy.gap_streams import ENDED, TOO_LARGE
from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.intrinsics import count_leading_zeros, empty

_WIDEST = 32
"""Most low bits of a number: gaps and counts are below ``2**30``, steps at most ``2**31``."""
_LONGEST = _WIDEST + 1
_NUMBER = 3 * _LONGEST
"""Estimates of one sort of numbers: whether the width is ``t``, then the two highest low bits of each width."""
_COUNTS, _GAPS, _STEPS, _SIGN = 0, _NUMBER, 2 * _NUMBER, 3 * _NUMBER
_NUM_CLASSES = 256
_FIRST_ENDS, _EVEN = 20000, 32768
OTHER_COUNT = -5


@kernel
def count_words(before: Any, after: Any) -> Any:
    """How many differ."""
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
def encode_words(before: Any, after: Any, shift: Any, mask: Any, bits: Any, ranks: Any, steps: Any, data: Any) -> Any:
    """Write the code to ``data``; its length, or what is wrong. ``ranks`` and ``steps`` have room for all changes."""
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
        return OTHER_COUNT
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
    return write_end(low, high, data, written)


@helper
def _read_events(sizes: Any, ends: Any, half: Any, data: Any, ranks: Any, steps: Any) -> Any:
    """Ranks and steps in the order of classes, and where each class ends; 0, or what is wrong."""
    estimates = _new_estimates()
    low, high, code, passed = np.int64(0), np.int64(0xFFFFFFFF), first_number(data), 0
    event = 0
    for group in range(_NUM_CLASSES):
        ends[group] = event
        if sizes[group] == 0:
            continue
        count, low, high, code, passed = _read_number(low, high, code, passed, data, estimates, _COUNTS)
        if count < 0 or count > ranks.size - event:
            return OTHER_COUNT
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
        return OTHER_COUNT
    end = pass_end(low, high, data, passed)
    if end < 0:
        return end
    return 0 if end == data.size else NOT_SHORTEST


@kernel
def decode_words(words: Any, data: Any, shift: Any, mask: Any, bits: Any, ranks: Any, steps: Any, places: Any) -> Any:
    """Change the words as the code says, and write where to ``places``; below 0, and no change, if it is wrong."""
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
