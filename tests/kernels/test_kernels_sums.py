import math

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.quantize.levels_add import add_levels, add_levels_torch
from thinwire.kernels.quantize.signs import sign_bits, sign_bits_torch
from thinwire.kernels.quantize.signs_add import add_signs, add_signs_torch
from thinwire.kernels.reduce.segment_sums import segment_max, segment_max_torch, segment_sums, segment_sums_torch
from thinwire.layout import Segments

SIZES = (0, 1, 7, 63, 64, 65, 4096, 100_000)
FACTORS = (1.0, -1.0, 1 / 3)


def cuts(size: int) -> list[Tensor]:
    third = size // 3
    listed = [third, 0, min(1, size - third), 0]
    return [
        Segments.whole(size).offsets(),
        Segments.uniform(size, 5).offsets(),
        Segments.uniform(size, 1024).offsets(),
        Segments.uniform(size, 1500).offsets(),
        Segments.of_sizes([*listed, size - sum(listed), 0]).offsets(),
    ]


def vector(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) ** 3


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_sums_and_maxima_agree_with_their_twins_and_with_exact_sums(size: int) -> None:
    x = vector(size)
    for offsets in cuts(size):
        parts = [x[a:b].double() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
        for power in (1, 2):
            sums = segment_sums(x, offsets, power)
            assert same_bits(sums, segment_sums_torch(x, offsets, power))
            exact = [math.fsum((part.abs() ** power).tolist()) for part in parts]
            assert sums.tolist() == pytest.approx(exact, rel=1e-14)
        largest = segment_max(x, offsets)
        assert same_bits(largest, segment_max_torch(x, offsets))
        assert largest.tolist() == [float(part.abs().max()) if len(part) else 0.0 for part in parts]


@pytest.mark.parametrize("size", [1023, 1024, 1025, 2048, 1024 * 1024, 1024 * 1024 + 1, 2_100_000])
def test_sums_of_several_storeys(size: int) -> None:
    x = vector(size)
    for offsets in (torch.tensor([0, size]), torch.tensor([0, 3, size])):
        assert same_bits(segment_sums(x, offsets, 1), segment_sums_torch(x, offsets, 1))
    assert segment_sums(torch.ones(size), torch.tensor([0, size]), 2).tolist() == [size]


def test_the_order_of_a_sum_is_as_stated() -> None:
    x = torch.tensor([1.0, 2.0**-60, 2.0**-60, 2.0**-60])
    # (1 + t) + (t + t): the first addition loses t, then 2 t is lost too.
    assert segment_sums(x, torch.tensor([0, 4]), 1).tolist() == [1.0]
    y = torch.tensor([2.0**-53, 2.0**-53, 2.0**-53, 2.0**-53, 1.0, 0.0, 0.0, 0.0])
    assert segment_sums(y, torch.tensor([0, 8]), 1).tolist() == [1.0 + 2.0**-52]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_segment(bad: float) -> None:
    x = torch.ones(3000)
    x[1500] = bad
    offsets = torch.tensor([0, 1400, 1600, 3000])
    for result in (segment_sums(x, offsets, 1), segment_sums(x, offsets, 2), segment_max(x, offsets)):
        assert result.isfinite().tolist() == [True, False, True]
        assert bool(result[1].isnan()) == math.isnan(bad)
    assert same_bits(segment_max(x, offsets), segment_max_torch(x, offsets))


@pytest.mark.parametrize("size", SIZES)
def test_sign_bits_and_their_twin(size: int) -> None:
    x = vector(size)
    x[::5] = 0.0
    x[1::5] = -0.0
    x[2::7] = math.nan
    bits = sign_bits(x)
    assert torch.equal(bits, sign_bits_torch(x))
    assert torch.equal(bits, pack(x < 0, 1))
    if size > 1:
        assert torch.equal(sign_bits(x[::2]), pack(x[::2] < 0, 1))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", SIZES)
def test_added_signs_round_the_product_then_the_sum(size: int, factor: float) -> None:
    bits, start = sign_bits(vector(size)), vector(size, 1)
    for offsets in cuts(size):
        scales = vector(len(offsets) - 1, 2).abs()
        spread = scales.repeat_interleave(offsets.diff())
        expected = start + torch.where(vector(size) < 0, -spread, spread) * factor
        out, twin = start.clone(), start.clone()
        add_signs(bits, scales, offsets, out, factor)
        add_signs_torch(bits, scales, offsets, twin, factor)
        assert same_bits(out, expected)
        assert same_bits(twin, expected)


@pytest.mark.parametrize("num_levels", [1, 2, 7, 15, 100, 127, 1000, 32767])
@pytest.mark.parametrize("size", SIZES)
def test_added_levels_round_the_product_then_the_sum(size: int, num_levels: int) -> None:
    start, width = vector(size, 1), (2 * num_levels).bit_length()
    generator = torch.Generator().manual_seed(num_levels)
    levels = torch.randint(-num_levels, num_levels + 1, (size,), generator=generator)
    codes = pack(levels + num_levels, width)
    for offsets in cuts(size)[::2]:
        units = vector(len(offsets) - 1, 2).abs()
        for factor in FACTORS:
            expected = start + units.repeat_interleave(offsets.diff()) * levels * factor
            out, twin = start.clone(), start.clone()
            add_levels(codes, width, num_levels, units, offsets, out, factor)
            add_levels_torch(codes, width, num_levels, units, offsets, twin, factor)
            assert same_bits(out, expected)
            assert same_bits(twin, expected)


@pytest.mark.parametrize("width", range(1, 32))
def test_every_width_is_added(width: int) -> None:
    codes = pack(torch.randint(0, 2**width, (3001,), generator=torch.Generator().manual_seed(width)), width)
    offsets, units = torch.tensor([0, 1000, 3001]), torch.tensor([0.3, 1e-9])
    out, twin = torch.ones(3001), torch.ones(3001)
    add_levels(codes, width, 2 ** (width - 1) - 1, units, offsets, out, 0.1)
    add_levels_torch(codes, width, 2 ** (width - 1) - 1, units, offsets, twin, 0.1)
    assert same_bits(out, twin)


def test_what_does_not_fit_is_refused_before_memory_is_touched() -> None:
    byte, one, whole = torch.zeros(1, dtype=torch.uint8), torch.ones(1), torch.tensor([0, 9])
    out = torch.zeros(9)
    with pytest.raises(ConfigError, match="bytes of uint8"):
        add_signs(byte, one, whole, out)
    with pytest.raises(ConfigError, match="codes of 2 bits"):
        add_levels(byte, 2, 1, one, whole, out)
    with pytest.raises(ConfigError, match="1 to 31"):
        add_levels(byte, 32, 1, one, whole, out)
    with pytest.raises(ConfigError, match="as many float32"):
        add_signs(torch.zeros(2, dtype=torch.uint8), torch.ones(2), whole, out)
    with pytest.raises(ConfigError, match="contiguous"):
        add_signs(torch.zeros(2, dtype=torch.uint8), one, whole, torch.zeros(18)[::2])
    with pytest.raises(ConfigError, match="ascend"):
        add_signs(torch.zeros(2, dtype=torch.uint8), torch.ones(2), torch.tensor([0, 10, 9]), out)
    with pytest.raises(ConfigError, match="ascend"):
        segment_sums(out, torch.tensor([0, 8]), 1)
    with pytest.raises(ConfigError, match="power"):
        segment_sums(out, whole, 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="float32"):
        segment_max(out.double(), whole)
    with pytest.raises(ConfigError, match="float32"):
        sign_bits(out.double())
