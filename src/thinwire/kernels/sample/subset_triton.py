"""A few indices of many, each set of them equally likely, on CUDA. Nothing here waits for the device.

How many candidates are needed until enough of them differ is not known before; as many are drawn as suffice but with
a probability of ``2**-80``. They are sorted. Of equal ones the first drawn counts, and of those the first that were
wanted.
"""

import math
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from thinwire.arrays import array_of, tensor_of, to_device
from thinwire.kernels.jit.launches import launch
from thinwire.kernels.random.philox_triton import key_argument, philox

_BLOCK = 512
_START = tl.constexpr(0)  # where the segment begins
_SIZE = tl.constexpr(1)
_NUMBER = tl.constexpr(2)  # of the segment among all, also those of which nothing is drawn
_COUNT = tl.constexpr(3)  # how many are wanted
_PLACE = tl.constexpr(4)  # where they go in the result
_DRAWN = tl.constexpr(5)  # how many different ones are drawn: those that are wanted, or the others
_FIRST_DRAWN = tl.constexpr(6)  # how many are drawn in the segments before
_CANDIDATES = tl.constexpr(7)
_FIRST_CANDIDATE = tl.constexpr(8)  # how many there are in the segments before
_CHUNK = tl.constexpr(9)  # of as many candidates as a program has lanes: how many in the segments before
_RESULT_CHUNK = tl.constexpr(10)  # of as many results: how many in the segments before
_COLUMNS = tl.constexpr(11)


