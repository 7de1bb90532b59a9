import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_twins import adaptive_encode_python

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.adaptive_gaps import (
    MAX_COUNT,
    adaptive_decode_prefix,
    adaptive_encode,
    encode_adaptive_gaps,
)
from thinwire.kernels.entropy.exp_golomb import exp_golomb_num_bytes
from thinwire.kernels.entropy.rice import gaps_of


def indices_of(gaps: list[int]) -> torch.Tensor:
    return (torch.tensor(gaps, dtype=torch.int64) + 1).cumsum(0) - 1


def draw(count: int, kind: str) -> list[int]:
    generator = np.random.default_rng(count)
    gaps = {
        "zero": np.zeros(count, np.int64),
        "uniform": generator.geometric(0.01, count) - 1,
        "clustered": np.where(generator.random(count) < 0.1, generator.integers(0, 50_000, count), 0),
        "huge": np.where(generator.random(count) < 0.01, generator.integers(0, 2**38, count), 3),
    }[kind]
    return [int(gap) for gap in gaps]


@pytest.mark.parametrize("kind", ["zero", "uniform", "clustered", "huge"])
@pytest.mark.parametrize("count", [0, 1, 7, 63, 64, 65, 4096])
def test_round_trip_and_plain_twin(count: int, kind: str) -> None:
    gaps = draw(count, kind)
    indices = indices_of(gaps)
    data = adaptive_encode(indices)
    assert data.numpy().tobytes() == adaptive_encode_python(gaps)
    for following in (b"", b"\x00\x00\x00\x00\x00", b"\xff\xff\xff\xff\xff"):
        longer = torch.cat([data, torch.tensor(list(following), dtype=torch.uint8)])
        decoded, num_bytes = adaptive_decode_prefix(longer, count, 2**48)
        assert torch.equal(decoded, indices)
        assert num_bytes == data.numel()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 48).flatmap(lambda w: st.integers(max(2**w - 3, 0), 2**w - 1)), max_size=60))
def test_round_trip_of_any_widths(gaps: list[int]) -> None:
    gaps = [gap % 2**40 for gap in gaps]
    data = adaptive_encode(indices_of(gaps))
    assert data.numpy().tobytes() == adaptive_encode_python(gaps)
    decoded, num_bytes = adaptive_decode_prefix(data, len(gaps), 2**48)
    assert torch.equal(decoded, indices_of(gaps))
    assert num_bytes == data.numel()


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 100), st.sampled_from([100, 10**6, 2**48]))
def test_any_bytes_decode_to_what_an_encoder_writes_or_are_refused(data: bytes, count: int, numel: int) -> None:
    given_bytes = torch.tensor(list(data), dtype=torch.uint8)
    try:
        indices, num_bytes = adaptive_decode_prefix(given_bytes, count, numel)
    except WireError:
        return
    assert indices.numel() == count
    assert not count or (int(indices[0]) >= 0 and int(indices[-1]) < numel)
    assert torch.equal(adaptive_encode(indices), given_bytes[:num_bytes])


def test_truncation_and_wrong_numbers_are_refused() -> None:
    indices = indices_of(draw(65, "clustered"))
    data = adaptive_encode(indices)
    for length in range(data.numel()):
        with pytest.raises(WireError):
            adaptive_decode_prefix(data[:length], 65, 2**48)
    with pytest.raises(WireError, match="not below"):
        adaptive_decode_prefix(data, 65, int(indices[-1]))
    for count, numel in ((MAX_COUNT + 1, 2**40), (3, 2), (-1, 5), (3, 2**48 + 1)):
        with pytest.raises(WireError, match="at most"):
            adaptive_decode_prefix(data, count, numel)
    with pytest.raises(WireError, match="not those"):
        adaptive_decode_prefix(torch.tensor([1], dtype=torch.uint8), 1, 1)


def test_the_largest_index_and_what_is_too_large() -> None:
    data = adaptive_encode(torch.tensor([2**48 - 1]))
    assert adaptive_decode_prefix(data, 1, 2**48)[0].tolist() == [2**48 - 1]
    for gap in (2**48, -1):
        with pytest.raises(ConfigError, match="must be 0 to"):
            encode_adaptive_gaps(torch.tensor([gap]), 100)
    with pytest.raises(ConfigError, match="at most"):
        encode_adaptive_gaps(torch.zeros(MAX_COUNT + 1, dtype=torch.int64), 100)


def test_a_limit_is_kept_to_the_byte() -> None:
    gaps = gaps_of(indices_of(draw(64, "uniform")))
    data = adaptive_encode(indices_of(draw(64, "uniform")))
    exact = encode_adaptive_gaps(gaps, data.numel())
    assert exact is not None
    assert torch.equal(exact, data)
    for num_bytes in (0, 1, data.numel() - 1):
        assert encode_adaptive_gaps(gaps, num_bytes) is None


def test_it_takes_fewer_bytes_than_exp_golomb_where_sizes_vary() -> None:
    generator = np.random.default_rng(5)
    gaps = np.where(generator.random(1000) < 0.3, generator.integers(0, 5000, 1000), generator.integers(0, 3, 1000))
    indices = indices_of([int(gap) for gap in gaps])
    assert adaptive_encode(indices).numel() < exp_golomb_num_bytes(indices)
