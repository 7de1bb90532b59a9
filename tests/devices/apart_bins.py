"""Triton's kernels that fill even bins, in its interpreter, against the loops on the CPU and the twin in torch."""

import math

import pytest
import torch
from bits import LONG, on_device, same_bits
from torch import Tensor

from thinwire.kernels.quantize import bins, bins_triton

kernels = on_device(bins_triton)

# The interpreter calculates by numpy, which warns of what is not finite.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def entries(numel: int, kind: str = "usual") -> Tensor:
    """Of many magnitudes, with zeros of both signs, ties and denormals."""
    generator = torch.Generator().manual_seed(numel)
    x = torch.randn(numel, generator=generator) * 10.0 ** torch.randint(-3, 3, (numel,), generator=generator)
    x[::7], x[1::7], x[2::11], x[3::11], x[4::13] = 0.0, -0.0, 1e-42, -2.5, 0.5
    if kind == "strange":
        x[5::17], x[6::29], x[7::31], x[8::37] = math.nan, math.inf, -math.inf, 3e38
    return x


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("kind", ["usual", "strange"])
@pytest.mark.parametrize("numel", [0, 1, 3, 63, 64, 65, 1025])
def test_bins_of_one_chunk(numel: int, kind: str, width: int) -> None:
    x = entries(numel, kind)
    # Halves of the second step are ties; the last puts all but zeros at the ends.
    for centre, step in ((0.1, 0.3), (-0.25, 1.0), (0.0, 1e-300)):
        found = kernels.fill_bins(x, centre, step, width)
        for body in (bins.fill_bins, bins.fill_bins_torch):
            assert all(map(same_bits, found, body(x, centre, step, width)))


@pytest.mark.parametrize("numel", [257, 1024, 1500])
def test_bins_of_several_chunks(monkeypatch: pytest.MonkeyPatch, numel: int) -> None:
    """Shorter ones than there are, which the loops on the CPU have compiled in: the twin alone has them, too."""
    monkeypatch.setattr(bins, "CHUNK", 256)
    x = entries(numel)
    assert all(map(same_bits, kernels.fill_bins(x, 0.1, 0.3, 2), bins.fill_bins_torch(x, 0.1, 0.3, 2)))


def test_a_vector_with_gaps() -> None:
    x = entries(1000)
    found = kernels.fill_bins(x[::2], 0.1, 0.3, 3)
    assert all(map(same_bits, found, bins.fill_bins(x[::2].contiguous(), 0.1, 0.3, 3)))


@pytest.mark.parametrize("numel", LONG)
def test_long_ones(numel: int) -> None:
    x = entries(numel)
    assert all(map(same_bits, kernels.fill_bins(x, 0.1, 0.3, 2), bins.fill_bins(x, 0.1, 0.3, 2)))
