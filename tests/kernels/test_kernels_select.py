import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.errors import ConfigError
from thinwire.kernels.select.top_k import top_k, top_k_torch

pytestmark = pytest.mark.usefixtures("short_is_shared")

SIZES = (0, 1, 7, 63, 64, 65, 4096, 9001)


def by_sorting(x: torch.Tensor, offsets: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    magnitudes = np.abs(x.numpy())
    chosen = []
    for start, end, count in zip(offsets[:-1].tolist(), offsets[1:].tolist(), counts.tolist(), strict=True):
        order = np.lexsort((np.arange(start, end), -magnitudes[start:end]))
        chosen.append(np.sort(order[:count]) + start)
    return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *chosen]))


def vectors(size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(size, generator=generator)
    signs = torch.randint(-2, 3, (size,), generator=generator).float()
    infinite = noise.clone()
    infinite[::5] = float("inf")
    mixed_zeros = torch.zeros(size)
    mixed_zeros[1::2] = -0.0
    return [noise, signs, torch.full((size,), -2.5), mixed_zeros, noise * 1e-42, noise**21, infinite]


def cuts(size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    borders = torch.randint(0, size + 1, (9,), generator=generator).sort().values
    whole = torch.tensor([0, size])
    return [whole, torch.cat([whole[:1], borders, whole[1:]])]


@pytest.mark.parametrize("size", SIZES)
def test_kernel_and_twin_select_what_sorting_does(size: int) -> None:
    for x in vectors(size):
        for offsets in cuts(size):
            sizes = offsets.diff()
            for counts in (sizes * 0, sizes.clamp(max=1), (sizes * 0.01).ceil().long(), sizes // 2, sizes):
                expected = by_sorting(x, offsets, counts)
                assert torch.equal(top_k(x, offsets, counts), expected)
                assert torch.equal(top_k_torch(x, offsets, counts), expected)


@pytest.mark.parametrize("kind", ["noise", "equal", "periodic", "hidden", "nan"])
def test_a_segment_that_is_sampled(kind: str) -> None:
    size = 600_000
    x = torch.randn(size, generator=torch.Generator().manual_seed(1))
    if kind == "equal":
        x.fill_(1.0)
    elif kind == "periodic":
        x[::16] *= 1000
    elif kind == "hidden":
        # The sample sees zeros almost surely: the bound lets everything pass, and the exact path must take over.
        x.zero_()[123_456:123_500] = 1.0
    offsets = torch.tensor([0, size])
    for count in (1, 600, 6000, 37_500, 60_000, 599_999):
        counts = torch.tensor([count])
        if kind == "nan":
            assert top_k(x * float("nan"), offsets, counts).tolist() == list(range(count))
        else:
            assert torch.equal(top_k(x, offsets, counts), by_sorting(x, offsets, counts))


def test_many_tiny_segments() -> None:
    sizes = torch.arange(3000) % 11
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    x = torch.randint(-5, 6, (int(offsets[-1]),), generator=torch.Generator().manual_seed(2)).float()
    counts = sizes // 3
    assert torch.equal(top_k(x, offsets, counts), top_k_torch(x, offsets, counts))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=True)), st.data())
def test_any_floats(values: list[float], data: st.DataObject) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    count = data.draw(st.integers(0, len(values)))
    arguments = (x, torch.tensor([0, len(values)]), torch.tensor([count]))
    assert torch.equal(top_k(*arguments), top_k_torch(*arguments))


def test_refuses_counts_and_offsets_that_cannot_be() -> None:
    x, offsets = torch.zeros(4), torch.tensor([0, 4])
    for counts in (torch.tensor([5]), torch.tensor([-1]), torch.tensor([1, 1]), torch.tensor([1.0])):
        with pytest.raises(ConfigError, match="count"):
            top_k(x, offsets, counts)
    for wrong in (torch.tensor([0, 3]), torch.tensor([1, 4]), torch.tensor([0, 3, 2, 4])):
        with pytest.raises(ConfigError, match="offsets"):
            top_k(x, wrong, torch.ones(wrong.numel() - 1, dtype=torch.int64))
    with pytest.raises(ConfigError, match="float32"):
        top_k(x.double(), offsets, torch.tensor([1]))
