import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_twins import exp_golomb_decode_torch

from thinwire.errors import ConfigError, WireError
from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.entropy.exp_golomb import (
    encode_with_orders,
    encode_with_orders_torch,
    exp_golomb_decode,
    exp_golomb_decode_prefix,
    exp_golomb_encode,
    exp_golomb_num_bytes,
    orders_of_gaps,
    orders_of_gaps_torch,
)
from thinwire.kernels.entropy.rice import gaps_of

COUNTS = [0, 1, 7, 63, 64, 65, 127, 128, 129, 4096]
GAPS = ["zero", "uniform", "clustered", "huge"]


def draw(count: int, kind: str) -> torch.Tensor:
    """Gaps; all together stay below ``2**48``."""
    generator = np.random.default_rng(count)
    gaps = {
        "zero": np.zeros(count, np.int64),
        "uniform": generator.geometric(0.01, count) - 1,
        "clustered": np.where(generator.random(count) < 0.05, generator.integers(0, 50_000, count), 0),
        "huge": np.where(generator.random(count) < 0.01, generator.integers(0, 2**40, count), 3),
    }[kind]
    gaps[:1] *= 2
    return torch.from_numpy(gaps.astype(np.int64))


def indices_of(gaps: torch.Tensor) -> torch.Tensor:
    return (gaps + 1).cumsum(0) - 1


def length(gap: int, order: int) -> int:
    """Zero bits before the one, by the textbook: q = (g >> k) + 1 has so many digits after its first."""
    return ((gap >> order) + 1).bit_length() - 1


def by_definition(gaps: list[int]) -> tuple[list[int], int]:
    """The orders and the size, one gap after another."""
    orders, num_lengths, num_raw = [], 0, 0
    for start in range(0, len(gaps), 128):
        block = gaps[start : start + 128]
        bits = [sum(2 * length(gap, order) + 1 + order for gap in block) for order in range(16)]
        order = bits.index(min(bits))
        orders.append(order)
        num_lengths += sum(length(gap, order) + 1 for gap in block)
        num_raw += sum(length(gap, order) + order for gap in block)
    return orders, math.ceil(len(orders) / 2) + math.ceil(num_lengths / 8) + math.ceil(num_raw / 8)


@pytest.mark.parametrize("kind", GAPS)
@pytest.mark.parametrize("count", COUNTS)
def test_size_orders_round_trip_and_twins(count: int, kind: str) -> None:
    gaps = draw(count, kind)
    indices = indices_of(gaps)
    numel = int(indices[-1]) + 1 if count else 5
    orders, num_bytes = orders_of_gaps(gaps)
    assert (orders.tolist(), num_bytes) == by_definition(gaps.tolist())
    twin_orders, twin_num_bytes = orders_of_gaps_torch(gaps)
    assert torch.equal(orders, twin_orders)
    assert num_bytes == twin_num_bytes == exp_golomb_num_bytes(indices)
    data = exp_golomb_encode(indices)
    assert data.numel() == num_bytes
    assert torch.equal(data, encode_with_orders_torch(gaps, orders))
    assert torch.equal(exp_golomb_decode(data, count, numel), indices)
    assert torch.equal(exp_golomb_decode_torch(data, count, numel), indices)
    longer = torch.cat([data, torch.full((9,), 255, dtype=torch.uint8)])
    prefix, num_read = exp_golomb_decode_prefix(longer, count, numel)
    assert torch.equal(prefix, indices)
    assert num_read == num_bytes


@pytest.mark.parametrize("kind", GAPS)
@pytest.mark.parametrize("count", COUNTS)
def test_any_orders_are_read(count: int, kind: str) -> None:
    gaps = draw(count, kind)
    indices = indices_of(gaps)
    orders = torch.from_numpy(np.random.default_rng(1).integers(0, 16, math.ceil(count / 128)).astype(np.uint8))
    data = encode_with_orders_torch(gaps, orders)
    assert torch.equal(encode_with_orders(gaps, orders, data.numel()), data)
    assert torch.equal(exp_golomb_decode(data, count, 2**48), indices)
    assert torch.equal(exp_golomb_decode_torch(data, count, 2**48), indices)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**16) | st.integers(0, 2**40), max_size=200))
def test_round_trip(gaps: list[int]) -> None:
    indices = indices_of(torch.tensor(gaps, dtype=torch.int64))
    data = exp_golomb_encode(indices)
    assert data.numel() == by_definition(gaps)[1]
    assert torch.equal(exp_golomb_decode(data, len(gaps), 2**48), indices)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 15).flatmap(lambda digits: st.integers(2**digits - 2, 2**digits + 1)), max_size=150))
def test_the_orders_are_optimal_where_digits_carry(near_powers: list[int]) -> None:
    gaps = [max(gap, 0) for gap in near_powers]
    orders, num_bytes = orders_of_gaps(torch.tensor(gaps, dtype=torch.int64))
    assert (orders.tolist(), num_bytes) == by_definition(gaps)


