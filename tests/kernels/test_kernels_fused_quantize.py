"""Error feedback and compression in one pass equals the steps apart, the twins and the definitions, bit for bit."""

import math

import pytest
import torch
from torch import Tensor

from thinwire.compressors import QSGD, Sign
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.quantize.dither import (
    Norm,
    accumulate_quantize,
    accumulate_quantize_torch,
    dither_torch,
    quantize,
    quantize_torch,
)
from thinwire.kernels.quantize.signs import (
    accumulate_signs,
    accumulate_signs_torch,
    mean_signs,
    mean_signs_torch,
    sign_bits,
)
from thinwire.kernels.random.philox import philox_blocks_torch
from thinwire.kernels.reduce.segment_sums import segment_max, segment_sums
from thinwire.layout import Segments
from thinwire.payloads import Levels, Signs
from thinwire.random import Key

NORMS: tuple[Norm, Norm] = ("l2", "max")
SIZES = (0, 1, 7, 63, 64, 65, 1025, 4096, 70_001)


def vector(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) ** 3


def cuts(size: int) -> list[Segments]:
    third = size // 3
    listed = [third, 0, min(1, size - third), 0]
    return [
        Segments.whole(size),
        Segments.uniform(size, 512),
        Segments.uniform(size, 37),
        Segments.uniform(size, 1500),
        Segments.of_sizes([*listed, size - sum(listed), 0]),
    ]


def same(*pairs: tuple[Tensor, Tensor]) -> bool:
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes() for a, b in pairs
    )


@pytest.mark.parametrize(
    ("size", "num_levels"),
    [*((size, s) for size in SIZES[:-1] for s in (1, 3, 7, 9, 15, 127, 300, 32767)), (SIZES[-1], 7), (SIZES[-1], 10)],
)
def test_levels_twins_and_definition_agree(size: int, num_levels: int) -> None:
    x, residual = vector(size), vector(size, 1)
    x[::5] = 0.0
    width = (2 * num_levels).bit_length()
    for number, segments in enumerate(cuts(size)):
        offsets = segments.offsets()
        norm = NORMS[number % 2]
        shrink = vector(segments.count, 3).abs() if number == 1 else None
        codes, scales = quantize(x, offsets, num_levels, norm, 5, shrink)
        assert same(*zip((codes, scales), quantize_torch(x, offsets, num_levels, norm, 5, shrink), strict=True))
        norms = segment_max(x, offsets) if norm == "max" else segment_sums(x, offsets, 2).sqrt().float()
        assert same((scales, norms if shrink is None else norms * shrink))
        units = (norms / num_levels).repeat_interleave(offsets.diff())
        ratio = torch.where(units > 0, x.abs() * (1 / units), 0).clamp(max=num_levels).double()
        high, low = (part.double() for part in dither_torch(5, size))
        level = (
            torch.where((high * 2**16 + low) / 2**32 < ratio - ratio.floor(), ratio.ceil(), ratio.floor()) * x.sign()
        )
        assert torch.equal(unpack(codes, size, width) - num_levels, level.int())
        out, twin = torch.empty(size), torch.empty(size)
        mine = accumulate_quantize(x, residual, 0.9, out, offsets, num_levels, norm, 5, shrink)
        other = accumulate_quantize_torch(x, residual, 0.9, twin, offsets, num_levels, norm, 5, shrink)
        assert same(*zip(mine, other, strict=True), (out, twin))


@pytest.mark.parametrize("size", SIZES)
def test_signs_twins_and_definition_agree(size: int) -> None:
    x, residual = vector(size), vector(size, 1)
    x[::5], x[1::5] = 0.0, -0.0
    for segments in cuts(size):
        offsets = segments.offsets()
        bits, means = mean_signs(x, offsets)
        assert same((bits, sign_bits(x)), *zip((bits, means), mean_signs_torch(x, offsets), strict=True))
        assert same((means, (segment_sums(x, offsets, 1) / offsets.diff().clamp(min=1)).float()))
        out, twin = torch.empty(size), torch.empty(size)
        mine = accumulate_signs(x, residual, 0.9, out, offsets)
        assert same(*zip(mine, accumulate_signs_torch(x, residual, 0.9, twin, offsets), strict=True), (out, twin))


def _bytes_of(payload: Levels | Signs) -> Tensor:
    return payload.codes if isinstance(payload, Levels) else payload.bits


