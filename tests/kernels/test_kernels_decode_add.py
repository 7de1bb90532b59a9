"""Packed levels, points and signs onto a sum, or written: any width, any cut, any number of threads."""

import math

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import largest_code, largest_code_torch, pack, unpack
from thinwire.kernels.quantize.grid_add import add_points, add_points_torch, write_points, write_points_torch
from thinwire.kernels.quantize.levels_add import add_levels, add_levels_torch, write_levels, write_levels_torch
from thinwire.kernels.quantize.signs_add import add_signs, add_signs_torch, write_signs, write_signs_torch
from thinwire.layout import Segments

pytestmark = pytest.mark.usefixtures("short_is_shared")

SIZES = (0, 1, 7, 15, 16, 17, 63, 64, 65, 4096, 4099)
LARGE = 2**20 + 5
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 31)


@pytest.fixture(params=[1, 2])
def _num_threads(request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(request.param)


def cuts(size: int) -> list[Tensor]:
    third = size // 3
    return [
        Segments.whole(size).offsets(),
        Segments.uniform(size, 512).offsets(),
        Segments.uniform(size, 13).offsets(),
        Segments.of_sizes([0, third, 0, 0, min(1, size - third), size - third - min(1, size - third), 0]).offsets(),
    ]


def vector(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) ** 3


def drawn(size: int, width: int) -> Tensor:
    return torch.randint(0, 2**width, (size,), generator=torch.Generator().manual_seed(width))


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def check_levels(size: int, width: int, offsets: Tensor, factor: float) -> None:
    codes, start = drawn(size, width), vector(size, 1)
    packed, num_levels = pack(codes, width), 2 ** (width - 1) - 1
    units = vector(offsets.numel() - 1, 2)
    values = units.repeat_interleave(offsets.diff()) * (codes - num_levels).to(torch.float32)
    expected = start + values * torch.tensor(factor, dtype=torch.float32)
    out, twin = start.clone(), start.clone()
    add_levels(packed, width, num_levels, units, offsets, out, factor)
    add_levels_torch(packed, width, num_levels, units, offsets, twin, factor)
    assert same_bits(out, expected)
    assert same_bits(twin, expected)
    written, twin = torch.full((size,), math.nan), torch.full((size,), math.nan)
    write_levels(packed, width, num_levels, units, offsets, written)
    write_levels_torch(packed, width, num_levels, units, offsets, twin)
    assert same_bits(written, values)
    assert same_bits(twin, values)


def check_points(size: int, width: int, offsets: Tensor, factor: float) -> None:
    codes, start = drawn(size, width), vector(size, 1)
    packed, lows, steps = pack(codes, width), vector(offsets.numel() - 1, 2), vector(offsets.numel() - 1, 3)
    low, step = (each.repeat_interleave(offsets.diff()) for each in (lows, steps))
    values = low + step * codes.to(torch.float32)
    expected = start + values * torch.tensor(factor, dtype=torch.float32)
    out, twin = start.clone(), start.clone()
    add_points(packed, width, lows, steps, offsets, out, factor)
    add_points_torch(packed, width, lows, steps, offsets, twin, factor)
    assert same_bits(out, expected)
    assert same_bits(twin, expected)
    written, twin = torch.full((size,), math.nan), torch.full((size,), math.nan)
    write_points(packed, width, lows, steps, offsets, written)
    write_points_torch(packed, width, lows, steps, offsets, twin)
    assert same_bits(written, values)
    assert same_bits(twin, values)


def check_signs(size: int, offsets: Tensor, factor: float) -> None:
    negative, start = drawn(size, 1) == 1, vector(size, 1)
    bits, scales = pack(negative, 1), vector(offsets.numel() - 1, 2)
    spread = scales.repeat_interleave(offsets.diff())
    signed = torch.where(negative, -spread, spread)
    expected = start + signed * torch.tensor(factor, dtype=torch.float32)
    out, twin = start.clone(), start.clone()
    add_signs(bits, scales, offsets, out, factor)
    add_signs_torch(bits, scales, offsets, twin, factor)
    assert same_bits(out, expected)
    assert same_bits(twin, expected)
    written, twin = torch.full((size,), math.nan), torch.full((size,), math.nan)
    write_signs(bits, scales, offsets, written)
    write_signs_torch(bits, scales, offsets, twin)
    assert same_bits(written, signed)
    assert same_bits(twin, signed)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", SIZES)
def test_levels_of_every_kind_of_cut(size: int, width: int) -> None:
    for offsets in cuts(size):
        for factor in (1.0, -1 / 3):
            check_levels(size, width, offsets, factor)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", SIZES)
def test_points_of_every_kind_of_cut(size: int, width: int) -> None:
    for offsets in cuts(size):
        for factor in (1.0, -1 / 3):
            check_points(size, width, offsets, factor)


@pytest.mark.parametrize("size", SIZES)
def test_signs_of_every_kind_of_cut(size: int) -> None:
    for offsets in cuts(size):
        for factor in (1.0, -1 / 3):
            check_signs(size, offsets, factor)


@pytest.mark.usefixtures("_num_threads")
@pytest.mark.parametrize("cut", range(4))
def test_long_vectors_on_several_threads(cut: int) -> None:
    offsets = cuts(LARGE)[cut]
    check_signs(LARGE, offsets, 0.7)
    for width in (2, 5, 9):
        check_levels(LARGE, width, offsets, 0.7)
        check_points(LARGE, width, offsets, 0.7)


def test_zero_and_infinite_scales() -> None:
    bits, offsets = pack(torch.tensor([0, 1] * 20), 1), torch.tensor([0, 20, 40])
    out = torch.empty(40)
    write_signs(bits, torch.tensor([0.0, math.inf]), offsets, out)
    assert out[:20].signbit().tolist() == [False, True] * 10
    assert out[20:].tolist() == [math.inf, -math.inf] * 10


def test_bytes_after_the_codes_and_codes_inside_a_buffer() -> None:
    codes = drawn(1001, 3)
    buffer = torch.cat([torch.full((1,), 255, dtype=torch.uint8), pack(codes, 3), torch.full((9,), 255).byte()])
    out, plain = torch.zeros(1001), torch.zeros(1001)
    add_levels(buffer[1:], 3, 3, torch.ones(1), torch.tensor([0, 1001]), out)
    add_levels(pack(codes, 3), 3, 3, torch.ones(1), torch.tensor([0, 1001]), plain)
    assert same_bits(out, plain)
    assert torch.equal(out, (codes - 3).float())
    # Seven of the eight codes of the last byte count, and what lies in a partial byte's rest does not.
    assert largest_code(torch.tensor([0b01000000], dtype=torch.uint8), 3, 2) == 0
    assert largest_code(torch.tensor([0b01000000], dtype=torch.uint8), 4, 2) == 1


@pytest.mark.usefixtures("_num_threads")
@pytest.mark.parametrize("width", WIDTHS)
def test_one_large_code_is_found_wherever_it_lies(width: int) -> None:
    for size in (1, 17, 1023, 1024, 1025, LARGE):
        for place in {0, size // 2, size - 1}:
            codes = torch.zeros(size, dtype=torch.int32)
            codes[place] = 2**width - 1
            packed = pack(codes, width)
            assert largest_code(packed, size, width) == 2**width - 1
            assert largest_code(packed, place, width) == (0 if place else -1)
            if size < LARGE:
                assert largest_code_torch(packed, size, width) == 2**width - 1
                assert torch.equal(unpack(packed, size, width), codes)


def test_written_sums_are_checked_like_added_ones() -> None:
    byte, one, whole = torch.zeros(1, dtype=torch.uint8), torch.ones(1), torch.tensor([0, 9])
    out = torch.zeros(9)
    with pytest.raises(ConfigError, match="bytes of uint8"):
        write_signs(byte, one, whole, out)
    with pytest.raises(ConfigError, match="codes of 2 bits"):
        write_levels(byte, 2, 1, one, whole, out)
    with pytest.raises(ConfigError, match="codes of 2 bits"):
        write_points(byte, 2, one, one, whole, out)
    with pytest.raises(ConfigError, match="as many float32"):
        write_points(torch.zeros(9, dtype=torch.uint8), 8, one, torch.ones(2), whole, out)
    with pytest.raises(ConfigError, match="ascend"):
        write_signs(torch.zeros(2, dtype=torch.uint8), torch.ones(2), torch.tensor([0, 10, 9]), out)
    with pytest.raises(ConfigError, match="as many float32"):
        write_levels(torch.zeros(9, dtype=torch.uint8), 8, 1, torch.ones(2), whole, out)