def test_the_largest_index() -> None:
    for order in (0, 15):
        gaps = torch.tensor([2**48 - 1])
        data = encode_with_orders_torch(gaps, torch.tensor([order], dtype=torch.uint8))
        assert exp_golomb_decode(data, 1, 2**48).tolist() == [2**48 - 1]
    assert torch.equal(exp_golomb_encode(gaps), data)
    for one_more in (orders_of_gaps, orders_of_gaps_torch):
        for gap in (2**48, -1):
            with pytest.raises(ConfigError, match="must be 0 to"):
                one_more(torch.tensor([gap]))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 300), st.sampled_from([300, 10**6, 2**48]))
def test_any_bytes_decode_to_ascending_indices_or_are_refused(data: bytes, count: int, numel: int) -> None:
    given_bytes = torch.tensor(list(data), dtype=torch.uint8)
    try:
        indices, num_bytes = exp_golomb_decode_prefix(given_bytes, count, numel)
    except WireError:
        return
    assert indices.numel() == count
    assert num_bytes <= len(data)
    assert not count or (int(indices[0]) >= 0 and int(indices[-1]) < numel)
    orders = unpack(given_bytes, math.ceil(count / 128), 4).to(torch.uint8)
    assert torch.equal(encode_with_orders_torch(gaps_of(indices), orders), given_bytes[:num_bytes])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3))
def test_changed_codes_decode_to_what_they_say_or_are_refused(seed: int, changes: list[tuple[int, int]]) -> None:
    generator = np.random.default_rng(seed)
    gaps = torch.from_numpy(generator.geometric(0.2, 150) - 1) << int(generator.integers(0, 9))
    data = exp_golomb_encode(indices_of(gaps))
    for place, byte in changes:
        data[place % data.numel()] = byte
    cut = data[: int(generator.integers(0, data.numel() + 1))] if seed % 2 else data
    try:
        indices = exp_golomb_decode(cut, 150, 10**6)
    except WireError:
        return
    orders = unpack(cut, 2, 4).to(torch.uint8)
    assert torch.equal(encode_with_orders_torch(gaps_of(indices), orders), cut)


def test_damage_is_refused() -> None:
    indices = torch.tensor([0, 3, 100])
    data = exp_golomb_encode(indices)
    for length_kept in range(data.numel()):
        with pytest.raises(WireError):
            exp_golomb_decode(data[:length_kept], 3, 101)
    with pytest.raises(WireError, match="were given"):
        exp_golomb_decode(torch.cat([data, data.new_zeros(1)]), 3, 101)
    with pytest.raises(WireError, match="not below"):
        exp_golomb_decode(data, 3, 100)
    padded = data.clone()
    padded[0] |= 128
    with pytest.raises(WireError, match="not zero"):
        exp_golomb_decode(padded, 3, 101)
    padded = data.clone()
    padded[-1] |= 128
    with pytest.raises(WireError, match="not zero"):
        exp_golomb_decode(padded, 3, 101)
    for count, numel in ((2**40, 2**41), (3, 2**48 + 1), (3, 2), (-1, 5)):
        with pytest.raises(WireError, match="cannot hold"):
            exp_golomb_decode(data, count, numel)


@pytest.mark.parametrize("indices", [[3, 3], [3, 2], [-1, 4]])
def test_encode_refuses_what_does_not_ascend(indices: list[int]) -> None:
    with pytest.raises(ConfigError, match="ascending"):
        exp_golomb_encode(torch.tensor(indices))


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("kind", GAPS)
def test_the_bytes_do_not_depend_on_the_number_of_threads(kind: str, num_threads: int) -> None:
    """So many gaps that each thread has a part; the parts begin at any bit of the two streams."""
    gaps = draw(130_001, kind) // 16  # so that all together stay below 2**48
    torch.set_num_threads(num_threads)
    orders, num_bytes = orders_of_gaps(gaps)
    expected, expected_bytes = orders_of_gaps_torch(gaps)
    assert torch.equal(orders, expected)
    assert num_bytes == expected_bytes
    code = encode_with_orders(gaps, orders, num_bytes)
    assert torch.equal(code, encode_with_orders_torch(gaps, orders))
    assert torch.equal(gaps_of(exp_golomb_decode(code, gaps.numel(), 2**48)), gaps)
    with pytest.raises(WireError, match="below"):
        exp_golomb_decode(code, gaps.numel(), int(gaps.sum()) + gaps.numel() - 1)
    with pytest.raises(WireError, match=r"past the end|cannot hold"):
        exp_golomb_decode(code[:-1], gaps.numel(), 2**48)


def test_gaps_that_wrap_around_64_bits_are_refused() -> None:
    """What is left of them would be an index that looks right: of one gap of 70 digits, of 2**15 gaps of 49."""
    code = torch.zeros(1 + 9 + 9, dtype=torch.uint8)
    code[9] = 1 << 6  # bit 70 of the lengths, after an order of 0
    with pytest.raises(WireError, match="not below"):
        exp_golomb_decode(code, 1, 2**48)
    gaps = torch.full((2**15 + 200,), 2**49 - 1 - 2**15)
    orders = torch.full((math.ceil(gaps.numel() / 128),), 15, dtype=torch.uint8)
    with pytest.raises(WireError, match="not below"):
        exp_golomb_decode(encode_with_orders_torch(gaps, orders), gaps.numel(), 2**48)
