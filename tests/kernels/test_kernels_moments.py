"""Sums, squares and largest magnitudes in one pass, and sums below bounds with few passes."""

import pytest
import torch

from thinwire.kernels.reduce.moments import segment_moments, segment_moments_torch
from thinwire.kernels.sample import probabilities
from thinwire.kernels.sample.probabilities import density_bounds, variance_bounds

CUTS = ([0], [1], [7], [63, 64, 65], [4096], [70_001, 0, 13], [2_100_000, 5])


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("sizes", CUTS, ids=str)
def test_kernel_and_twin_and_definition_agree(sizes: list[int], num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    x = torch.randn(int(offsets[-1]), generator=torch.Generator().manual_seed(len(sizes))) ** 3
    ours, twin = segment_moments(x, offsets), segment_moments_torch(x, offsets)
    for name in ("sums", "squares", "largest"):
        assert getattr(ours, name).numpy().tobytes() == getattr(twin, name).numpy().tobytes()
    for number, part in enumerate(torch.split(x, sizes)):
        if part.numel():
            assert float(ours.sums[number]) == pytest.approx(float(part.double().sum()), rel=1e-9, abs=1e-6)
            assert float(ours.squares[number]) == pytest.approx(float(part.double().square().sum()), rel=1e-12)
            assert float(ours.largest[number]) == float(part.abs().max())


@pytest.mark.parametrize("kind", ["heavy", "even", "spike"])
def test_bounds_with_few_passes_are_those_of_many(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = torch.tensor([0, 300_000, 700_000])
    x = torch.randn(700_000, generator=torch.Generator().manual_seed(0))
    x = {"heavy": x**3, "even": x.sign(), "spike": x.clone()}[kind]
    if kind == "spike":
        x[61 * 1000] = 1e6  # one that is in the sample, which is misled
    zeros = torch.zeros(2)

    def bounds() -> list[torch.Tensor]:
        found = [variance_bounds(x, offsets, variance) for variance in (0.1, 1.0, 30.0)]
        return found + [density_bounds(x, offsets, zeros, density, 2) for density in (0.01, 0.2, 0.9)]

    few = bounds()
    monkeypatch.setattr(probabilities, "_LONG", 1 << 60)
    for one, other in zip(few, bounds(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6)
