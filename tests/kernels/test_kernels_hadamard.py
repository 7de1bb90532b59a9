"""The rotation by its definition, by its laws, and the kernel against its twin."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.random.philox import random_words
from thinwire.kernels.transform.hadamard import hadamard_blocks, hadamard_rotate, hadamard_rotate_torch

SIZES = (0, 1, 7, 63, 64, 65, 255, 256, 4096, 5000)
# Lengths and largest blocks at which the kernel goes other ways: each storey, and each kind of pass over memory.
LARGE = (
    (2**14, None),
    (2**16, None),
    (2**17, None),
    (2**18 + 77, None),
    (300_001, 64),
    (300_001, 2**8),
    (300_001, 2**10),
    (2**19 + 300, 2**17),
    (2**20, None),
    (2**20 + 2**19, None),
    (2**22 + 2**9, None),
)


def vector(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) ** 3


def hadamard(size: int) -> Tensor:
    grid = np.arange(size)[:, None] & np.arange(size)
    parity = np.array([number.bit_count() & 1 for number in range(size)])[grid]
    return torch.from_numpy(1.0 - 2.0 * parity)


def signs(numel: int, key: int, number: int) -> Tensor:
    words = random_words(key, number * 2**60, (numel + 31) // 32)
    return 1.0 - 2.0 * ((words[:, None] >> torch.arange(32)) & 1).reshape(-1)[:numel].double()


def defined(x: Tensor, key: int, rounds: int, block: int | None) -> Tensor:
    """The rotation as matrices in double precision."""
    offsets = hadamard_blocks(x.numel(), block).tolist()
    y = x.double()
    for number in range(rounds):
        y = y * signs(x.numel(), key, number)
        parts = [hadamard(b - a) @ y[a:b] / math.sqrt(b - a) for a, b in pairwise(offsets)]
        y = torch.cat([torch.empty(0, dtype=torch.float64), *parts])
    return y


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize(("size", "block"), [(size, None) for size in (0, 1, 7, 64, 100, 256, 1000)] + [(1000, 8)])
def test_it_is_the_matrix_of_the_definition(size: int, block: int | None, rounds: int) -> None:
    x = vector(size)
    expected = defined(x, 11, rounds, block)
    rotated = hadamard_rotate(x, 11, rounds, block=block).double()
    assert float((rotated - expected).norm()) <= 1e-6 * float(x.norm())


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("size", "block"), [(size, None) for size in SIZES] + list(LARGE))
def test_kernel_and_twin_agree(size: int, block: int | None, inverse: bool, num_threads: int) -> None:
    x = vector(size)
    torch.set_num_threads(num_threads)
    rounds = 1 + size % 2
    rotated = hadamard_rotate(x, 5, rounds, inverse=inverse, block=block)
    assert same_bits(rotated, hadamard_rotate_torch(x, 5, rounds, inverse=inverse, block=block))
    assert same_bits(x, vector(size))
    assert hadamard_rotate(x, 5, rounds, inverse=inverse, block=block, out=x) is x
    assert same_bits(rotated, x)


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize(("size", "block"), [(1000, None), (2**18 + 77, None), (300_001, 2**10)])
def test_it_is_undone_and_keeps_inner_products(size: int, block: int | None, rounds: int) -> None:
    x, y = vector(size), vector(size, 1)
    there = [hadamard_rotate(v, 3, rounds, block=block) for v in (x, y)]
    back = hadamard_rotate(there[0], 3, rounds, inverse=True, block=block)
    assert float((back - x).norm()) <= 1e-6 * float(x.norm())
    assert float(there[0].double().norm()) == pytest.approx(float(x.double().norm()), rel=1e-6)
    exact = float(x.double() @ y.double())
    fits_in_cache = float(there[0].double() @ there[1].double())
    assert abs(fits_in_cache - exact) <= 1e-6 * float(x.norm()) * float(y.norm())
    mixed = hadamard_rotate(x + 2 * y, 3, rounds, block=block)
    assert float((mixed - there[0] - 2 * there[1]).norm()) <= 1e-6 * float(mixed.norm())


@pytest.mark.parametrize("size", [16, 256, 2**12, 2**17, 2**18])
def test_one_entry_becomes_equal_entries_exactly(size: int) -> None:
    for place in (0, 5, size - 1):
        spike = torch.zeros(size)
        spike[place] = 3.0
        rotated = hadamard_rotate(spike, 2)
        level = torch.tensor(3.0) * torch.tensor(size**-0.5, dtype=torch.float32)
        assert bool((rotated.abs() == level).all())
        parity = torch.tensor([(i & place).bit_count() & 1 for i in range(size)])
        assert torch.equal(rotated < 0, (parity == 1) ^ bool(signs(size, 2, 0)[place] < 0))


def test_two_rounds_make_a_compressible_vector_look_gaussian() -> None:
    x = 2.0 ** -torch.arange(2**14, dtype=torch.float32).clamp(max=140)
    kurtosis = []
    for rounds in (1, 2):
        y = hadamard_rotate(x, 1, rounds).double()
        y /= y.square().mean().sqrt()
        kurtosis.append(float(y.pow(4).mean()))
    # Of a Gaussian: 3. After one round every entry is 1 +- 1/2 +- 1/4 ... up to its sign: bounded, and flat at best.
    assert kurtosis[0] < 2
    assert kurtosis[1] == pytest.approx(3.0, abs=0.2)


def test_rounds_keys_and_blocks_differ() -> None:
    x = vector(2**13)
    results = [
        hadamard_rotate(x, 1),
        hadamard_rotate(x, 2),
        hadamard_rotate(x, 1, 2),
        hadamard_rotate(x, 1, block=2**12),
    ]
    assert len({result.numpy().tobytes() for result in results}) == 4
    # Blocks are rotated apart, with the signs of their places.
    halves = hadamard_rotate(torch.cat([x[: 2**12], torch.zeros(2**12)]), 1, block=2**12)
    assert torch.equal(halves[: 2**12], results[3][: 2**12])
    assert not halves[2**12 :].any()


def test_blocks_cover_the_vector_in_falling_powers_of_two() -> None:
    for numel in (0, 1, 2, 11, 1000, 70_001):
        for block in (None, 1, 4, 2**14):
            offsets = hadamard_blocks(numel, block)
            sizes = offsets.diff().tolist()
            assert (int(offsets[0]), int(offsets[-1])) == (0, numel)
            if block != 1:
                assert all(size & (size - 1) == 0 for size in sizes)
                assert sizes == sorted(sizes, reverse=True)
                assert all(start % size == 0 for start, size in zip(offsets[:-1].tolist(), sizes, strict=True))
                tail = [size for size in sizes if size < (block or 2**62)]
                assert len(set(tail)) == len(tail)


def test_strided_input_and_what_is_not_finite() -> None:
    x = vector(600)
    assert same_bits(hadamard_rotate(x[::2], 1), hadamard_rotate(x[::2].clone(), 1))
    x[3] = math.inf
    rotated = hadamard_rotate(x, 1, block=256)
    assert not rotated[:256].isfinite().any()
    assert bool(rotated[256:].isfinite().all())


def test_what_cannot_work_is_refused() -> None:
    x = torch.zeros(8)
    for bad in (x.double(), x.view(2, 4)):
        with pytest.raises(ConfigError, match="float32"):
            hadamard_rotate(bad, 1)
    with pytest.raises(ConfigError, match="rounds"):
        hadamard_rotate(x, 1, 3)
    with pytest.raises(ConfigError, match="key"):
        hadamard_rotate(x, 2**64)
    for block in (0, -4, 3):
        with pytest.raises(ConfigError, match="power of two"):
            hadamard_rotate(x, 1, block=block)
    for out in (torch.zeros(7), torch.zeros(16)[::2], x.double()):
        with pytest.raises(ConfigError, match="contiguous"):
            hadamard_rotate(x, 1, out=out)
    with pytest.raises(ConfigError, match="0 or more"):
        hadamard_blocks(-1)
