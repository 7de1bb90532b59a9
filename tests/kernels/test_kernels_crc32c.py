import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_twins import crc32c_python

from thinwire.errors import ConfigError
from thinwire.kernels.crc32c import (
    byte_tables,
    checksum_by_instruction,
    checksum_by_tables,
    copy_summed,
    crc32c,
    crc32c_array,
    has_instruction,
    shift_tables,
)

pytestmark = pytest.mark.usefixtures("short_is_shared")


def tensor(data: bytes) -> torch.Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_published_answers(data: bytes, expected: int) -> None:
    assert crc32c(tensor(data)) == crc32c_python(data) == expected


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 100))
def test_kernel_equals_twin_and_goes_on(data: bytes, cut: int) -> None:
    expected = crc32c_python(data)
    assert crc32c(tensor(data)) == expected
    assert crc32c(tensor(data[cut:]), crc32c(tensor(data[:cut]))) == expected
    # A view that begins at any address.
    assert crc32c(tensor(b"x" + data)[1:]) == expected


def test_refuses_other_tensors() -> None:
    with pytest.raises(ConfigError, match="uint8"):
        crc32c(torch.zeros(4))


@pytest.mark.parametrize(
    "num_bytes",
    [0, 1, 7, 8, 63, 64, 65, 383, 384, 385, 4096, 12_287, 12_288, 12_680, 100_001, 196_607, 196_608, 400_003],
)
def test_both_routes_agree_at_any_length(num_bytes: int) -> None:
    data = np.random.default_rng(num_bytes).integers(0, 256, num_bytes, dtype=np.uint8)
    expected = crc32c_python(data.tobytes(), 77)
    assert checksum_by_tables(data, byte_tables(), np.uint32(77)) == expected
    assert crc32c_array(data, 77) == expected
    if has_instruction():
        assert checksum_by_instruction(data, byte_tables(), shift_tables(), np.uint32(77)) == expected


def test_a_million_bytes_in_any_pieces() -> None:
    data = torch.from_numpy(np.random.default_rng(1).integers(0, 256, 1_000_003, dtype=np.uint8))
    by_tables = int(checksum_by_tables(data.numpy(), byte_tables(), np.uint32(0)))
    for cut in (0, 1, 12_288, 500_000, 999_999):
        assert crc32c(data[cut:], crc32c(data[:cut])) == by_tables


def test_zeros_shift_a_state_as_the_tables_say() -> None:
    for tables, length in zip(shift_tables(), (65536, 4096, 128), strict=True):
        for state in (0, 1, 0x80000000, 0xDEADBEEF):
            looked_up = 0
            for place in range(4):
                looked_up ^= int(tables[place, state >> (8 * place) & 255])
            # A checksum begins and ends with a complement.
            assert looked_up ^ 0xFFFFFFFF == crc32c_python(bytes(length), state ^ 0xFFFFFFFF)


def test_a_processor_without_the_instruction_takes_the_tables() -> None:
    program = (
        "import numpy as np; from thinwire.kernels.crc32c import crc32c_array, has_instruction; "
        "print(has_instruction(), hex(crc32c_array(np.frombuffer(b'123456789', np.uint8))))"
    )
    lesser = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", program], env=lesser, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0xe3069283"]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("num_bytes", [0, 1, 12_287, 12_288, 100_001, 3_500_003])
def test_copies_and_sums_on_any_number_of_threads(num_bytes: int, threads: int) -> None:
    data = np.random.default_rng(num_bytes).integers(0, 256, num_bytes, dtype=np.uint8)
    expected = int(checksum_by_tables(data, byte_tables(), np.uint32(77)))
    target = np.full(num_bytes + 8, 9, np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert crc32c_array(data, 77) == expected
        assert copy_summed(data, target[5:-3], 77) == expected
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(target[5:-3], data)
    assert (target[:5] == 9).all()
    assert (target[-3:] == 9).all()
