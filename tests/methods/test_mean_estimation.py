"""The errors of means: what one message is off, over the number of workers, as the papers say."""

import math

import numpy as np
import pytest
import torch
from exchange_cases import Party
from torch import Tensor

from thinwire.compressors import segment_traits
from thinwire.layout import Segments
from thinwire.methods import parse_method

SIZE, NUMEL, DRAWS = 4, 64, 150
VECTORS = torch.randn(SIZE, NUMEL, generator=torch.Generator().manual_seed(4)) + 0.5


def sampled(text: str) -> tuple[Tensor, list[float]]:
    """The mean of the results over draws, and each draw's squared distance from the workers' mean."""
    mean = VECTORS.double().mean(dim=0)
    total, squares = torch.zeros(NUMEL, dtype=torch.float64), []
    for seed in range(DRAWS):
        (found, *_) = Party(parse_method(text), SIZE, NUMEL, seed).exchange(list(VECTORS))
        result = found.mean.double()
        total += result
        squares.append(float((result - mean).square().sum()))
    return total / DRAWS, squares


def rounding(levels: int, width: Tensor) -> float:
    """``sum s^2 / (k-1)^2 f (1 - f)`` over workers: the variance of rounding at random between neighbours."""
    x = VECTORS.double()
    step = width / (levels - 1)
    f = (x - x.amin(dim=1, keepdim=True)) / step
    f = f - f.floor()
    return float((step.square() * f * (1 - f)).sum())


def spans() -> Tensor:
    x = VECTORS.double()
    return x.amax(dim=1, keepdim=True) - x.amin(dim=1, keepdim=True)


CENTRED = float((VECTORS.double() - VECTORS.double().mean(dim=1, keepdim=True)).square().sum())
EXACT = {
    "suresh:levels=2": rounding(2, spans()),
    "suresh:levels=5": rounding(5, spans()),
    "suresh:levels=9,form=variable": rounding(9, math.sqrt(2) * VECTORS.double().norm(dim=1, keepdim=True)),
    "konecny-richtarik:density=12.5%": 7 * CENTRED,
    "konecny-richtarik:density=12.5%,center=zero": 7 * float(VECTORS.double().square().sum()),
    "konecny-richtarik:density=25%,encoder=variable": 3 * CENTRED,
    "konecny-richtarik:encoder=binary": rounding(2, spans()),
}
"""Sums over workers of the exact variance of a message."""


@pytest.mark.parametrize("text", EXACT)
def test_the_error_of_a_mean_is_the_papers(text: str) -> None:
    _, squares = sampled(text)
    expected = EXACT[text] / SIZE**2
    spread = float(np.std(squares)) / math.sqrt(DRAWS)
    assert abs(float(np.mean(squares)) - expected) < 4 * spread < 0.3 * expected


@pytest.mark.parametrize(
    "text", ["suresh:form=rotated,levels=4", "eden", "eden:bits=2", "drive", "natural", "natural:levels=3",
             "konecny-richtarik:encoder=optimal,density=25%"],
)  # fmt: skip
def test_means_are_unbiased_and_within_the_bound(text: str) -> None:
    mean, squares = sampled(text)
    off = float((mean - VECTORS.double().mean(dim=0)).norm())
    # The mean of unbiased draws is off by the root of what one is off, over the root of their number.
    assert off < 1.3 * math.sqrt(float(np.mean(squares)) / DRAWS)
    bound = segment_traits(parse_method(text).compressor, Segments.whole(NUMEL)).error
    assert float(np.mean(squares)) <= bound * float(VECTORS.double().square().sum()) / SIZE**2


def test_a_rotation_and_a_codebook_have_the_errors_of_gaussian_numbers() -> None:
    """``pi/2 - 1`` at one bit and .133 at two, whatever the vectors are."""
    each = float(VECTORS.double().square().sum()) / SIZE**2
    for text, expected in (("eden", math.pi / 2 - 1), ("drive", math.pi / 2 - 1), ("eden:bits=2", 0.133)):
        _, squares = sampled(text)
        assert abs(float(np.mean(squares)) / each - expected) < 0.06 * expected + 0.01
