"""The mean of many payloads, over vectors of several blocks."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError, ProtocolError, WireError
from thinwire.exchanges.reading import MessageReader
from thinwire.kernels.bitpack.bits import pack
from thinwire.kernels.quantize.codes_mean import Codes, add_codes, add_codes_torch
from thinwire.kernels.sparse.blocks import BLOCK, add_blocks, add_blocks_torch, cut_places, cut_places_torch
from thinwire.layout import Segments
from thinwire.payloads import Concat, Dense, Levels, Payload, Signs, Sparse
from thinwire.payloads.mean import mean_of
from thinwire.wire import encode

NUMEL = 9 * BLOCK + 77
ODD = (math.nan, math.inf, -math.inf, -0.0, 1e-45, -1e-45, 3e38, 3e38)


@pytest.fixture(params=[1, 2], autouse=True)
def _num_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(1)


def sparse(seed: int, count: int, start: int = 0, stop: int = NUMEL, odd: bool = False) -> Sparse:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(stop - start, generator=generator)[:count].sort().values + start
    values = torch.randn(indices.numel(), generator=generator) ** 5
    for place, number in enumerate(ODD[: values.numel() if odd else 0]):
        values[place] = number
    return Sparse(NUMEL, indices, Dense(values))


def signs(seed: int, numel: int, segments: Segments | None = None) -> Signs:
    generator = torch.Generator().manual_seed(seed)
    cut = segments or Segments.whole(numel)
    bits = pack(torch.randint(0, 2, (numel,), generator=generator), 1)
    return Signs(bits, torch.randn(cut.count, generator=generator), cut)


def levels(seed: int, num_levels: int, segments: Segments, coding: Literal["packed", "entropy"] = "packed") -> Levels:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2 * num_levels + 1, (NUMEL,), generator=generator)
    width = (2 * num_levels).bit_length()
    return Levels(pack(codes, width), torch.randn(segments.count, generator=generator), num_levels, segments, coding)


def signed(seed: int, count: int) -> Sparse:
    kept = sparse(seed, count)
    return Sparse(NUMEL, kept.indices, signs(seed, count, Segments.uniform(count, 13)))


def one_after_another(payloads: list[Payload]) -> Tensor:
    total = torch.zeros(NUMEL)
    for payload in payloads:
        total += payload.to_dense()
    return total / torch.tensor(float(max(1, len(payloads))))


BUCKETS, UNEVEN = Segments.uniform(NUMEL, 512), Segments.of_sizes([0, 1000, 0, NUMEL - 1001, 1])
CASES: dict[str, list[Payload]] = {
    "nobody": [],
    "nothing": [sparse(0, 0)],
    "nothing, thrice": [sparse(0, 0), sparse(1, 0), sparse(2, 0)],
    "in one block only": [sparse(seed, 50, BLOCK, 2 * BLOCK) for seed in range(3)],
    "in the last block only": [sparse(seed, 5, 9 * BLOCK) for seed in range(3)],
    "at the borders": [
        Sparse(NUMEL, torch.tensor([0, BLOCK - 1, BLOCK, 2 * BLOCK, NUMEL - 1]), Dense(torch.arange(5.0)))
    ] * 2,
    "odd values": [sparse(seed, 9000, odd=True) for seed in range(2)],
    "of many": [sparse(seed, 300 * (seed % 3)) for seed in range(64)],
    "more than there is room for": [sparse(seed, NUMEL // 9 + seed) for seed in range(15)],
    "neither few nor all": [sparse(seed, NUMEL // 2) for seed in range(3)],
    "signs of few": [signed(seed, 3000) for seed in range(3)],
    "in parts": [Concat((Sparse(NUMEL - 2, torch.tensor([3, BLOCK]), Dense(torch.ones(2))), Dense(torch.ones(2))))] * 2,
    "levels": [levels(seed, num, BUCKETS) for seed, num in enumerate((1, 2, 3, 7, 127))],
    "levels, cut anywhere": [levels(seed, num, UNEVEN) for seed, num in enumerate((1, 7, 30))],
    "wide levels": [levels(seed, 1000, BUCKETS) for seed in range(2)],
    "levels that take memory": [levels(seed, 127, BUCKETS, "entropy") for seed in range(6)],
    "signs of all": [signs(seed, NUMEL, cut) for seed, cut in enumerate((BUCKETS, UNEVEN, Segments.whole(NUMEL)))],
    "of all kinds": [
        sparse(0, 100), signs(1, NUMEL), levels(2, 7, BUCKETS), Dense(torch.ones(NUMEL)), signed(3, 20), sparse(4, 9),
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mean_has_the_bits_of_one_after_another(case: str) -> None:
    payloads = CASES[case]
    mean, finite = mean_of(iter(payloads), NUMEL, max(1, len(payloads)))
    expected = one_after_another(payloads)
    assert mean.numpy().tobytes() == expected.numpy().tobytes()
    assert finite == bool(torch.isfinite(expected).all())


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("case", ["nothing", "in one block only", "at the borders", "odd values", "of many"])
def test_blocks_and_twin_are_the_sum_in_order(case: str, fresh: bool) -> None:
    given = [(each.indices, each.kept()) for each in CASES[case] if isinstance(each, Sparse)]
    num = sum(indices.numel() for indices, _ in given)
    places, twins = torch.empty(num, dtype=torch.int16), torch.empty(num, dtype=torch.int16)
    before, start = [], 0
    for indices, _ in given:
        part = slice(start, start + indices.numel())
        before.append(start + cut_places(indices, NUMEL, places[part]))
        assert before[-1].equal(start + cut_places_torch(indices, NUMEL, twins[part]))
        start = part.stop
    assert places.equal(twins)
    out = torch.linspace(-1.0, 1.0, NUMEL)
    twin, expected = out.clone(), torch.zeros(NUMEL) if fresh else out.clone()
    for indices, values in given:
        expected[indices] += values
    expected /= torch.tensor(3.0)
    values = torch.cat([each for _, each in given])
    assert add_blocks(torch.stack(before), places, values, out, fresh, 3) == bool(torch.isfinite(expected).all())
    assert add_blocks_torch(torch.stack(before), places, values, twin, fresh, 3) == bool(torch.isfinite(expected).all())
    assert out.numpy().tobytes() == expected.numpy().tobytes() == twin.numpy().tobytes()


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("case", ["levels", "levels, cut anywhere", "signs of all"])
def test_codes_and_twin_are_the_sum_in_order(case: str, fresh: bool) -> None:
    parts = []
    for each in CASES[case]:
        match each:
            case Signs(bits, scales, segments):
                parts.append(Codes(bits, scales, segments.offsets()))
            case Levels(codes, _, num_levels, segments):
                parts.append(Codes(codes, each.units(), segments.offsets(), num_levels))
    out = torch.linspace(-1.0, 1.0, NUMEL)
    twin, expected = out.clone(), torch.zeros(NUMEL) if fresh else out.clone()
    for payload in CASES[case]:
        expected += payload.to_dense()
    expected /= torch.tensor(7.0)
    assert add_codes(parts, out, fresh, 7)
    assert add_codes_torch(parts, twin, fresh, 7)
    assert out.numpy().tobytes() == expected.numpy().tobytes() == twin.numpy().tobytes()


def test_a_place_behind_the_last_entry_is_refused() -> None:
    before, out = torch.tensor([[0, 0, 1]]), torch.zeros(BLOCK + 4)
    for place, fits in ((3, True), (4, False), (-1, False)):
        given = before, torch.tensor([place], dtype=torch.int16), torch.ones(1), out, True, 1
        if fits:
            assert add_blocks(*given)
        else:
            with pytest.raises(ConfigError, match="last block"):
                add_blocks(*given)


@pytest.mark.parametrize("indices", [[3, 3], [5, 4], [-1, 3], [NUMEL]])
def test_indices_that_cannot_be_are_refused(indices: list[int]) -> None:
    wrong = Sparse(NUMEL, torch.tensor(indices), Dense(torch.ones(len(indices))))
    with pytest.raises(ConfigError, match="ascend strictly"):
        mean_of([sparse(0, 10), wrong], NUMEL, 2)
    with pytest.raises(ConfigError, match="ascend strictly"):
        cut_places_torch(wrong.indices, NUMEL, torch.empty(len(indices), dtype=torch.int16))


@pytest.mark.parametrize("divisor", [0, 2**24])
@pytest.mark.parametrize("case", ["of many", "levels", "neither few nor all"])
def test_another_divisor_is_refused(case: str, divisor: int) -> None:
    with pytest.raises(ConfigError, match="divisor of"):
        mean_of(CASES[case], NUMEL, divisor)


@pytest.mark.parametrize("case", ["of many", "levels", "signs of all", "of all kinds"])
def test_a_damaged_message_is_refused_as_it_is_alone(case: str) -> None:
    reader = MessageReader(NUMEL)
    messages = [encode(each) for each in CASES[case]]
    for rank in (0, len(messages) - 1):
        damaged = messages[rank].clone()
        damaged[damaged.numel() // 2] ^= 1
        with pytest.raises(WireError) as alone:
            reader.part(damaged, f"the message of worker {rank}")
        with pytest.raises(WireError) as found:
            reader.mean([damaged if each == rank else message for each, message in enumerate(messages)])
        assert str(found.value) == str(alone.value)
        shorter = [encode(Dense(torch.ones(5))) if each == rank else message for each, message in enumerate(messages)]
        with pytest.raises(ProtocolError, match=f"the message of worker {rank} stands for a vector of 5 entries"):
            reader.mean(shorter)


def test_sums_do_not_depend_on_what_was_in_memory() -> None:
    for _ in range(3):
        found = mean_of(CASES["of many"], NUMEL, 1)[0]
        assert found.numpy().tobytes() == (one_after_another(CASES["of many"]) * 64).numpy().tobytes()
        found.fill_(np.nan)
