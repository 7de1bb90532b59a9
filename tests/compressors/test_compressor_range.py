"""Finite vectors have finite messages, however large their numbers are, over every registered compressor."""

from typing import Any

import pytest
import torch
from compressor_cases import KEY, compress, cuts
from torch import Tensor

from thinwire.compressors import EDEN, QSGD, LowRank, RandK, Rotate
from thinwire.compressors.base import compress_residual
from thinwire.layout import Segments
from thinwire.payloads.reach import reach
from thinwire.random import Key
from thinwire.wire import decode, encode

MOST = 1.2e38
"""So that the sum of two numbers is finite."""


def inputs(numel: int) -> list[Tensor]:
    noise = torch.randn(numel, generator=torch.Generator().manual_seed(numel))
    spike = torch.zeros(numel)
    spike[numel // 2] = -MOST
    signs = 1.0 - 2.0 * (torch.arange(numel) % 2)
    return [(noise * 1e38).clamp(-MOST, MOST), torch.full((numel,), MOST), signs * MOST, spike]


def is_finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


@pytest.mark.parametrize("numel", [1, 7, 300, 4096])
def test_what_is_finite_stays_finite(compressor: Any, numel: int) -> None:
    for number, x in enumerate(inputs(numel)):
        for segments in cuts(numel) if numel == 300 else cuts(numel)[number % 3 : number % 3 + 1]:
            payload = compress(compressor, x, segments)
            if payload is None:
                continue
            assert is_finite(payload.to_dense())
            assert is_finite(decode(encode(payload)).to_dense())
            out = torch.empty(numel)
            left = compress_residual(compressor, x * 0.5, x * 0.5, 1.0, out, KEY, segments)
            assert is_finite(left.to_dense())
            assert is_finite(out)


def test_no_number_is_larger_than_the_scales_say(compressor: Any) -> None:
    for numel in (7, 300):
        x = inputs(numel)[0] * 1e-30
        for segments in cuts(numel):
            payload = compress(compressor, x, segments)
            if payload is not None:
                assert float(payload.to_dense().abs().max()) <= reach(payload) * (1 + 1e-5)


@pytest.mark.parametrize("norm", ["l2", "max"])
def test_a_norm_beyond_all_numbers_leaves_a_quantizer_unbiased(norm: Any) -> None:
    x, segments = torch.tensor([MOST, -MOST / 3] * 8), Segments.whole(16)
    quantizer = QSGD(levels=3, norm=norm)
    mean = sum(quantizer.compress(x, Key(seed), segments).to_dense().double() for seed in range(4000)) / 4000
    # A level is a third of the largest number, 3.4e38, at most: six standard errors.
    assert float((mean - x.double()).abs().max()) < 6 * 0.5 * 3.5e38 / 3 / 4000**0.5


@pytest.mark.parametrize(
    "shortening",
    [Rotate(values=QSGD(levels=127, norm="max")), EDEN(4.0), LowRank(rank=8)],
    ids=lambda each: type(each).__name__,
)
def test_what_does_not_fit_is_sent_shorter_in_the_same_direction(shortening: Any) -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) * MOST
    if isinstance(shortening, LowRank):
        x = torch.outer(x[:64].sign(), x[:64].sign()).reshape(-1) * MOST
    sent = shortening.compress(x, KEY, Segments.whole(4096)).to_dense().double()
    cosine = float(sent @ x.double() / sent.norm() / x.double().norm())
    assert cosine > 0.95
    assert 0 < float(sent.norm()) <= 1.1 * float(x.double().norm())


def test_entries_that_are_scaled_up_are_clipped() -> None:
    x = torch.tensor([MOST, -MOST, MOST, -MOST, 1.0, 1.0, 1.0, 1.0])
    sent = RandK(k=1, unbiased=True).compress(x, Key(1), Segments.uniform(8, 4)).to_dense()
    assert sorted(sent.abs().tolist())[6] == 4.0
    assert sorted(sent.abs().tolist())[7] == pytest.approx(3.4028e38, rel=1e-4)