COMPRESSORS = [
    Sign(),
    QSGD(levels=1),
    QSGD(levels=3, norm="max"),
    QSGD(levels=7, scaled=True),
    QSGD(levels=10, scaled=True),
    QSGD(levels=127, norm="max"),
    QSGD(levels=32767),
]


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
@pytest.mark.parametrize("decay", [1.0, 0.95])
def test_one_pass_equals_the_steps_apart(compressor: QSGD | Sign, decay: float) -> None:
    for size in SIZES:
        for segments in cuts(size):
            x, residual = vector(size), vector(size, 1)
            expected = (residual if decay == 1.0 else residual * decay) + x
            payload = compressor.compress(expected, Key(3), segments)
            payload.add_to(expected, -1.0)
            for target in ("x", "residual", "another"):
                given, kept = x.clone(), residual.clone()
                out = {"x": given, "residual": kept, "another": torch.full((size,), math.nan)}[target]
                fused = compressor.compress_residual(given, kept, decay, out, Key(3), segments)
                parts = (_bytes_of(fused), _bytes_of(payload))
                assert same(parts, (fused.scales, payload.scales), (out, expected))
                assert target == "x" or same((given, x))
                assert target == "residual" or same((kept, residual))


def test_no_result_depends_on_the_number_of_threads() -> None:
    size = 1_100_003
    x, residual = vector(size), vector(size, 1)
    listed = [70_000, 0, 1, 500_000, 17]
    for segments in (*cuts(size)[:4], Segments.of_sizes([*listed, size - sum(listed)])):
        for compressor in (Sign(), QSGD(levels=7), QSGD(levels=5, norm="max")):
            results = []
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                out = torch.empty(size)
                payload = compressor.compress_residual(x, residual, 0.9, out, Key(1), segments)
                plain = compressor.compress(x, Key(1), segments)
                results.append((out, payload.to_dense(), payload.scales, plain.to_dense(), plain.scales))
            assert all(same(*zip(results[0], result, strict=True)) for result in results[1:])


def test_the_random_numbers_lie_where_they_are_said_to() -> None:
    high, low = dither_torch(77, 5000)
    for entry in (0, 1, 2, 3, 4, 511, 512, 515, 1023, 1024, 4999):
        group, place = divmod(entry, 1024)
        half, within = divmod(place, 512)
        block, sixteenth = divmod(within, 4)
        word = (1, 0)[sixteenth // 2] + 2 * half
        for stage, numbers in enumerate((high, low)):
            zero = torch.tensor([0])
            words = philox_blocks_torch((zero + 128 * group + block, zero, zero, zero + stage), 77)
            assert int(numbers[entry]) == (int(words[word]) >> 16 * (sixteenth % 2)) & 0xFFFF


def test_high_and_low_bits_are_uniform() -> None:
    for numbers in dither_torch(5, 100_000):
        assert 0 <= float(numbers.min()) < float(numbers.max()) < 2**16
        counts = torch.histc(numbers, 100, 0, 2**16)
        # Chi squared with 99 degrees of freedom: 5 standard deviations.
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 99 + 5 * math.sqrt(2 * 99)


def test_ratios_that_the_high_bits_do_not_decide() -> None:
    high, low = dither_torch(9, 4096)
    chosen = int(low.argmax())
    # One entry at exactly its random number, to 24 bits: just below or above it counts.
    for step, up in ((-1, 0), (1, 1)):
        x = torch.zeros(4096)
        number = (float(high[chosen]) * 2**16 + float(low[chosen])) / 2**32
        x[chosen], x[4095 - chosen] = number + step * 2.0**-23, 1.0
        codes, _ = quantize(x, torch.tensor([0, 4096]), 1, "max", 9)
        assert int(unpack(codes, 4096, 2)[chosen]) - 1 == up
        assert same((codes, quantize_torch(x, torch.tensor([0, 4096]), 1, "max", 9)[0]))


def test_levels_are_unbiased() -> None:
    size = 40_000
    for value in (0.1, -0.5, 2.75, 2.0**-15):
        x = torch.full((size,), value)
        x[-1] = 4.0
        codes, _ = quantize(x, torch.tensor([0, size]), 4, "max", 11)
        levels = (unpack(codes, size, 4) - 4).double()[:-1]
        fraction = abs(value) % 1
        deviation = math.sqrt(fraction * (1 - fraction) / size)
        # Six standard deviations: a false alarm in 10**8; the half entry is for the smallest, near a Poisson law.
        assert abs(float(levels.mean()) - value) < 6 * deviation + 0.5 / size


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 2.0**-100, 1e-20, 1e20, 2.0**100, 1e38])
@pytest.mark.parametrize("norm", NORMS)
def test_tiny_and_huge_magnitudes(magnitude: float, norm: Norm) -> None:
    x = (vector(3000).clamp(-2, 2) * magnitude).contiguous()
    offsets = torch.tensor([0, 700, 701, 3000])
    for num_levels in (1, 127):
        mine = quantize(x, offsets, num_levels, norm, 4)
        assert same(*zip(mine, quantize_torch(x, offsets, num_levels, norm, 4), strict=True))
        out, twin = torch.empty(3000), torch.empty(3000)
        mine = accumulate_quantize(x, x, 0.5, out, offsets, num_levels, norm, 4)
        assert same(*zip(mine, accumulate_quantize_torch(x, x, 0.5, twin, offsets, num_levels, norm, 4), strict=True))
        assert same((out, twin))


