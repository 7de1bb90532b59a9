from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.select.accumulate import (
    accumulate_take,
    accumulate_take_torch,
    accumulate_top_k,
    accumulate_top_k_torch,
)
from thinwire.kernels.select.top_k import top_k, top_k_entries

pytestmark = pytest.mark.usefixtures("short_is_shared")

SIZES = (0, 1, 7, 63, 64, 65, 255, 256, 257, 4096, 9001)
LARGE = 400_003


@pytest.fixture(params=[(1, True), (2, True), (3, True), (3, False)], ids=["1", "2", "3", "3, others never come"])
def num_threads(request: pytest.FixtureRequest) -> int:
    number, others_come = request.param
    torch.set_num_threads(number)
    if not others_come:
        request.getfixturevalue("others_never_come")
    return int(number)


def bits(x: torch.Tensor) -> torch.Tensor:
    """NaN for NaN, else bit for bit."""
    return torch.where(x.isnan(), torch.tensor(0x7FC00000, dtype=torch.int32), x.view(torch.int32))


def by_sorting(u: np.ndarray, offsets: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    # Infinity for 1e39, so that NaN can be above it.
    magnitudes = np.minimum(np.abs(u.astype(np.float64)), 1e39)
    magnitudes[np.isnan(u)] = 1e40
    chosen = [np.empty(0, np.int64)]
    for start, end, count in zip(offsets[:-1].tolist(), offsets[1:].tolist(), counts.tolist(), strict=True):
        chosen.append(np.sort(np.argsort(-magnitudes[start:end], stable=True)[:count]) + start)
    return torch.from_numpy(np.concatenate(chosen))


def check(x: torch.Tensor, residual: torch.Tensor, decay: float, offsets: torch.Tensor, counts: torch.Tensor) -> None:
    with np.errstate(all="ignore"):
        u = np.float32(decay) * residual.numpy() + x.numpy()
    expected = by_sorting(u, offsets, counts)
    for place in ("third", "x", "residual"):
        a, b = x.clone(), residual.clone()
        out = {"third": torch.full_like(x, 9.0), "x": a, "residual": b}[place]
        indices, values = accumulate_top_k(a, b, decay, out, offsets, counts)
        assert torch.equal(indices, expected)
        assert torch.equal(bits(out), bits(torch.from_numpy(u)))
        assert torch.equal(bits(values), bits(out[indices]))
        assert place == "x" or torch.equal(bits(a), bits(x))
        assert place == "residual" or torch.equal(bits(b), bits(residual))


def vectors(size: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(size, generator=generator)
    heavy = noise**5
    clustered = noise.clone()
    clustered[size // 3 : size // 3 + size // 50] *= 1000
    mixed = noise.clone()
    mixed[::7] = float("inf")
    mixed[3::11] = float("nan")
    hidden = torch.zeros(size)
    hidden[size // 5 : size // 5 + 40] = 1.0
    strided = noise.clone()
    strided[::16] *= 1000
    return {
        "noise": noise,
        "heavy": heavy,
        "clustered": clustered,
        "mixed": mixed,
        "hidden": hidden,
        "strided": strided,
        "zero": torch.zeros(size),
        "equal": torch.full((size,), -2.5),
        "denormal": noise * 1e-42,
        "ascending": noise.sort().values.abs() + torch.arange(size) * 1e-3,
        "descending": (noise.sort().values.abs() + torch.arange(size) * 1e-3).flip(0),
        "few values": torch.randint(-2, 3, (size,), generator=generator).float(),
    }


@pytest.mark.parametrize("size", SIZES)
def test_adds_and_selects_what_sorting_does(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    borders = torch.randint(0, size + 1, (9,), generator=generator).sort().values
    whole = torch.tensor([0, size])
    residual = torch.randn(size, generator=generator)
    for x in vectors(size).values():
        for offsets in (whole, torch.cat([whole[:1], borders, whole[1:]])):
            sizes = offsets.diff()
            for counts in (sizes * 0, sizes.clamp(max=1), (sizes + 99) // 100, sizes // 2, sizes):
                check(x, residual * 0.0, 1.0, offsets, counts)
                check(x, residual, 0.95, offsets, counts)


@pytest.mark.parametrize("kind", list(vectors(1)))
def test_a_large_segment(kind: str, num_threads: int) -> None:
    x = vectors(LARGE)[kind]
    residual = torch.zeros(LARGE)
    offsets = torch.tensor([0, LARGE])
    for count in (1, 4000, 19_000):
        check(x, residual, 1.0, offsets, torch.tensor([count]))


@pytest.mark.parametrize("count", [0, 200_000, LARGE])
def test_a_large_segment_of_which_all_or_nothing_is_kept(count: int, num_threads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, residual = torch.randn(LARGE, generator=generator), torch.randn(LARGE, generator=generator)
    check(x, residual, 0.9, torch.tensor([0, LARGE]), torch.tensor([count]))


def test_segments_of_all_sizes(num_threads: int) -> None:
    sizes = torch.tensor([0, 300_000, 1, 64, 2000, 65, 70_000, 400_000, 3, 0, 66_000, *[512] * 100, 5, *[17] * 200, 0])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    generator = torch.Generator().manual_seed(3)
    x, residual = torch.randn(2, int(offsets[-1]), generator=generator)
    # All that is large in one segment.
    x[offsets[7] : offsets[8]] *= 50
    for counts in ((sizes + 99) // 100, sizes.clamp(max=2), sizes // 10):
        check(x, residual, 0.5, offsets, counts)


def test_twins_agree() -> None:
    generator = torch.Generator().manual_seed(5)
    x, residual = torch.randn(2, 5000, generator=generator)
    arguments = (torch.tensor([0, 10, 5000]), torch.tensor([3, 77]))
    for decay in (1.0, 0.95):
        one, other = torch.empty(5000), torch.empty(5000)
        results = accumulate_top_k(x, residual, decay, one, *arguments)
        expected = accumulate_top_k_torch(x, residual, decay, other, *arguments)
        assert torch.equal(one, other)
        assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))


def test_entries_come_with_the_indices(num_threads: int) -> None:
    x = torch.randn(LARGE, generator=torch.Generator().manual_seed(6))
    arguments = (x, torch.tensor([0, 5000, LARGE]), torch.tensor([50, 4000]))
    indices, values = top_k_entries(*arguments)
    assert torch.equal(indices, top_k(*arguments))
    assert torch.equal(values, x[indices])


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1024, 4096, LARGE])
def test_takes_entries_of_the_sum(size: int, num_threads: int) -> None:
    generator = torch.Generator().manual_seed(size)
    x, residual = torch.randn(2, size, generator=generator)
    chosen = torch.rand(size, generator=generator) < 0.3
    for indices in (chosen.nonzero().squeeze(1), torch.arange(size), torch.arange(0)):
        expected = torch.empty(size)
        taken = accumulate_take_torch(x, residual, 0.9, expected, indices)
        for place in ("third", "x", "residual"):
            a, b = x.clone(), residual.clone()
            out = {"third": torch.empty(size), "x": a, "residual": b}[place]
            assert torch.equal(accumulate_take(a, b, 0.9, out, indices), taken)
            assert torch.equal(out, expected)


def test_calls_at_the_same_time_do_not_disturb_each_other() -> None:
    generator = torch.Generator().manual_seed(8)
    rows = list(torch.randn(8, 300_000, generator=generator))
    arguments = (torch.tensor([0, 300_000]), torch.tensor([3000]))
    expected = [top_k(row, *arguments) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda row: top_k(row, *arguments), rows))
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_refuses_vectors_that_do_not_fit() -> None:
    x, offsets, counts = torch.zeros(4), torch.tensor([0, 4]), torch.tensor([1])
    with pytest.raises(ConfigError, match="one length"):
        accumulate_top_k(x, torch.zeros(3), 1.0, x, offsets, counts)
    with pytest.raises(ConfigError, match="float32"):
        accumulate_top_k(x, x.double(), 1.0, x, offsets, counts)
    with pytest.raises(ConfigError, match="contiguous"):
        accumulate_top_k(x, x, 1.0, torch.zeros(8)[::2], offsets, counts)
    with pytest.raises(ConfigError, match="counts"):
        accumulate_top_k(x, x, 1.0, x, offsets, torch.tensor([1, 2]))
    for indices in (torch.tensor([1, 1]), torch.tensor([-1]), torch.tensor([4]), torch.tensor([1.0])):
        with pytest.raises(ConfigError, match="indices"):
            accumulate_take(x, x, 1.0, x, indices)
