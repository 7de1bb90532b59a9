"""Triton's kernels that select, in its interpreter, against the loops on the CPU and the twins in torch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from bits import LONG, PLACE, on_device
from torch import Tensor

from thinwire.kernels.select import accumulate, accumulate_triton, long_triton, parallel_triton, top_k, top_k_triton

kernels = on_device(top_k_triton, accumulate_triton)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))


def noise(size: int, seed: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def infinite(size: int) -> Tensor:
    x = noise(size, 4)
    x[::5] = float("inf")
    x[1::5] = float("-inf")
    return x


def mixed_zeros(size: int) -> Tensor:
    x = torch.zeros(size)
    x[1::2] = -0.0
    return x


def not_numbers(size: int) -> Tensor:
    x = noise(size, 5)
    x[::3] = float("nan")
    x.view(torch.int32)[1::7] = -1  # the NaN with the most bits
    return x


# Entries whose sum with half of zeros, or of themselves, still has ties, zeros, denormals and infinities.
KINDS: dict[str, Callable[[int], Tensor]] = {
    "noise": lambda size: noise(size, size),
    "ties": lambda size: torch.randint(-2, 3, (size,), generator=torch.Generator().manual_seed(size)).float(),
    "equal": lambda size: torch.full((size,), -2.5),
    "zeros": mixed_zeros,
    "denormals": lambda size: noise(size, 3) * 1e-42,
    "infinite": infinite,
}


def check(x: Tensor, residual: Tensor, decay: float, offsets: Tensor, counts: Tensor) -> None:
    """Kernel, loop and twin give the same positions, entries and sum."""
    expected, twin, got = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    indices, values = accumulate.accumulate_top_k(x, residual, decay, expected, offsets, counts)
    of_twin, values_of_twin = accumulate.accumulate_top_k_torch(x, residual, decay, twin, offsets, counts)
    assert torch.equal(indices, of_twin)
    assert same_bits(values, values_of_twin)
    assert same_bits(expected, twin)
    found, entries = kernels.accumulate_top_k(x, residual, decay, got, offsets, counts)
    assert found.dtype == torch.int64
    assert torch.equal(found, indices)
    assert same_bits(entries, values)
    assert same_bits(got, expected)


@pytest.mark.parametrize("place", ["x", "residual"])
def test_the_sum_may_take_the_place_of_either(place: str) -> None:
    offsets, counts = torch.tensor([0, 100, 5000]), torch.tensor([10, 50])
    x, residual, expected = noise(5000, 1), noise(5000, 2), torch.empty(5000)
    indices, values = accumulate.accumulate_top_k(x, residual, 0.9, expected, offsets, counts)
    out = x if place == "x" else residual
    found, entries = kernels.accumulate_top_k(x, residual, 0.9, out, offsets, counts)
    assert torch.equal(found, indices)
    assert same_bits(entries, values)
    assert same_bits(out, expected)


@pytest.mark.parametrize("size", [0, 1, 65, 4097, *LONG])
def test_top_k(size: int) -> None:
    x, offsets = noise(size, size), torch.tensor([0, size])
    for count in {0, size // 20, size}:
        counts = torch.tensor([count])
        indices = kernels.top_k(x, offsets, counts)
        assert torch.equal(indices, top_k.top_k(x, offsets, counts))
        assert torch.equal(indices, top_k.top_k_torch(x, offsets, counts))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 257])
def test_one_short_segment(size: int, kind: str) -> None:
    x = KINDS[kind](size)
    for count in sorted({0, min(1, size), size // 2, size}):
        check(x, mixed_zeros(size), 0.5, torch.tensor([0, size]), torch.tensor([count]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "count"), [(4097, 0), (4097, 41), (4097, 4097), (9001, 1), *((size, size // 100) for size in LONG)]
)
def test_one_long_segment(size: int, count: int, kind: str) -> None:
    x = KINDS[kind](size)
    expected, got = torch.empty(size), torch.empty(size)
    whole, counts, residual = torch.tensor([0, size]), torch.tensor([count]), x.flip(0).clamp(-3, 3)
    indices, values = accumulate.accumulate_top_k(x, residual, 0.3, expected, whole, counts)
    found, entries = kernels.accumulate_top_k(x, residual, 0.3, got, whole, counts)
    assert torch.equal(found, indices)
    assert same_bits(entries, values)
    assert same_bits(got, expected)


def test_segments_of_all_lengths_at_once() -> None:
    sizes = torch.tensor([0, 1, 5000, 0, 256, 257, 3, 12_345, 1024, 1, 4096, 4097, 0])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    counts = torch.tensor([0, 1, 50, 0, 256, 2, 0, 300, 10, 0, 41, 4000, 0])
    numel = int(offsets[-1])
    check(noise(numel, 1), noise(numel, 2), 0.9, offsets, counts)


def test_many_tiny_segments() -> None:
    sizes = torch.arange(24) % 11
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    x = torch.randint(-5, 6, (int(offsets[-1]),), generator=torch.Generator().manual_seed(2)).float()
    check(x, torch.zeros_like(x), 1.0, offsets, sizes // 3)


@pytest.mark.parametrize("kind", ["periodic", "hidden", "not numbers"])
def test_what_misleads_a_sample(kind: str) -> None:
    size = 13_000
    x = noise(size, 1)
    if kind == "periodic":
        x[::32] *= 1000
    elif kind == "hidden":  # the bound is 0: all are candidates, and have no room
        x.zero_()[12_345:12_389] = 1.0
    else:
        x = not_numbers(size)
    offsets, counts = torch.tensor([0, size]), torch.tensor([600])
    assert torch.equal(kernels.top_k(x, offsets, counts), top_k.top_k_torch(x, offsets, counts))


@pytest.mark.parametrize("rank", [1, 5, 200])
def test_any_bound_gives_the_same(rank: int) -> None:
    """Too high, it leaves too few; too low, more than have room: either way the whole is looked at."""
    offsets, counts = torch.tensor([0, 9000, 18_000]), torch.tensor([90, 100])
    x = torch.cat([noise(9000, 1), noise(9000, 2).round()])
    rows = np.array([[0, 9000, 90, 0], [9000, 9000, 100, 90]])
    table, segments = parallel_triton.plan(rows)
    table[:, long_triton.RANK.value] = rank
    indices, values = torch.empty(190, dtype=torch.int64, device=PLACE), torch.empty(190, device=PLACE)
    there = x.to(PLACE)
    parallel_triton.select_long((there, there, 1.0), False, there, table, segments, (indices, values))
    indices, values = indices.cpu(), values.cpu()
    expected = top_k.top_k(x, offsets, counts)
    assert torch.equal(indices, expected)
    assert same_bits(values, x[expected])


@pytest.mark.parametrize("size", [0, 1, 65, 4097, *LONG])
def test_accumulate_take(size: int) -> None:
    x, residual = noise(size, 1), noise(size, 2)
    residual[:1] = 1e-42
    indices = torch.arange(0, size, 3)
    expected, own = torch.empty(size), residual.clone()
    values = accumulate.accumulate_take(x, residual, 0.7, expected, indices)
    for second, out in ((residual, torch.empty(size)), (own, own)):
        assert same_bits(kernels.accumulate_take(x, second, 0.7, out, indices), values)
        assert same_bits(out, expected)


def test_vectors_with_gaps_between_entries() -> None:
    x, residual, out = noise(5000, 1)[::2], noise(5000, 2)[::2], torch.empty(2500)
    offsets, counts = torch.tensor([0, 100, 2500]), torch.tensor([10, 20])
    indices, values = kernels.accumulate_top_k(x, residual, 0.5, out, offsets, counts)
    assert same_bits(out, residual * 0.5 + x)
    assert torch.equal(indices, top_k.top_k_torch(out, offsets, counts))
    assert same_bits(values, out[indices])