def test_zeros_stay_zeros() -> None:
    zeros, offsets = torch.zeros(3000), torch.tensor([0, 1024, 1024, 3000])
    out = torch.ones(3000)
    codes, scales = accumulate_quantize(zeros, zeros, 1.0, out, offsets, 7, "l2", 1)
    assert not out.any()
    assert not scales.any()
    assert bool((unpack(codes, 3000, 4) == 7).all())
    bits, scales = accumulate_signs(zeros, zeros, 1.0, out, offsets)
    assert not out.any()
    assert not scales.any()
    assert not bits.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_in_its_segment(bad: float) -> None:
    x, offsets = vector(3000), torch.tensor([0, 1400, 1600, 3000])
    x[1500] = bad
    out = torch.empty(3000)
    inside = torch.arange(3000).sub(1500).abs() <= 100
    for norm in NORMS:
        codes, scales = quantize(x, offsets, 7, norm, 4)
        assert same(*zip((codes, scales), quantize_torch(x, offsets, 7, norm, 4), strict=True))
        assert scales.isfinite().tolist() == [True, False, True]
        levels = unpack(codes, 3000, 4) - 7
        assert int(levels.abs().max()) <= 7
        assert not math.isnan(bad) or not levels[1400:1600].any()
        accumulate_quantize(x, x, 1.0, out, offsets, 7, norm, 4)
        assert bool(out[~inside].isfinite().all())
        assert not math.isfinite(float(out[1500]))
    accumulate_signs(x, x, 1.0, out, offsets)
    assert bool(out[~inside].isfinite().all())


def test_refuses_what_does_not_fit() -> None:
    x, whole = torch.zeros(9), torch.tensor([0, 9])
    for num_levels in (0, 32768):
        with pytest.raises(ConfigError, match="levels"):
            quantize(x, whole, num_levels, "l2", 0)
    with pytest.raises(ConfigError, match="norm"):
        quantize(x, whole, 1, "l1", 0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="float32"):
        quantize(x.double(), whole, 1, "l2", 0)
    with pytest.raises(ConfigError, match="factor"):
        quantize(x, whole, 1, "l2", 0, torch.ones(2))
    with pytest.raises(ConfigError, match="key"):
        quantize(x, whole, 1, "l2", -1)
    with pytest.raises(ConfigError, match="ascend"):
        mean_signs(x, torch.tensor([0, 8]))
    for wrong in (torch.zeros(8), torch.zeros(9).double()):
        with pytest.raises(ConfigError, match="residual"):
            accumulate_signs(x, wrong, 1.0, x, whole)
        with pytest.raises(ConfigError, match="result"):
            accumulate_quantize(x, x, 1.0, wrong, whole, 1, "l2", 0)
    with pytest.raises(ConfigError, match="contiguous"):
        accumulate_signs(x, x, 1.0, torch.zeros(18)[::2], whole)


@pytest.mark.parametrize("norm", ["l2", "max"])
def test_a_norm_beyond_the_largest_number_is_that_number_and_one_of_an_infinite_entry_is_not(norm: Norm) -> None:
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([3e38, -3e38, 1e38, 0.0, largest, 1.0, torch.inf, 1.0, 2.0, -1.0])
    offsets = torch.tensor([0, 4, 6, 8, 10])
    codes, scales = quantize(x, offsets, 3, norm, 5)
    twin_codes, twin_scales = quantize_torch(x, offsets, 3, norm, 5)
    assert torch.equal(codes, twin_codes)
    assert torch.equal(scales, twin_scales)
    limit = largest * (1 - 2.0**-22)
    assert scales[0].item() == (pytest.approx(3e38) if norm == "max" else pytest.approx(limit, rel=1e-7))
    assert scales[1].item() == pytest.approx(limit, rel=1e-7)
    assert scales[2].item() == torch.inf
    assert float(scales[3]) < 3.0
