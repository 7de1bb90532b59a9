"""Bins (SparseLoCo's values) and 16-bit numbers."""

import itertools
from statistics import NormalDist

import numpy as np
import pytest
import torch

from thinwire.compressors import TopK
from thinwire.compressors.bins import Bins
from thinwire.compressors.half import Half
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import unpack
from thinwire.layout import Segments
from thinwire.payloads import Codebook, Sparse
from thinwire.random import Key


def vector(numel: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, numel).astype(np.float32))


def literal(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The published quantizer, value by value: its codes, and what they are decoded to."""
    num_bins = 2**bits
    shift, scale = x.mean(), 6.0 * x.std(ddof=1) / num_bins
    codes = np.array([min(max(round((value - shift) / scale + num_bins / 2), 0), num_bins - 1) for value in x])
    means = [x[codes == code].mean() if (codes == code).any() else 0.0 for code in range(num_bins)]
    return codes, np.array([means[code] for code in codes])


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("numel", [2, 5, 1000])
def test_bins_are_the_published_ones(bits: int, numel: int) -> None:
    x = vector(numel)
    payload = Bins(bits).compress(x, Key(0), Segments.whole(numel))
    codes, values = literal(x.double().numpy(), bits)
    assert unpack(payload.codes, numel, bits).tolist() == codes.tolist()
    assert np.allclose(payload.to_dense().double().numpy(), values, rtol=1e-6, atol=0)
    assert bool((payload.table.diff() >= 0).all())


def test_bins_far_from_zero_are_as_wide_as_elsewhere() -> None:
    x = 1000.0 + torch.randint(-40, 41, (5000,), generator=torch.Generator().manual_seed(3)) * 2.0**-13
    payload = Bins(2).compress(x, Key(0), Segments.whole(5000))
    codes, _ = literal(x.double().numpy(), 2)
    assert unpack(payload.codes, 5000, 2).tolist() == codes.tolist()


def test_bins_of_nothing_one_value_and_equal_values() -> None:
    for x in (torch.empty(0), torch.tensor([-3.0]), torch.full((9,), 2.5), torch.zeros(4)):
        assert torch.equal(Bins(2).compress(x, Key(0), Segments.whole(len(x))).to_dense(), x)


def test_bins_contract_as_promised() -> None:
    gaussian = torch.from_numpy(np.random.default_rng(1).standard_normal(100_000).astype(np.float32))
    sent = Bins(2).compress(gaussian, Key(0), Segments.whole(100_000)).to_dense()
    # The bins end at -2.25, -.75 and .75 standard deviations.
    ends, normal = (-40.0, -2.25, -0.75, 0.75, 40.0), NormalDist()
    cells = [(normal.pdf(a) - normal.pdf(b), normal.cdf(b) - normal.cdf(a)) for a, b in itertools.pairwise(ends)]
    exact = 1 - sum(first**2 / mass for first, mass in cells)
    assert exact == pytest.approx(0.179, abs=5e-4)
    assert float((sent - gaussian).square().sum() / gaussian.square().sum()) == pytest.approx(exact, rel=0.02)
    for bits in (2, 3, 4, 5, 6):
        for numel in (2, 3, 10, 100):
            spike = torch.zeros(numel)
            spike[0] = 1.0
            for x in (
                vector(numel, bits),
                spike,
                torch.arange(numel).float() - 5,
                torch.arange(numel).float() - (numel - 1) / 2,
                vector(numel, 9) ** 5,
            ):
                sent = Bins(bits).compress(x, Key(0), Segments.whole(numel)).to_dense().double()
                error = (sent - x.double()).square().sum()
                assert float(error) <= Bins(bits).traits(numel).error * float(x.double().square().sum()) + 1e-9


def test_sparse_loco_takes_two_bits_a_value_and_one_table() -> None:
    numel = 4096 * 16
    operator = TopK(k=64, values=Bins(2))
    payload = operator.compress(vector(numel), Key(0), Segments.uniform(numel, 4096))
    assert isinstance(payload, Sparse)
    values = payload.values
    assert isinstance(values, Codebook)
    kept = 64 * 16
    assert payload.indices.numel() == kept
    assert values.codes.numel() * 8 == 2 * kept
    assert (values.table.numel(), values.scales.numel()) == (4, 1)
    # As published, with 12 bits for an index in its chunk.
    assert (kept * (12 + 2)) / numel == pytest.approx(0.219, abs=5e-4)


def test_the_nearest_16_bit_number() -> None:
    x = torch.cat([vector(5000), torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, -0.0, 3.4e38, -3.4e38])])
    sent = Half().compress(x, Key(0), Segments.whole(len(x))).to_dense()
    assert bool(sent.isfinite().all())
    assert sent[-5:-2].tolist() == [1.0, 1 + 2.0**-6, 0.0]
    assert bool((sent.view(torch.int32) & 0xFFFF == 0).all())
    # No number of 16 bits is nearer.
    for neighbour in (-0x10000, 0x10000):
        other = (sent[:5000].view(torch.int32) + neighbour).view(torch.float32)
        assert bool(((sent[:5000] - x[:5000]).abs() <= (other - x[:5000]).abs()).all())
    worst = torch.tensor([1 + 2.0**-8])
    error = (Half().compress(worst, Key(0), Segments.whole(1)).to_dense() - worst).square() / worst.square()
    assert float(error) == pytest.approx(Half().traits(1).error, rel=1e-5)
    assert Half("f16").compress(torch.tensor([1e6, 1.0009765625]), Key(0), Segments.whole(2)).to_dense().tolist() == [
        65504.0,
        1.0009765625,
    ]


def test_stochastic_rounding_is_unbiased_with_its_variance() -> None:
    numel = 200_000
    for above in (0.25, 0.5, 2.0**-16, 1 - 2.0**-16):
        value = 1.0 + above * 2.0**-7
        x = torch.full((numel,), value)
        sent = Half("bf16", "stochastic").compress(x, Key(1), Segments.whole(numel)).to_dense().double()
        assert set(sent.tolist()) <= {1.0, 1.0 + 2.0**-7}
        share = float((sent > 1.0).double().mean())
        assert abs(share - above) < 6 * (above * (1 - above) / numel) ** 0.5 + 1e-12
        variance = above * (1 - above) * 2.0**-14 / value**2
        assert variance <= Half("bf16", "stochastic").traits(1).error
    exact = torch.tensor([1.0, -2.5, 0.0])
    assert torch.equal(Half("bf16", "stochastic").compress(exact, Key(0), Segments.whole(3)).to_dense(), exact)


def test_bad_arguments_are_refused() -> None:
    for bits in (1, 9):
        with pytest.raises(ConfigError, match="bits"):
            Bins(bits)
    with pytest.raises(ConfigError, match="format"):
        Half("f8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rounding"):
        Half(rounding="up")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stochastic"):
        Half("f16", "stochastic")
