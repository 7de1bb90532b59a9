"""Triton's kernels for packed integers, in its interpreter, against the loops on the CPU and the twins in torch."""

import pytest
import torch
from bits import LONG, on_device

from thinwire.kernels.bitpack import bits, bits_triton

kernels = on_device(bits_triton)

COUNTS = [0, 1, 7, 63, 64, 65, 1025, 4097]


@pytest.mark.parametrize("width", range(1, 33))
@pytest.mark.parametrize("count", COUNTS)
def test_packed_as_on_the_cpu(width: int, count: int) -> None:
    generator = torch.Generator().manual_seed(100 * width + count)
    # Of a code outside of its range the low bits count, and these alone.
    codes = torch.randint(-(2**62), 2**62, (count,), generator=generator)
    packed = kernels.pack(codes, width)
    assert packed.shape == ((count * width + 7) // 8,)
    assert torch.equal(packed, bits.pack(codes, width))
    assert torch.equal(packed, bits.pack_torch(codes, width))
    if width < 32:
        # Bytes behind the last code are ignored, whatever lies there.
        longer = torch.cat([packed, torch.full((9,), 255, dtype=torch.uint8)])
        for given in (packed, longer):
            found = kernels.unpack(given, count, width)
            assert found.dtype == torch.int32
            assert torch.equal(found.long(), codes & ((1 << width) - 1))
            assert torch.equal(found, bits.unpack(given, count, width))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64]
)
def test_integers_of_every_type(dtype: torch.dtype) -> None:
    codes = torch.randint(-100 if dtype.is_signed else 0, 100, (1025,), generator=torch.Generator().manual_seed(3))
    for each in (codes.to(dtype), codes.to(dtype)[::2]):
        for width in (1, 3, 8, 12, 20):
            assert torch.equal(kernels.pack(each, width), bits.pack(each, width))


def test_bytes_at_any_address() -> None:
    codes = torch.arange(100)
    for shift in range(4):
        packed = torch.cat([torch.zeros(shift, dtype=torch.uint8), bits.pack(codes, 7)])[shift:]
        assert torch.equal(kernels.unpack(packed, 100, 7).long(), codes)


@pytest.mark.parametrize("width", [1, 3, 4, 9, 32])
@pytest.mark.parametrize("count", LONG)
def test_long_ones(width: int, count: int) -> None:
    codes = torch.randint(0, 2**width, (count,), generator=torch.Generator().manual_seed(width))
    packed = kernels.pack(codes, width)
    assert torch.equal(packed, bits.pack(codes, width))
    if width < 32:
        assert torch.equal(kernels.unpack(packed, count, width).long(), codes)
