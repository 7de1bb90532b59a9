"""What every payload promises: ``add_to`` is ``out + scale * to_dense()``, rounded twice."""

import pytest
import torch

from thinwire.compressors import QSGD, RandK, Sign, TopK
from thinwire.layout import Segments
from thinwire.payloads import Payload, Signs
from thinwire.random import Key
from thinwire.wire import decode, encode

NUMEL = 5003
CUTS = (
    Segments.whole(NUMEL),
    Segments.uniform(NUMEL, 512),
    Segments.of_sizes([144, 16, 0, 3001, 1, NUMEL - 3162]),
)
COMPRESSORS = (
    Sign(),
    *[QSGD(levels=levels, norm="max") for levels in (1, 7, 15, 127, 1000)],
    TopK(density=0.05, values=Sign()),
    TopK(density=0.05, values=QSGD(levels=15, scaled=True)),
    RandK(density=0.05, unbiased=True),
)


def payload(compressor: Sign | QSGD | TopK | RandK, cut: Segments) -> Payload:
    x = torch.randn(NUMEL, generator=torch.Generator().manual_seed(0))
    return compressor.compress(x, Key(1), cut)


@pytest.mark.parametrize("cut", CUTS, ids=["whole", "uniform", "sizes"])
@pytest.mark.parametrize("compressor", COMPRESSORS, ids=repr)
def test_add_to_is_the_dense_vector_times_the_scale(compressor: Sign | QSGD | TopK | RandK, cut: Segments) -> None:
    sent = payload(compressor, cut)
    dense = sent.to_dense()
    start = torch.randn(NUMEL, generator=torch.Generator().manual_seed(1))
    for scale in (1.0, -1.0, 1 / 3, 1e-20):
        out = start.clone()
        sent.add_to(out, scale)
        assert torch.equal(out, start + dense * scale)
    assert torch.equal(decode(encode(sent)).to_dense(), dense)


def test_zero_scales_keep_the_sign_of_their_zero() -> None:
    dense = Signs(torch.tensor([0b01], dtype=torch.uint8), torch.zeros(1), Segments.whole(2)).to_dense()
    assert dense.signbit().tolist() == [True, False]


def test_an_empty_vector() -> None:
    for cut in (Segments.whole(0), Segments.of_sizes([]), Segments.of_sizes([0, 0])):
        for compressor in (Sign(), QSGD(levels=3)):
            sent = compressor.compress(torch.empty(0), Key(0), cut)
            sent.add_to(torch.empty(0))
            assert sent.to_dense().shape == (0,)
            assert decode(encode(sent)).numel == 0
