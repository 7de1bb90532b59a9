"""The loop of one thread: draw an example, read, compute, choose, add."""

import math
from typing import Any

import numpy as np

from thinwire.kernels.jit.compiling import helper, kernel
from thinwire.kernels.jit.hints import borrowed
from thinwire.kernels.jit.intrinsics import seen_as
from thinwire.kernels.random.philox import fill_words
from thinwire.kernels.select.kth_largest import collect, kth_largest_of_all
from thinwire.kernels.shared_memory.atomics import load_shared
from thinwire.kernels.shared_memory.variants import STOP, add_entries, begin_together, read_entries

_LOGISTIC = 0
_SGD, _TOP_K, _RANDOM_K = range(3)
BUFFER = 1024
"""Draws of examples that are made at once."""

_LARGEST_MARGIN = 700.0


def scratch_arrays(numel: int, longest: int) -> tuple[Any, ...]:
    """What the loop needs for vectors of ``numel`` entries and updates of at most ``longest``.

    Example:
        >>> len(scratch_arrays(3, 2))
        9
    """
    stride = stride_of(longest)
    return (
        np.empty(BUFFER, np.uint32), np.empty(stride, np.uint32), np.empty(max(BUFFER, stride) // 2, np.uint64),
        np.empty(longest, np.float32), np.empty(longest, np.int64), np.empty(longest, np.float32),
        np.ones(longest, np.int64), np.empty(longest, np.float64), np.zeros(numel, np.uint8),
    )  # fmt: skip


def stride_of(longest: int) -> int:
    """Words of the stream of coordinates that a step has for itself: whole blocks of four.

    Example:
        >>> stride_of(5)
        8
    """
    return (longest + 3) // 4 * 4


@kernel
def take_steps_numba(
    vector: Any, locks: Any, gates: Any, control: Any, variant: int, num_threads: int,
    offsets: Any, indices: Any, values: Any, labels: Any, penalties: Any,
    method: int, loss: int, k: int, rate: Any, memory: Any, counts: Any, scratch: Any,
    example_low: Any, example_high: Any, entry_low: Any, entry_high: Any, first: int, num: int,
) -> Any:  # fmt: skip
    """Steps ``first`` to ``first + num - 1`` of a thread; how many were taken, how many coordinates were written."""
    # A count of references would be one more thing that the threads change in turn.
    vector, locks, gates, control = borrowed(vector), borrowed(locks), borrowed(gates), borrowed(control)
    indices, values, memory, counts = borrowed(indices), borrowed(values), borrowed(memory), borrowed(counts)
    draws, words, pairs = borrowed(scratch[0]), borrowed(scratch[1]), borrowed(scratch[2])
    read, chosen, amounts = borrowed(scratch[3]), borrowed(scratch[4]), borrowed(scratch[5])
    ones, shares, marks = borrowed(scratch[6]), borrowed(scratch[7]), borrowed(scratch[8])
    base: Any = np.int64(-BUFFER)
    written = np.int64(0)
    begin_together(control, num_threads)
    for step in range(first, first + num):
        if load_shared(control, STOP) != 0:
            return step - first, written
        if step >= base + BUFFER:
            base = step // 4 * 4
            fill_words(example_low, example_high, base >> 2, pairs[: BUFFER // 2], draws)
        row = np.int64((np.uint64(draws[step - base]) * np.uint64(labels.size)) >> np.uint64(32))
        places = indices[offsets[row] : offsets[row + 1]]
        own = values[offsets[row] : offsets[row + 1]]
        size = places.size
        now = read[:size]
        read_entries(variant, vector, gates, places, now)
        slope = _slope(now, own, labels[row], loss)
        for j in range(size):
            now[j] = rate * (slope * own[j] + penalties[places[j]] * now[j])
        if method == _SGD:
            count = _take_all(places, now, chosen, amounts)
        elif method <= _RANDOM_K:
            for j in range(size):
                memory[places[j]] += now[j]
            if method == _TOP_K:
                threshold, ties = kth_largest_of_all(seen_as(memory, np.uint32), k)
                collect(memory, 0, memory.size, threshold, ties, chosen[:k], amounts[:k])
            else:
                _fill(entry_low, entry_high, step * words.size, pairs, words, k)
                _random_subset(words, k, marks, chosen)
            count = _move(memory, chosen, amounts, k)
        else:
            _fill(entry_low, entry_high, step * words.size, pairs, words, size)
            count = _sample(places, now, words, k, shares, chosen, amounts)
        add_entries(variant, vector, locks, gates, chosen[:count], amounts[:count])
        if counts.size > 0:
            add_entries(variant, counts, locks, gates, chosen[:count], ones[:count])
        written += count
    return num, written


@helper
def _slope(weights: Any, values: Any, label: Any, loss: int) -> Any:
    """The derivative of the loss by ``<w, x>``, in f64 from products in f64 summed in order, then rounded to f32."""
    product = 0.0
    for j in range(values.size):
        product += np.float64(weights[j]) * np.float64(values[j])
    sign = np.float64(label)
    margin = sign * product
    if loss == _LOGISTIC:
        return np.float32(-sign / (1.0 + math.exp(min(margin, _LARGEST_MARGIN))))
    return np.float32(-sign) if margin < 1.0 else np.float32(0.0)


@helper
def _fill(low: Any, high: Any, start: int, pairs: Any, words: Any, count: int) -> None:
    """Words ``start`` to ``start + count - 1`` of a stream, and up to three more; ``start`` is a multiple of 4."""
    whole = (count + 3) // 4 * 4
    fill_words(low, high, start >> 2, pairs[: whole // 2], words[:whole])


@helper
def _take_all(places: Any, updates: Any, chosen: Any, amounts: Any) -> int:
    count = 0
    for j in range(places.size):
        if updates[j] != 0:
            chosen[count] = places[j]
            amounts[count] = -updates[j]
            count += 1
    return count


@helper
def _random_subset(words: Any, k: int, marks: Any, chosen: Any) -> None:
    """``k`` of ``marks.size`` places, every subset as likely (Floyd), a word each; ``marks`` is zero outside."""
    for j in range(k):
        bound = marks.size - k + j
        place = np.int64((np.uint64(words[j]) * np.uint64(bound + 1)) >> np.uint64(32))
        if marks[place] != 0:
            place = bound
        marks[place] = 1
        chosen[j] = place
    for j in range(k):
        marks[chosen[j]] = 0


@helper
def _move(memory: Any, chosen: Any, amounts: Any, k: int) -> int:
    """Take the chosen entries out of the memory; how many were not zero."""
    count = 0
    for j in range(k):
        place = chosen[j]
        amount = memory[place]
        memory[place] = 0
        if amount != 0:
            chosen[count] = place
            amounts[count] = -amount
            count += 1
    return count


@helper
def _sample(places: Any, updates: Any, words: Any, k: int, shares: Any, chosen: Any, amounts: Any) -> int:
    """Entries that are kept with probabilities proportional to their magnitude, divided by these."""
    size = places.size
    _probabilities(updates, k, shares)
    count = 0
    for j in range(size):
        draw = np.float64(words[j] >> np.uint32(8)) * 2.0**-24
        if draw < shares[j]:
            chosen[count] = places[j]
            amounts[count] = np.float32(-np.float64(updates[j]) / shares[j])
            count += 1
    return count


@helper
def _probabilities(updates: Any, k: int, shares: Any) -> None:
    """``min(1, |u_j| / T)`` with a sum of about ``k``; 0 of zeros."""
    size = updates.size
    total = 0.0
    num = 0
    for j in range(size):
        shares[j] = np.float64(abs(updates[j]))
        total += shares[j]
        num += 1 if updates[j] != 0 else 0
    for j in range(size):
        if num <= k:
            shares[j] = 1.0 if updates[j] != 0 else 0.0
        else:
            shares[j] = min(1.0, shares[j] * (k / total))
    for _ in range(2 if num > k else 0):
        certain = 0
        rest = 0.0
        for j in range(size):
            certain += 1 if shares[j] >= 1.0 else 0
            rest += shares[j] if shares[j] < 1.0 else 0.0
        if rest <= 0.0 or (k - certain) / rest <= 1.0:
            break
        factor = (k - certain) / rest
        for j in range(size):
            if shares[j] < 1.0:
                shares[j] = min(1.0, shares[j] * factor)
