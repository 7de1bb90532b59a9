"""What is called linear adds up: with one key the sum of messages is the message of the sum."""

from typing import Any

import pytest
import torch

from thinwire.compressors import QSGD, BlockRandK, Compressor, Identity, Sign, Threshold, TopK
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.random import Key


def difference(compressor: Compressor, numel: int) -> float:
    x, y = torch.randn(2, numel, generator=torch.Generator().manual_seed(numel))
    sent = [compressor.compress(part, Key(3), Segments.whole(numel)).to_dense() for part in (x, y, x + y)]
    return float((sent[0] + sent[1] - sent[2]).abs().max())


def test_linear_operators_add_up(compressor: Any) -> None:
    for numel in (7, 64, 1000):
        if compressor.traits(numel).linear:
            try:
                assert difference(compressor, numel) < 1e-5
            except ConfigError:
                assert compressor.k > numel


@pytest.mark.parametrize(
    "chosen",
    [Threshold(density=0.1), Threshold(threshold=1.0), TopK(density=0.1), Sign(), QSGD(levels=7),
     BlockRandK(density=0.1, values=Sign())],
    ids=str,
)  # fmt: skip
def test_what_chooses_by_magnitude_or_rounds_does_not(chosen: Compressor) -> None:
    assert not chosen.traits(1000).linear
    assert difference(chosen, 1000) > 1e-3


def test_the_identity_is_linear() -> None:
    assert Identity().traits(5).linear
