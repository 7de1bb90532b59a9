import numpy as np
import pytest
import torch
from kernel_twins import elias_decode_torch

from thinwire.errors import WireError
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.entropy.elias import (
    elias_decode_prefix,
    elias_encode,
    elias_encode_torch,
    elias_num_bytes,
)

COUNTS = [0, 1, 7, 63, 64, 65, 4096, 5000]
NUM_LEVELS = [1, 2, 3, 7, 127, 32767, 2**30 - 1]

# The first numbers of https://oeis.org/A281193's code and two long ones, as in Elias's table of omega.
TABLE = {
    1: "0",
    2: "100",
    3: "110",
    4: "101000",
    7: "101110",
    8: "1110000",
    15: "1111110",
    16: "10100100000",
    100: "1011011001000",
    1000: "11100111111010000",
}


def omega(number: int) -> str:
    """Elias's definition: ... groups, each the binary form of the length of the next less one, then 0."""
    return recursive(number) + "0"


def recursive(number: int) -> str:
    return "" if number == 1 else recursive(len(f"{number:b}") - 1) + f"{number:b}"


def by_definition(levels: list[int]) -> list[int]:
    written = "".join(omega(abs(level) + 1) + ("" if level == 0 else str(int(level < 0))) for level in levels)
    return [int(written[start : start + 8][::-1], 2) for start in range(0, len(written), 8)]


def draw(count: int, num_levels: int) -> torch.Tensor:
    generator = np.random.default_rng(count)
    heavy = np.rint(generator.standard_t(1, count) * num_levels / 9)
    return torch.from_numpy(np.clip(heavy, -num_levels, num_levels).astype(np.int64))


def packed_of(levels: torch.Tensor, num_levels: int) -> torch.Tensor:
    return pack(levels + num_levels, (2 * num_levels).bit_length())


def test_omega_is_that_of_the_table() -> None:
    for number, string in TABLE.items():
        assert omega(number) == string
        levels = torch.tensor([number - 1])
        code = elias_encode(packed_of(levels, 1023), 1, 1023)
        bits = "".join(f"{byte:08b}"[::-1] for byte in code.tolist())
        assert bits.startswith(string)
        assert "1" not in bits[len(string) :]


@pytest.mark.parametrize("num_levels", NUM_LEVELS)
@pytest.mark.parametrize("count", COUNTS)
def test_definition_round_trip_and_twins(count: int, num_levels: int) -> None:
    levels = draw(count, num_levels)
    packed = packed_of(levels, num_levels)
    data = elias_encode(packed, count, num_levels)
    assert data.tolist() == by_definition(levels.tolist())
    assert elias_num_bytes(packed, count, num_levels) == data.numel()
    assert torch.equal(elias_encode_torch(packed, count, num_levels), data)
    assert torch.equal(elias_decode_torch(data, count, num_levels), packed)
    longer = torch.cat([data, torch.full((9,), 255, dtype=torch.uint8)])
    decoded, num_bytes = elias_decode_prefix(longer, count, num_levels)
    assert torch.equal(decoded, packed)
    assert num_bytes == data.numel()


def test_a_million_levels_and_every_short_one() -> None:
    levels = draw(2**20 + 3, 127)
    for some in (levels, torch.arange(-127, 128).repeat(50)):
        packed = packed_of(some, 127)
        data = elias_encode(packed, some.numel(), 127)
        assert elias_num_bytes(packed, some.numel(), 127) == data.numel()
        assert torch.equal(elias_decode_prefix(data, some.numel(), 127)[0], packed)


@pytest.mark.parametrize("num_levels", [1, 14, 15, 2**30 - 1])
def test_random_bytes_decode_within_bounds_or_are_refused(num_levels: int) -> None:
    generator = np.random.default_rng(num_levels)
    refused = 0
    for _ in range(500):
        data = torch.from_numpy(generator.integers(0, 256, generator.integers(0, 30), dtype=np.uint8))
        count = int(generator.integers(0, 40))
        try:
            packed, num_bytes = elias_decode_prefix(data, count, num_levels)
        except WireError:
            refused += 1
            continue
        # One code has one meaning and one form.
        assert torch.equal(elias_encode(packed, count, num_levels), data[:num_bytes])
    assert 0 < refused < 500


@pytest.mark.parametrize(
    ("data", "count", "reason"),
    [
        ([], 1, "cannot hold"),
        ([0], 9, "cannot hold"),
        ([0], -1, "cannot hold"),
        ([0b10], 1, "not zero"),
        ([0b1], 7, "past the end"),
        ([0xFF] * 8, 1, "larger"),
        ([0b0011, 0], 1, "larger"),
    ],
)
def test_bad_data_is_refused(data: list[int], count: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        elias_decode_prefix(torch.tensor(data, dtype=torch.uint8), count, 1)
