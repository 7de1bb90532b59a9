import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.errors import ConfigError
from thinwire.kernels.crc32c import crc32c, crc32c_python


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
