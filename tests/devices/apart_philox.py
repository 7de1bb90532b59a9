"""Triton's generator, in its interpreter, against the loops on the CPU and the twins in torch."""

import pytest
import torch
import triton
import triton.language as tl
from bits import LONG, PLACE, on_device

from thinwire.kernels.jit.launches import launch
from thinwire.kernels.random import philox_triton
from thinwire.kernels.random.philox import philox_blocks_torch, random_words, random_words_torch, uniform, uniform_torch
from thinwire.kernels.random.philox_triton import halves_in_order, key_argument, philox

kernels = on_device(philox_triton)

KEYS = [0, 1, 16, 2**31 - 1, 2**31 + 5, 2**32, 0x0123456789ABCDEF, 2**63, 2**64 - 1]
STARTS = [0, 1, 2, 3, 1021, 2**34 - 3, 2**62 - 5000]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("start", STARTS)
def test_numbers_by_address(key: int, start: int) -> None:
    for count in (0, 1, 63, 64, 65, 1021, 4097):
        words = kernels.random_words(key, start, count, "cpu")
        assert words.dtype == torch.int64
        assert torch.equal(words, random_words(key, start, count))
        assert torch.equal(words, random_words_torch(key, start, count))
        numbers = kernels.uniform(key, start, count, "cpu")
        assert numbers.dtype == torch.float32
        assert torch.equal(numbers, uniform(key, start, count))
        assert torch.equal(numbers, uniform_torch(key, start, count))


@pytest.mark.parametrize("count", LONG)
def test_many_numbers(count: int) -> None:
    assert torch.equal(
        kernels.random_words(KEYS[-1], 2**34 - 3, count, "cpu"), random_words(KEYS[-1], 2**34 - 3, count)
    )
    assert torch.equal(kernels.uniform(KEYS[-1], 2**34 - 3, count, "cpu"), uniform(KEYS[-1], 2**34 - 3, count))


@pytest.mark.parametrize("key", KEYS)
def test_stages_are_other_streams(key: int) -> None:
    first, found = 2**33 - 7, torch.empty((3, 4, 64), dtype=torch.int64, device=PLACE)
    launch(_three_stages, 1, [found, key_argument(key), first], {})
    found = found.cpu()
    blocks = torch.arange(first, first + 64)
    zeros = torch.zeros_like(blocks)
    for stage in range(3):
        counter = (blocks & 0xFFFFFFFF, blocks >> 32, zeros, zeros + stage)
        assert torch.equal(found[stage], torch.stack(philox_blocks_torch(counter, key)))


@pytest.mark.parametrize("key", KEYS)
def test_halves_come_lower_first(key: int) -> None:
    first, found = 5, torch.empty(512, dtype=torch.int64, device=PLACE)
    launch(_halves, 1, [found, key_argument(key), first], {})
    found = found.cpu()
    words = random_words(key, 4 * first, 256)
    assert torch.equal(found[0::2], words & 0xFFFF)
    assert torch.equal(found[1::2], words >> 16)


@triton.jit(do_not_specialize=["key"])
def _three_stages(out: tl.tensor, key: tl.tensor, first: tl.tensor) -> None:
    blocks = first + tl.arange(0, 64)
    for stage in tl.static_range(3):
        w0, w1, w2, w3 = philox(blocks, stage, key)
        row = out + stage * 256 + tl.arange(0, 64)
        tl.store(row, w0.to(tl.int64))
        tl.store(row + 64, w1.to(tl.int64))
        tl.store(row + 128, w2.to(tl.int64))
        tl.store(row + 192, w3.to(tl.int64))


@triton.jit(do_not_specialize=["key"])
def _halves(out: tl.tensor, key: tl.tensor, first: tl.tensor) -> None:
    tl.store(out + tl.arange(0, 512), halves_in_order(tl.to_tensor(first).to(tl.int64), 0, key, 512).to(tl.int64))
