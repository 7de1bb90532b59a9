"""Entries counted and summed in even bins: against the definition, and against the twin bit for bit."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.quantize.bins import fill_bins, fill_bins_torch

SIZES = (0, 1, 7, 63, 64, 65, 4096, 4099, 2**16 - 1, 2**16 + 1, 2**20 + 5)
WIDTHS = (1, 2, 3, 4, 7, 8)


def vector(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(size)) ** 3


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_the_twins_agree_bit_for_bit(size: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    for width in WIDTHS:
        own, twin = (fill(vector(size), 0.1, 0.3, width) for fill in (fill_bins, fill_bins_torch))
        for one, other in zip(own, twin, strict=True):
            assert one.dtype == other.dtype
            assert one.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("width", WIDTHS)
def test_bins_hold_what_the_definition_says(width: int) -> None:
    x, num_bins = vector(10_000), 2**width
    codes, counts, sums = fill_bins(x, -0.2, 0.7, width)
    values = x.double().numpy()
    places = np.clip(np.rint((values + 0.2) / 0.7 + num_bins / 2), 0, num_bins - 1).astype(int)
    assert unpack(codes, 10_000, width).tolist() == places.tolist()
    assert counts.tolist() == [int((places == place).sum()) for place in range(num_bins)]
    exact = [math.fsum(values[places == place]) for place in range(num_bins)]
    assert np.allclose(sums.numpy(), exact, rtol=1e-12, atol=1e-12)


def test_what_is_no_number_or_far_away() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, 3e38, -3e38])
    codes, counts, _ = fill_bins(x, 0.0, 1e-300, 2)
    assert unpack(codes, 5, 2).tolist() == [0, 3, 0, 3, 0]
    assert counts.tolist() == [3, 0, 0, 2]
    assert torch.equal(fill_bins_torch(x, 0.0, 1e-300, 2)[0], codes)


def test_a_vector_with_gaps_is_handled_and_other_input_refused() -> None:
    x = vector(2000)
    assert torch.equal(fill_bins(x[::2], 0.0, 1.0, 3)[2], fill_bins(x[::2].contiguous(), 0.0, 1.0, 3)[2])
    with pytest.raises(ConfigError, match="vector of float32"):
        fill_bins(x.half(), 0.0, 1.0, 3)
    for step, width in ((0.0, 2), (math.nan, 2), (1.0, 0), (1.0, 9)):
        with pytest.raises(ConfigError, match="1 to 8 bits"):
            fill_bins(x, 0.0, step, width)
