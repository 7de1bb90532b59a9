"""What is rounded to bf16 at random is one of the two neighbours, and itself on average."""

import math

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.quantize.bf16 import round_to_bf16, round_to_bf16_torch

SIZES = [0, 1, 7, 8, 9, 63, 64, 65, 2047, 2048, 2049, 4097, 600_001]
SPECIAL = [0.0, -0.0, math.inf, -math.inf, 3.4e38, -3.4e38, 3.3895313892515355e38, 1e-45, -1e-42, 1.0, 2.0**-126]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


def numbers(numel: int) -> Tensor:
    """Of all magnitudes."""
    generator = torch.Generator().manual_seed(numel)
    x = torch.randn(numel, generator=generator) * torch.exp(15 * torch.randn(numel, generator=generator))
    if numel > 60:
        x[1 : 1 + len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float32)
        x.view(torch.int32)[40:43] = torch.tensor([0x7F800001, -1, 0x7FC00000], dtype=torch.int32)  # kinds of NaN
    return x


def rounded(x: Tensor, key: int) -> Tensor:
    return round_to_bf16(x, key, torch.empty(x.shape, dtype=torch.bfloat16))


@pytest.mark.parametrize("numel", SIZES)
def test_the_kernel_has_the_bits_of_its_twin(threads: int, numel: int) -> None:
    x = numbers(numel)
    for key in (0, 2**64 - 1):
        out = round_to_bf16_torch(x, key, torch.empty(numel, dtype=torch.bfloat16))
        assert torch.equal(rounded(x, key).view(torch.int16), out.view(torch.int16))


def test_every_number_goes_to_one_of_its_neighbours_and_exact_ones_stay() -> None:
    x = numbers(600_001)
    found = rounded(x, 3)
    assert torch.equal(found.isnan(), x.isnan())
    usual = ~x.isnan()
    bits = x.view(torch.int32)
    below = (bits & ~0xFFFF).view(torch.float32)  # towards zero
    above = ((bits & ~0xFFFF) + (1 << 16)).view(torch.float32)
    values = found.float()
    is_below, is_above = values == below, (values == above) & (bits & 0xFFFF != 0) & above.isfinite()
    assert bool((is_below | is_above)[usual].all())
    assert torch.equal(values.isinf(), x.isinf())
    exact = numbers(5000).bfloat16()
    assert torch.equal(
        rounded(exact.float(), 4).view(torch.int16)[~exact.isnan()], exact.view(torch.int16)[~exact.isnan()]
    )


def test_the_mean_is_the_number() -> None:
    """Each neighbour is taken as often as the number lies near to it: a binomial count, within 5.5 deviations."""
    shares = torch.arange(0, 1 << 16, 257)
    x = ((0x3F80 << 16) + shares).to(torch.int32).view(torch.float32)
    draws = 40_000 // 256
    counts = torch.zeros(len(x), dtype=torch.float64)
    for key in range(draws):
        counts += rounded(x.repeat(256), key).view(256, -1).ne(1.0).sum(0)
    total = 256 * draws
    expected = shares.double() / 2**16
    deviation = (total * expected * (1 - expected)).sqrt()
    assert bool(((counts - total * expected).abs() <= 5.5 * deviation).all())


def test_entries_are_rounded_independently() -> None:
    """Neighbouring entries share a word of the generator: their draws agree half of the time."""
    half = torch.full((100_000,), 1.0 + 2.0**-8, dtype=torch.float32)  # in the middle
    up = rounded(half, 9) != 1.0
    for distance in (1, 2, 8, 2048):
        agree = int((up[distance:] == up[:-distance]).sum())
        number = len(up) - distance
        assert abs(agree - number / 2) < 5 * math.sqrt(number) / 2


def test_other_tensors_are_refused() -> None:
    x, out = torch.zeros(4, dtype=torch.float32), torch.zeros(4, dtype=torch.bfloat16)
    for bad in (x.double(), x.view(2, 2), torch.zeros(8, dtype=torch.float32)[::2]):
        with pytest.raises(ConfigError, match="float32"):
            round_to_bf16(bad, 0, out)
    for wrong in (torch.zeros(4, dtype=torch.float16), torch.zeros(5, dtype=torch.bfloat16)):
        with pytest.raises(ConfigError, match="bfloat16"):
            round_to_bf16(x, 0, wrong)
    with pytest.raises(ConfigError, match="key"):
        round_to_bf16(x, -1, out)