def segment_subsets(key: int, offsets: Tensor, counts: Tensor, device: torch.device | str) -> Tensor:
    """See :func:`thinwire.kernels.sample.subset.segment_subsets_torch`. Offsets and counts lie on the CPU.

    Memory and time depend on what is drawn, not on how long the segments are: a sort of about as many candidates, and
    a few passes over them.
    """
    table = _plan(array_of(offsets), array_of(counts))
    chunks, drawn = -(-table[:, _CANDIDATES.value] // _BLOCK), table[:, _DRAWN.value]
    numbers, device = np.arange(len(table)), torch.device(device)
    # What is drawn is the result, unless of a segment the others are.
    is_rest = bool((drawn < table[:, _COUNT.value]).any() or (drawn > table[:, _COUNT.value]).any())
    parts = (table.reshape(-1), np.repeat(numbers, chunks), np.repeat(numbers, -(-table[:, _COUNT.value] // _BLOCK)))
    packed = to_device(tensor_of(np.concatenate(parts)), device)
    rows, owners, result_owners = packed.split([part.size for part in parts])
    kept = _draw(key, rows, owners, int(table[:, _CANDIDATES.value].sum()), int(drawn.sum()))
    if not is_rest:
        return kept
    result = torch.empty(int(counts.sum()), dtype=torch.int64, device=device)
    num_steps = int(drawn.max()).bit_length()
    launch(_write, len(result_owners), [kept, result, rows, result_owners, num_steps], {"BLOCK": _BLOCK})
    return result


def _draw(key: int, rows: Tensor, owners: Tensor, num_candidates: int, num_drawn: int) -> Tensor:
    candidates = torch.empty(num_candidates, dtype=torch.int64, device=rows.device)
    block = {"BLOCK": _BLOCK}
    launch(_draw_candidates, len(owners), [candidates, rows, owners, key_argument(key)], block)
    candidates, order = candidates.sort(stable=True)
    marks = torch.zeros(num_candidates + 1, dtype=torch.int32, device=rows.device)
    launch(_mark_first, triton.cdiv(num_candidates, _BLOCK), [candidates, order, marks[1:], num_candidates], block)
    before = marks.cumsum(0)
    marks.zero_()
    launch(_mark_wanted, len(owners), [candidates, order, before, marks[1:], rows, owners], block)
    before = marks.cumsum(0)
    kept = torch.empty(num_drawn, dtype=torch.int64, device=rows.device)
    launch(_keep, triton.cdiv(num_candidates, _BLOCK), [candidates, before, kept, num_candidates], block)
    return kept


def _plan(starts: "np.ndarray[Any, Any]", counts: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """A row for each segment of which something is wanted."""
    sizes = np.diff(starts)
    some = np.flatnonzero(counts)
    table = np.zeros((len(some), _COLUMNS.value), np.int64)
    drawn = np.where(2 * counts > sizes, sizes - counts, counts)[some]
    candidates = _num_candidates(sizes[some], drawn)
    chunks, result_chunks = -(-candidates // _BLOCK), -(-counts[some] // _BLOCK)
    # Pairs: constants of Triton 3.4 cannot be keys.
    columns = [
        (_START, starts[:-1][some]),
        (_SIZE, sizes[some]),
        (_NUMBER, some),
        (_COUNT, counts[some]),
        (_PLACE, (np.cumsum(counts) - counts)[some]),
        (_DRAWN, drawn),
        (_CANDIDATES, candidates),
        (_FIRST_DRAWN, np.cumsum(drawn) - drawn),
        (_FIRST_CANDIDATE, np.cumsum(candidates) - candidates),
        (_CHUNK, np.cumsum(chunks) - chunks),
        (_RESULT_CHUNK, np.cumsum(result_chunks) - result_chunks),
    ]
    for column, numbers in columns:
        table[:, column.value] = numbers
    return table


def _num_candidates(sizes: "np.ndarray[Any, Any]", drawn: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """How many candidates have ``drawn`` different ones among them but with a probability of at most ``2**-80``.

    After ``i`` different ones the next is new with the probability ``p = 1 - i / n``. The number of candidates up to
    it has the generating function ``p z / (1 - (1 - p) z)``, so that more than ``m`` in all are needed with a
    probability of at most ``z**-m`` times the product of these for every ``z`` from 1 to ``n / drawn``. The sum of
    their logarithms is at most the integral.
    """
    some = drawn > 0
    n, d = sizes[some].astype(np.float64), drawn[some].astype(np.float64)
    share = d / n
    best = np.full(n.shape, np.inf)
    for t in (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9):
        z = 1 + (1 / share - 1) * t
        reached = z * share
        integral = share * np.log(z) - (1 - share) * np.log1p(-share) - share
        integral += ((1 - reached) * np.log1p(-reached) + reached) / z
        best = np.minimum(best, (n * integral + 80 * math.log(2)) / np.log(z))
    result = np.zeros(sizes.shape, np.int64)
    result[some] = np.maximum(np.ceil(best) + 1, d)
    return result


@triton.jit(do_not_specialize=["key"])
def _draw_candidates(
    candidates: tl.tensor, rows: tl.tensor, owners: tl.tensor, key: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Where they lie in the vector, in the order of drawing."""
    chunk = tl.program_id(0).to(tl.int64)
    row = rows + tl.load(owners + chunk) * _COLUMNS
    begin = (chunk - tl.load(row + _CHUNK)) * BLOCK
    # A candidate takes two words, a block of the generator has four; a segment's stream is of 2**34 words.
    blocks = (tl.load(row + _NUMBER) << 32) + begin // 2 + tl.arange(0, BLOCK // 2)
    w0, w1, w2, w3 = philox(blocks, 0, key)
    even = w0.to(tl.uint64) | (w1.to(tl.uint64) << 32)
    odd = w2.to(tl.uint64) | (w3.to(tl.uint64) << 32)
    drawn = tl.interleave(even, odd) % tl.load(row + _SIZE).to(tl.uint64)
    places = begin + tl.arange(0, BLOCK)
    target = candidates + tl.load(row + _FIRST_CANDIDATE) + places
    tl.store(target, tl.load(row + _START) + drawn.to(tl.int64), mask=places < tl.load(row + _CANDIDATES))


@triton.jit
def _mark_first(
    candidates: tl.tensor, order: tl.tensor, marks: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """1, in the order of drawing, for what was not drawn before. ``order`` says when each of the sorted was drawn."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < numel
    first = _differ(candidates, places, inside)
    tl.store(marks + tl.load(order + places, mask=inside, other=0), first.to(tl.int32), mask=inside)


@triton.jit
def _mark_wanted(
    candidates: tl.tensor,
    order: tl.tensor,
    before: tl.tensor,
    marks: tl.tensor,
    rows: tl.tensor,
    owners: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """1 for each of the sorted that is the first of its equals and among the first of its segment that differ."""
    chunk = tl.program_id(0).to(tl.int64)
    row = rows + tl.load(owners + chunk) * _COLUMNS
    # The candidates of a segment lie in the same range whether sorted or not.
    numbers = (chunk - tl.load(row + _CHUNK)) * BLOCK + tl.arange(0, BLOCK)
    inside = numbers < tl.load(row + _CANDIDATES)
    first = tl.load(row + _FIRST_CANDIDATE)
    earlier = tl.load(before + tl.load(order + first + numbers, mask=inside, other=0), mask=inside, other=0)
    wanted = earlier - tl.load(before + first) < tl.load(row + _DRAWN)
    new = _differ(candidates, first + numbers, inside)
    tl.store(marks + first + numbers, (new & wanted).to(tl.int32), mask=inside)


@triton.jit
def _keep(candidates: tl.tensor, before: tl.tensor, kept: tl.tensor, numel: tl.tensor, BLOCK: tl.constexpr) -> None:
    """The candidates that are marked, one after another."""
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < numel
    target = tl.load(before + places, mask=inside, other=0)
    marked = tl.load(before + places + 1, mask=inside, other=0) > target
    tl.store(kept + target, tl.load(candidates + places, mask=inside, other=0), mask=marked)


@triton.jit
def _write(
    kept: tl.tensor,
    result: tl.tensor,
    rows: tl.tensor,
    owners: tl.tensor,
    num_steps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """What was drawn of a segment, or all that was not if more than half is wanted."""
    chunk = tl.program_id(0).to(tl.int64)
    row = rows + tl.load(owners + chunk) * _COLUMNS
    count, drawn, start = tl.load(row + _COUNT), tl.load(row + _DRAWN), tl.load(row + _START)
    numbers = (chunk - tl.load(row + _RESULT_CHUNK)) * BLOCK + tl.arange(0, BLOCK)
    inside = numbers < count
    own = kept + tl.load(row + _FIRST_DRAWN)
    target = result + tl.load(row + _PLACE) + numbers
    if drawn == count:
        tl.store(target, tl.load(own + numbers, mask=inside, other=0), mask=inside)
    else:
        # Before drawn index i lie `own[i] - start - i` others: how many of the drawn have no more than `numbers`?
        low = tl.zeros_like(numbers)
        high = low + drawn
        for _ in range(num_steps):
            middle = (low + high) // 2
            index = tl.load(own + middle, mask=low < high, other=0)
            less = (low < high) & (index - start - middle <= numbers)
            high = tl.where(less, high, middle)
            low = tl.where(less, middle + 1, low)
        tl.store(target, start + numbers + low, mask=inside)


@triton.jit
def _differ(candidates: tl.tensor, places: tl.tensor, inside: tl.tensor) -> Any:
    """Whether each of the sorted candidates differs from the one before."""
    own = tl.load(candidates + places, mask=inside, other=0)
    return own != tl.load(candidates + places - 1, mask=inside & (places > 0), other=-1)
