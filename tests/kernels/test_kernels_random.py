import math

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.dither import quantize_levels, quantize_levels_torch
from thinwire.kernels.philox import (
    philox_blocks_torch,
    random_words,
    random_words_torch,
    uniform,
    uniform_torch,
)
from thinwire.kernels.subset import random_subset, random_subset_torch

SIZES = (0, 1, 7, 63, 64, 65, 4096)
KEYS = (0, 2**64 - 1, 0x0123456789ABCDEF)


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_published_answers(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words_of(counter))
    low, high = words_of(key)
    assert [int(word) for word in philox_blocks_torch((c0, c1, c2, c3), low | high << 32)] == words_of(expected)


def test_the_kernel_gives_the_published_answer() -> None:
    assert random_words(0, 0, 4).tolist() == words_of("6627e8d5 e169c58d bc57ac4c 9b00dbd8")


@pytest.mark.parametrize("key", KEYS)
def test_streams_are_addressable_and_equal_the_twin(key: int) -> None:
    for size in SIZES:
        for start in (0, 1, 2, 3, 1021, 2**34 + 5, 2**62 - 4096):
            assert torch.equal(random_words(key, start, size), random_words_torch(key, start, size))
            assert torch.equal(uniform(key, start, size), uniform_torch(key, start, size))
    assert torch.equal(random_words(key, 0, 5000)[1234:], random_words(key, 1234, 3766))


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniform(5, 0, 100_000).double()
    assert 0 <= float(numbers.min()) < float(numbers.max()) < 1
    counts = torch.histc(numbers, 100, 0, 1)
    # Chi squared with 99 degrees of freedom: 5 standard deviations.
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 99 + 5 * math.sqrt(2 * 99)


@pytest.mark.parametrize("num_levels", [1, 7, 127, 2**24])
def test_levels_kernel_twin_and_formula_agree(num_levels: int) -> None:
    generator = torch.Generator().manual_seed(num_levels)
    for size in (*SIZES, 5000):
        borders = torch.randint(0, size + 1, (6,), generator=generator).sort().values
        offsets = torch.cat([torch.tensor([0]), borders, torch.tensor([size])])
        x = torch.randn(size, generator=generator)
        x[::7] = -0.0
        units = torch.rand(7, generator=generator) * 2 / num_levels
        units[2] = 0
        levels = quantize_levels(x, units, offsets, num_levels, 99)
        assert torch.equal(levels, quantize_levels_torch(x, units, offsets, num_levels, 99))
        unit = units.repeat_interleave(offsets.diff())
        ratio = torch.where(unit > 0, x.abs() / unit, 0)
        rounded_up = uniform(99, 0, size) < ratio - ratio.floor()
        expected = (ratio.floor() + rounded_up).clamp(max=num_levels) * x.sign()
        assert torch.equal(levels, expected.to(torch.int32))


def test_extreme_entries_do_not_harm() -> None:
    x = torch.tensor([float("inf"), -float("inf"), float("nan"), 3e38, -1e-45, 0.0])
    for unit in (1e-45, 1.0, 3e38, float("inf"), float("nan"), -1.0):
        arguments = (x, torch.tensor([unit]), torch.tensor([0, 6]), 3, 1)
        levels = quantize_levels(*arguments)
        assert torch.equal(levels, quantize_levels_torch(*arguments))
        assert int(levels.abs().max()) <= 3


def test_levels_are_unbiased() -> None:
    size = 40_000
    for value in (0.1, -0.5, 2.75):
        x = torch.full((size,), value)
        mean = quantize_levels(x, torch.ones(1), torch.tensor([0, size]), 4, 11).double().mean()
        assert abs(float(mean) - value) < 5 * 0.5 / math.sqrt(size)


@pytest.mark.parametrize(
    ("numel", "count"),
    [(0, 0), (1, 1), (7, 3), (64, 32), (64, 33), (65, 64), (4096, 1000), (4096, 4000), (2**40, 4096), (2**48, 9)],
)
def test_subsets_equal_the_twin_and_the_definition(numel: int, count: int) -> None:
    for offset in (0, 1, 6, 2**33 + 3):
        subset = random_subset(17, numel, count, offset)
        assert torch.equal(subset, random_subset_torch(17, numel, count, offset))
        assert subset.tolist() == sorted(set(subset.tolist()))
        assert subset.numel() == count
        drawn: list[int] = []
        wanted = min(count, numel - count) if 2 * count > numel else count
        words = random_words(17, offset, 8 * wanted + 400).tolist()
        for low, high in zip(words[0::2], words[1::2], strict=True):
            if len(drawn) < wanted and (low | high << 32) % numel not in drawn:
                drawn.append((low | high << 32) % numel)
        expected = set(range(numel)) - set(drawn) if 2 * count > numel else set(drawn)
        assert set(subset.tolist()) == expected


def test_every_index_is_drawn_equally_often() -> None:
    counts = torch.zeros(10)
    for key in range(2000):
        counts[random_subset(key, 10, 3)] += 1
    assert float((counts - 600).abs().max()) < 5 * math.sqrt(2000 * 0.3 * 0.7)


def test_refuses_numbers_out_of_range() -> None:
    for key, start, count in ((-1, 0, 1), (2**64, 0, 1), (0, -1, 1), (0, 0, -1), (0, 2**62, 1)):
        with pytest.raises(ConfigError):
            random_words(key, start, count)
    for numel, count in ((3, 4), (3, -1), (2**49, 1)):
        with pytest.raises(ConfigError):
            random_subset(0, numel, count)
    with pytest.raises(ConfigError, match="levels"):
        quantize_levels(torch.zeros(1), torch.ones(1), torch.tensor([0, 1]), 0, 0)
