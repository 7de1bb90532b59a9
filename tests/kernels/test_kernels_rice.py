import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_twins import rice_decode_torch

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.gap_streams import gap_ranges
from thinwire.kernels.entropy.rice import (
    max_rice_num_bytes,
    rice_decode,
    rice_encode,
    rice_encode_torch,
    rice_num_bytes,
    rice_parameter,
)

CASES = [(0, 5), (1, 1), (1, 2**40), (7, 2**40), (63, 64), (64, 10**6), (65, 200), (4096, 10**6), (4096, 4096)]


def draw(count: int, numel: int, seed: int = 0) -> torch.Tensor:
    if numel < 10 * count:
        return torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(numel)[:count]))
    return torch.from_numpy(np.unique(np.random.default_rng(seed).integers(0, numel, count)))


def size_by_definition(indices: torch.Tensor, parameter: int) -> int:
    gaps: list[int] = []
    previous = -1
    for index in indices.tolist():
        gaps.append(index - previous - 1)
        previous = index
    return math.ceil(len(gaps) * parameter / 8) + math.ceil(sum(1 + (gap >> parameter) for gap in gaps) / 8)


@pytest.mark.parametrize(("count", "numel"), CASES)
def test_size_parameter_round_trip_and_twins(count: int, numel: int) -> None:
    indices = draw(count, numel)
    sizes = [size_by_definition(indices, parameter) for parameter in range(41)]
    best = rice_parameter(indices)
    assert best == sizes.index(min(sizes))
    for parameter in {best, max(best - 3, 0), min(best + 2, 40)}:
        data = rice_encode(indices, parameter)
        assert data.numel() == rice_num_bytes(indices, parameter) == sizes[parameter]
        assert data.numel() <= max_rice_num_bytes(indices.numel(), numel, parameter)
        assert torch.equal(data, rice_encode_torch(indices, parameter))
        assert torch.equal(rice_decode(data, indices.numel(), numel, parameter), indices)
        assert torch.equal(rice_decode_torch(data, indices.numel(), numel, parameter), indices)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 2**40 - 1), max_size=50), st.integers(20, 40))
def test_round_trip(chosen: set[int], parameter: int) -> None:
    indices = torch.tensor(sorted(chosen), dtype=torch.int64)
    assert torch.equal(rice_decode(rice_encode(indices, parameter), len(chosen), 2**40, parameter), indices)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 500), max_size=60))
def test_the_parameter_is_optimal(chosen: set[int]) -> None:
    indices = torch.tensor(sorted(chosen), dtype=torch.int64)
    sizes = [size_by_definition(indices, parameter) for parameter in range(41)]
    assert rice_parameter(indices) == sizes.index(min(sizes))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 300), st.integers(0, 41))
def test_any_bytes_decode_to_ascending_indices_or_are_refused(
    data: bytes, count: int, numel: int, parameter: int
) -> None:
    given_bytes = torch.tensor(list(data), dtype=torch.uint8)
    try:
        indices = rice_decode(given_bytes, count, numel, parameter)
    except WireError:
        return
    assert indices.numel() == count
    assert torch.equal(rice_encode(indices, parameter), given_bytes)
    assert not count or (int(indices[0]) >= 0 and int(indices[-1]) < numel)


def test_damage_is_refused() -> None:
    indices = torch.tensor([0, 3, 200])
    data = rice_encode(indices, 5)
    for wrong in (data[:-1], torch.cat([data, data.new_zeros(1)]), data[:0]):
        with pytest.raises(WireError):
            rice_decode(wrong, 3, 201, 5)
    with pytest.raises(WireError, match="not below"):
        rice_decode(data, 3, 200, 5)
    for last_byte_of_stream in (1, data.numel() - 1):
        padded = data.clone()
        padded[last_byte_of_stream] |= 128
        with pytest.raises(WireError, match="not zero"):
            rice_decode(padded, 3, 201, 5)
    with pytest.raises(WireError, match="cannot hold"):
        rice_decode(data, 2**40, 2**41, 0)


@pytest.mark.parametrize("indices", [[3, 3], [3, 2], [-1, 4]])
def test_encode_refuses_what_does_not_ascend(indices: list[int]) -> None:
    with pytest.raises(ConfigError, match="ascending"):
        rice_encode(torch.tensor(indices), 3)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("parameter", [0, 3, 7])
def test_neither_bytes_nor_errors_depend_on_the_number_of_threads(parameter: int, num_threads: int) -> None:
    """So many gaps that each thread has a part; the parts begin at any bit of the two streams."""
    indices = draw(130_001, 2**21)
    count, numel = indices.numel(), int(indices[-1]) + 1
    torch.set_num_threads(num_threads)
    assert len(gap_ranges(count, 1)) == num_threads
    code = rice_encode(indices, parameter)
    assert torch.equal(code, rice_encode_torch(indices, parameter))
    assert torch.equal(rice_decode(code, count, numel, parameter), indices)
    # The part of any thread may be the one that goes too far, and the sum of all if none does by itself.
    for most in (numel - 1, numel // 2, 5 * count, count):
        with pytest.raises(WireError, match="not below"):
            rice_decode(code, count, most, parameter)
    with pytest.raises(WireError, match="past the end"):
        rice_decode(code[:-1], count, numel, parameter)


def test_quotients_that_no_vector_is_long_enough_for_are_refused() -> None:
    """Shifted by the parameter they would be more than 64 bits hold, or wrap to an index that looks right."""
    for zeros in (2**23, 2**24):
        code = torch.zeros(5 + zeros // 8 + 1, dtype=torch.uint8)
        code[-1] = 1
        with pytest.raises(WireError, match="not below"):
            rice_decode(code, 1, 2**40, 40)


def test_remainders_that_wrap_around_64_bits_are_refused() -> None:
    """Together ``2**64 + 2**40``: what 64 bits hold of that would be an index that looks right."""
    count = 2**24 + 1
    code = torch.full((5 * count + count // 8 + 1,), 255, dtype=torch.uint8)
    code[-1] = 1
    with pytest.raises(WireError, match="not below"):
        rice_decode(code, count, 2**41, 40)
