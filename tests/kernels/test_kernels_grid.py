"""Rounding to given grids, levels and powers; extents and sides of segments: twins, threads, independent formulas."""

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.quantize.dither import dither_torch, quantize
from thinwire.kernels.quantize.grid import round_to_grid, round_to_grid_torch, round_to_levels, round_to_levels_torch
from thinwire.kernels.quantize.powers import round_to_powers, round_to_powers_torch
from thinwire.kernels.reduce.extents import (
    segment_extents,
    segment_extents_torch,
    segment_sides,
    segment_sides_torch,
)
from thinwire.kernels.reduce.segment_sums import segment_max, segment_sums
from thinwire.layout import Segments

SIZES = (0, 1, 7, 63, 64, 65, 1025, 4096)


def vector(size: int) -> Tensor:
    x = torch.randn(size, generator=torch.Generator().manual_seed(size)) ** 3
    x[::5], x[1::7] = 0.0, -0.0
    return x


def cuts(size: int) -> list[Segments]:
    third = size // 3
    return [
        Segments.whole(size),
        Segments.uniform(size, 37),
        Segments.uniform(size, 1500),
        Segments.of_sizes([0, third, 0, size - third, 0]),
    ]


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_every_kernel_equals_its_twin(size: int) -> None:
    x = vector(size)
    for segments in cuts(size):
        offsets = segments.offsets()
        lows, highs = segment_extents(x, offsets)
        assert all(same(*pair) for pair in zip((lows, highs), segment_extents_torch(x, offsets), strict=True))
        sides = segment_sides(x, offsets)
        assert all(same(*pair) for pair in zip(sides, segment_sides_torch(x, offsets), strict=True))
        largest = torch.maximum(-lows, highs)
        for factor in (1.0, 2.0**-120, 2.0**110) if segments.length == 37 else (1.0,):
            y, low, scale = x * factor, lows * factor, largest * factor
            for num_codes in (2, 3, 4, 16, 17, 300, 65536):
                steps = scale * 1.3 / num_codes
                mine = round_to_grid(y, offsets, low, steps, num_codes, 5)
                assert same(mine, round_to_grid_torch(y, offsets, low, steps, num_codes, 5))
            for num_levels in (1, 7, 127, 300):
                mine = round_to_levels(y, offsets, scale * 0.3 / num_levels, num_levels, 5)
                assert same(mine, round_to_levels_torch(y, offsets, scale * 0.3 / num_levels, num_levels, 5))
            for num_levels in (1, 2, 7, 63, 127):
                mine = round_to_powers(y, offsets, scale, num_levels, 5)
                assert same(mine, round_to_powers_torch(y, offsets, scale, num_levels, 5))


def test_no_result_depends_on_the_number_of_threads() -> None:
    x = vector((1 << 21) + 5)
    for segments in (Segments.whole(x.numel()), Segments.uniform(x.numel(), 1500), cuts(x.numel())[3]):
        offsets = segments.offsets()
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            lows, highs = segment_extents(x, offsets)
            found = [lows, highs, *segment_sides(x, offsets)]
            found.append(round_to_grid(x, offsets, lows, (highs - lows) / 6, 7, 5))
            found.append(round_to_levels(x, offsets, highs, 1, 5))
            found.append(round_to_powers(x, offsets, torch.maximum(-lows, highs), 9, 5))
            results.append(found)
        for other in results[1:]:
            assert all(same(*pair) for pair in zip(results[0], other, strict=True))
        above, below, num_below = results[0][2:5]
        assert same(above, segment_sums(x.clamp(min=0), offsets, 1))
        assert same(below, 0.0 - segment_sums(x.clamp(max=0), offsets, 1))
        assert torch.equal(
            num_below, torch.tensor([int((part < 0).sum()) for part in x.split(offsets.diff().tolist())])
        )


def test_codes_are_those_of_the_definition() -> None:
    x = vector(4096)
    offsets = torch.tensor([0, 1000, 4096])
    lows, highs = segment_extents(x, offsets)
    assert lows.tolist() == [float(x[:1000].min()), float(x[1000:].min())]
    assert highs.tolist() == [float(x[:1000].max()), float(x[1000:].max())]
    high, low = (part.double() for part in dither_torch(5, 4096))
    drawn = (high * 2**16 + low) / 2**32
    sizes = offsets.diff()
    steps = (highs - lows) / 12
    ratio = ((x - lows.repeat_interleave(sizes)) * (1 / steps).repeat_interleave(sizes)).clamp(max=12).double()
    expected = ratio.floor() + (drawn < ratio - ratio.floor())
    assert torch.equal(unpack(round_to_grid(x, offsets, lows, steps, 13, 5), 4096, 4), expected.int())
    scales = torch.tensor([3.0, 0.7])
    share = (x.abs() * (1 / scales).repeat_interleave(sizes)).clamp(max=1).double()
    points = torch.cat([torch.zeros(1), 2.0 ** torch.arange(-5.0, 1.0)]).double()
    upper = torch.searchsorted(points, share).clamp(min=1)
    up = drawn < (share - points[upper - 1]) / (points[upper] - points[upper - 1])
    place = torch.where(up, upper, upper - 1)  # 0 is zero, 1 the least power, 6 the scale
    code = torch.where(place == 0, 0, 7 - place + torch.where(x < 0, 6, 0))
    assert torch.equal(unpack(round_to_powers(x, offsets, scales, 6, 5), 4096, 4), code.int())


def test_levels_with_the_largest_as_unit_are_those_of_quantize() -> None:
    x = vector(4096)
    offsets = Segments.uniform(4096, 300).offsets()
    codes, scales = quantize(x, offsets, 1, "max", 5)
    assert same(round_to_levels(x, offsets, scales, 1, 5), codes)
    assert same(scales, segment_max(x, offsets))


def test_numbers_out_of_range_are_refused() -> None:
    x, offsets, one = torch.ones(4), torch.tensor([0, 4]), torch.ones(1)
    with pytest.raises(ConfigError, match="2 to 65536"):
        round_to_grid(x, offsets, one, one, 1, 0)
    with pytest.raises(ConfigError, match="1 to 32767"):
        round_to_levels(x, offsets, one, 0, 0)
    with pytest.raises(ConfigError, match="1 to 127"):
        round_to_powers(x, offsets, one, 128, 0)
    with pytest.raises(ConfigError, match="1 segments need"):
        round_to_grid(x, offsets, torch.ones(2), one, 4, 0)
    with pytest.raises(ConfigError, match="1 segments need"):
        round_to_powers(x, offsets, torch.ones(1, dtype=torch.float64), 4, 0)
    with pytest.raises(ConfigError, match="float32"):
        segment_extents(x.double(), offsets)
    with pytest.raises(ConfigError, match="float32"):
        segment_sides(x.view(2, 2), offsets)
