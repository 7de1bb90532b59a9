"""Values onto their places, and the indices that must be refused before anything is written."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.sparse.scatter import (
    are_disjoint,
    are_disjoint_torch,
    scatter_add,
    scatter_add_torch,
    scatter_write,
    scatter_write_torch,
)
from thinwire.kernels.sparse.scatter_signs import scatter_add_signs, scatter_add_signs_torch
from thinwire.layout import Segments

COUNTS = (0, 1, 7, 63, 64, 65, 4096, 100_000)


def vector(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) ** 3


def places(count: int, spacing: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(1, spacing + 1, (count,), generator=generator).cumsum(0) - 1


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("spacing", [1, 20])
@pytest.mark.parametrize("count", COUNTS)
def test_kernels_twins_and_a_loop_agree(count: int, spacing: int, num_threads: int) -> None:
    indices, values, start = places(count, spacing), vector(count), vector(count * spacing, 1)
    values[::3] = -0.0
    torch.set_num_threads(num_threads)
    for factor in (1.0, -1.0, 1 / 3, 0.0):
        expected = start.clone()
        expected[indices] = start[indices] + values * torch.tensor(factor, dtype=torch.float32)
        out, twin = start.clone(), start.clone()
        scatter_add(indices, values, out, factor)
        scatter_add_torch(indices, values, twin, factor)
        assert same_bits(out, expected)
        assert same_bits(twin, expected)
    expected = start.clone()
    expected[indices] = values
    out, twin = start.clone(), start.clone()
    scatter_write(indices, values, out)
    scatter_write_torch(indices, values, twin)
    assert same_bits(out, expected)
    assert same_bits(twin, expected)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("count", COUNTS)
def test_signs_reach_their_places_whatever_the_cut(count: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    indices, start = places(count, 20), vector(20 * count, 1)
    negative = vector(count, 2) < 0
    for segments in (
        Segments.whole(count),
        Segments.uniform(count, 13),
        Segments.of_sizes([0, count // 3, 0, count - count // 3]),
    ):
        scales = vector(segments.count, 3)
        spread = scales.repeat_interleave(segments.offsets().diff())
        for factor in (1.0, -1 / 3):
            expected = start.clone()
            signed = torch.where(negative, -spread, spread)
            expected[indices] = start[indices] + signed * torch.tensor(factor, dtype=torch.float32)
            for scatter in (scatter_add_signs, scatter_add_signs_torch):
                out = start.clone()
                scatter(indices, pack(negative, 1), scales, segments.offsets(), out, factor)
                assert same_bits(out, expected)


@pytest.mark.parametrize("scale", [0.0, -0.0, 1e-45, 3e38, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("factor", [1.0, -1 / 3, 0.0])
def test_signs_of_every_scale(scale: float, factor: float) -> None:
    negative = torch.arange(40) % 3 == 0
    for start in (torch.zeros(80), torch.full((80,), -0.0), vector(80, 1)):
        # One by one in Python: a product rounded to f32, its sign turned where the bit is set, a sum rounded to f32.
        product = (torch.tensor(scale) * torch.tensor(factor, dtype=torch.float32)).item()
        expected = start.clone()
        for j in range(40):
            signed = torch.tensor(-product if negative[j] else product, dtype=torch.float32)
            expected[2 * j] = expected[2 * j] + signed
        out = start.clone()
        whole = torch.tensor([0, 40])
        scatter_add_signs(2 * torch.arange(40), pack(negative, 1), torch.tensor([scale]), whole, out, factor)
        assert torch.equal(out.isnan(), expected.isnan())
        assert same_bits(out[~out.isnan()], expected[~out.isnan()])


def test_signs_that_do_not_fit_are_refused_and_nothing_is_written() -> None:
    bits, one, whole = torch.zeros(2, dtype=torch.uint8), torch.ones(1), torch.tensor([0, 9])
    for scatter in (scatter_add_signs, scatter_add_signs_torch):
        for indices, given, scales, cut, words in (
            (torch.arange(9).flip(0), bits, one, whole, "ascend strictly"),
            (torch.arange(2, 11), bits, one, whole, "ascend strictly"),
            (torch.arange(9.0), bits, one, whole, "vector of int64"),
            (torch.arange(9), bits[:1], one, whole, "take 2 bytes of uint8"),
            (torch.arange(9), bits, torch.ones(2), whole, "as many float32"),
            (torch.arange(9), bits, one, torch.tensor([0, 8]), "offsets must ascend from 0 to 9"),
        ):
            out = vector(10)
            with pytest.raises(ConfigError, match=words):
                scatter(indices, given, scales, cut, out)
            assert same_bits(out, vector(10))


@pytest.mark.parametrize(
    "indices",
    [[-1, 3], [0, 10], [3, 3], [4, 2], [0, 2**62], [-(2**63), 5], [0, 2**63 - 1, 1], [5, -5, 9], [0, 99, 1]],
)
@pytest.mark.parametrize("scatter", [scatter_add, scatter_add_torch, scatter_write, scatter_write_torch])
def test_indices_out_of_order_or_range_are_refused_and_nothing_is_written(
    scatter: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None], indices: list[int]
) -> None:
    out = vector(10)
    with pytest.raises(ConfigError, match=r"ascend strictly and lie in \[0, 10\)"):
        scatter(torch.tensor(indices), torch.ones(len(indices)), out)
    assert same_bits(out, vector(10))


def test_one_bad_index_among_many() -> None:
    for bad in (0, 1, 50_000, 99_998, 99_999):
        indices, out = torch.arange(100_000), torch.zeros(100_000)
        indices[bad] = 100_000
        with pytest.raises(ConfigError, match="ascend"):
            scatter_add(indices, torch.ones(100_000), out)
        assert not out.any()


def test_shapes_and_dtypes_that_do_not_fit_are_refused() -> None:
    indices, values, out = torch.tensor([1, 2]), torch.ones(2), torch.zeros(4)
    with pytest.raises(ConfigError, match="as many float32"):
        scatter_add(indices, torch.ones(3), out)
    with pytest.raises(ConfigError, match="as many float32"):
        scatter_add(indices, values.double(), out)
    with pytest.raises(ConfigError, match="int64"):
        scatter_add(indices.int(), values, out)
    with pytest.raises(ConfigError, match="contiguous"):
        scatter_write(indices, values, torch.zeros(8)[::2])
    with pytest.raises(ConfigError, match="contiguous"):
        scatter_write(indices, values, out.double())


def test_strided_indices_and_values() -> None:
    out = torch.zeros(10)
    scatter_add(torch.tensor([0, 9, 4, 9, 8])[::2], vector(6)[::2], out)
    assert out.nonzero().view(-1).tolist() == [0, 4, 8]
    assert torch.equal(out[[0, 4, 8]], vector(6)[::2])


@pytest.mark.parametrize("count", COUNTS)
def test_vectors_of_indices_that_meet(count: int) -> None:
    even, odd = 2 * torch.arange(count), 2 * places(count, 20) + 1
    for disjoint in (are_disjoint, are_disjoint_torch):
        assert disjoint(even, odd)
        assert disjoint(even, even + 2 * count)
        if count:
            assert not disjoint(even, even[-1:])
            assert not disjoint(even[:1], even)
            assert not disjoint(odd, torch.cat([even[:1], odd[-1:]]))
    with pytest.raises(ConfigError, match="int64"):
        are_disjoint(even, odd.int())
