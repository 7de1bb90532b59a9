import math

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.random.philox import (
    philox_blocks_torch,
    random_words,
    random_words_torch,
    uniform,
    uniform_torch,
)
from thinwire.kernels.sample.subset import random_subset, random_subset_torch

SIZES = (0, 1, 7, 63, 64, 65, 4096)
KEYS = (0, 2**64 - 1, 0x0123456789ABCDEF)


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "5f6fb709 0d893f64 4f121f81 4f730a48"),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "5207ddc2 45165e59 4d8ee751 8c52f662",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "4dfccaba 190a87f0 c47362ba b6b5242a",
        ),
    ],
)
def test_published_answers_for_seven_rounds(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words_of(counter))
    low, high = words_of(key)
    assert [int(word) for word in philox_blocks_torch((c0, c1, c2, c3), low | high << 32)] == words_of(expected)


def test_the_kernel_gives_the_published_answer() -> None:
    assert random_words(0, 0, 4).tolist() == words_of("5f6fb709 0d893f64 4f121f81 4f730a48")


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
