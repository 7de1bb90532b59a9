import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import (
    largest_code,
    largest_code_torch,
    num_packed_bytes,
    pack,
    pack_torch,
    unpack,
    unpack_torch,
)

pytestmark = pytest.mark.usefixtures("short_is_shared")

SIZES = (0, 1, 7, 63, 64, 65, 4096)


def reference(codes: list[int], width: int) -> bytes:
    number = sum(code << (width * i) for i, code in enumerate(codes))
    return number.to_bytes((len(codes) * width + 7) // 8, "little")


@pytest.mark.parametrize("width", range(1, 33))
def test_kernel_twin_and_definition_agree(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    for size in SIZES:
        codes = torch.randint(0, 2**width, (size,), generator=generator)
        packed = pack(codes, width)
        assert packed.numpy().tobytes() == reference(codes.tolist(), width)
        assert packed.numel() == num_packed_bytes(size, width)
        assert torch.equal(packed, pack_torch(codes, width))
        if width < 32:
            assert torch.equal(unpack(packed, size, width), codes.to(torch.int32))
            assert torch.equal(unpack_torch(packed, size, width), codes.to(torch.int32))
            expected = int(codes.max()) if size else -1
            assert largest_code(packed, size, width) == largest_code_torch(packed, size, width) == expected


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_every_integer_dtype_packs_alike(dtype: torch.dtype) -> None:
    codes = torch.arange(200) % 2
    for width in (1, 3):
        assert torch.equal(pack(codes.to(dtype), width), pack(codes, width))


def test_strided_codes_and_bytes_of_a_larger_buffer() -> None:
    codes = torch.arange(64)
    packed = pack(codes[::2], 6)
    buffer = torch.cat([torch.full((1,), 255, dtype=torch.uint8), packed, torch.full((3,), 255, dtype=torch.uint8)])
    assert torch.equal(unpack(buffer[1:], 32, 6), codes[::2].to(torch.int32))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 31).flatmap(lambda w: st.tuples(st.just(w), st.lists(st.integers(0, 2**w - 1)))))
def test_round_trip(case: tuple[int, list[int]]) -> None:
    width, codes = case
    assert unpack(pack(torch.tensor(codes, dtype=torch.int64), width), len(codes), width).tolist() == codes


@pytest.mark.parametrize("width", [0, 33, -1])
def test_pack_refuses_widths(width: int) -> None:
    with pytest.raises(ConfigError, match="width"):
        pack(torch.zeros(3, dtype=torch.int32), width)


def test_refuses_what_cannot_work() -> None:
    with pytest.raises(ConfigError, match="width"):
        unpack(torch.zeros(8, dtype=torch.uint8), 1, 32)
    with pytest.raises(ConfigError, match="asked for"):
        unpack(torch.zeros(1, dtype=torch.uint8), 9, 1)
    with pytest.raises(ConfigError, match="integers"):
        pack(torch.zeros(3), 1)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 8])
def test_the_largest_of_many_codes_is_found_at_every_place(width: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    # Bytes are looked at 2**14 at a time: around those borders, and where a byte is not full.
    per_block = (1 << 14) * 8 // width
    count = 3 * per_block + 5
    borders = {edge + step for edge in (0, per_block, 2 * per_block, 3 * per_block) for step in range(-9, 10)}
    codes = torch.zeros(count, dtype=torch.int64)
    for place in sorted(borders | {count - 1}):
        if 0 <= place < count:
            codes[place] = (1 << width) - 1
            packed = pack(codes, width)
            assert largest_code(packed, count, width) == (1 << width) - 1
            # What lies behind the codes that are asked for does not count.
            assert largest_code(packed, place, width) == (0 if place else -1)
            codes[place] = 0


def test_long_results_do_not_share_memory_with_those_before() -> None:
    codes = torch.randint(0, 16, (1_000_003,), generator=torch.Generator().manual_seed(0))
    kept = unpack(pack(codes, 4), codes.numel(), 4)
    packed = pack(codes, 4)
    for _ in range(3):
        unpack(pack(15 - codes, 4), codes.numel(), 4)
    assert torch.equal(kept, codes.to(torch.int32))
    assert torch.equal(packed, pack(codes, 4))
