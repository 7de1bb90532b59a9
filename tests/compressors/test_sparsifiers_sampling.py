"""Sampling with centres, shared supports, blocks, thresholds and combinators."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from thinwire.compressors import QSGD, Identity, RandK, Sign, TopK
from thinwire.compressors.bernoulli import Bernoulli
from thinwire.compressors.block_rand_k import BlockRandK
from thinwire.compressors.combinators import BetterOf, Successive
from thinwire.compressors.fixed_size import FixedSize
from thinwire.compressors.sampled_top_k import SampledTopK
from thinwire.compressors.seeded_rand_k import SharedSeedRandK, common_key
from thinwire.compressors.threshold import Threshold
from thinwire.layout import Segments
from thinwire.payloads import Sparse, Sum
from thinwire.random import Key


def noise(numel: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, numel).astype(np.float32))


def results(operator: Any, x: torch.Tensor, count: int) -> np.ndarray:
    payload = operator.compress(x.repeat(count), Key(9), Segments.uniform(count * x.numel(), x.numel()))
    found: np.ndarray = payload.to_dense().view(count, -1).double().numpy()
    return found


@pytest.mark.parametrize("center", ["zero", "mean"])
def test_mean_squared_errors_of_konecny_and_richtarik_by_expectation_over_all_draws(center: str) -> None:
    x = np.random.default_rng(0).standard_normal(6) + 2
    mu = x.mean() if center == "mean" else 0.0
    d, k, p = 6, 2, 0.3
    subsets = list(itertools.combinations(range(d), k))
    fixed = np.mean(
        [sum(((d / k * x[i] - (d - k) / k * mu if i in s else mu) - x[i]) ** 2 for i in range(d)) for s in subsets]
    )
    assert fixed == pytest.approx((d - k) / k * ((x - mu) ** 2).sum())
    variable = 0.0
    for kept in itertools.product([False, True], repeat=d):
        chance = math.prod(p if each else 1 - p for each in kept)
        y = np.where(kept, x / p - (1 - p) / p * mu, mu)
        variable += chance * ((y - x) ** 2).sum()
    assert variable == pytest.approx((1 / p - 1) * ((x - mu) ** 2).sum())
    # And the operators have these errors.
    vector, count = torch.from_numpy(x.astype(np.float32)), 20_000
    for operator, expected in (
        (FixedSize(k=k, center=center), fixed),  # type: ignore[arg-type]
        (Bernoulli(density=p, center=center), variable),  # type: ignore[arg-type]
    ):
        sent = results(operator, vector, count)
        errors = ((sent - x) ** 2).sum(1)
        assert abs(errors.mean() - expected) < 6 * errors.std() / math.sqrt(count)
        assert (np.abs(sent.mean(0) - x) < 6 * sent.std(0) / math.sqrt(count) + 1e-6).all()


def test_the_shared_seed_draws_what_rand_k_draws() -> None:
    x, segments = noise(1000), Segments.of_sizes([300, 0, 700])
    for unbiased in (False, True):
        plain = RandK(density=0.1, unbiased=unbiased).compress(x, Key(3), segments)
        seeded = SharedSeedRandK(density=0.1, unbiased=unbiased).compress(x, Key(3), segments)
        assert torch.equal(plain.to_dense(), seeded.to_dense())
    assert torch.equal(
        FixedSize(density=0.1).compress(x, Key(3), segments).to_dense(),
        RandK(density=0.1, unbiased=True).compress(x, Key(3), segments).to_dense(),
    )


@pytest.mark.parametrize(
    "operator", [SharedSeedRandK(density=0.05, shared=True), BlockRandK(density=0.05, block=7, shared=True)]
)
def test_sums_over_workers_are_as_sparse_as_one_message(operator: Any) -> None:
    total, supports = torch.zeros(1000), set()
    for rank in range(8):
        sent = operator.compress(
            noise(1000, rank), Key(1, ("exchange", 4, "rank", rank)), Segments.whole(1000)
        ).to_dense()
        supports.add(tuple(sent.nonzero().squeeze(1).tolist()))
        total += sent
    assert len(supports) == 1
    other = operator.compress(noise(1000), Key(1, ("exchange", 5, "rank", 0)), Segments.whole(1000)).to_dense()
    assert tuple(other.nonzero().squeeze(1).tolist()) not in supports
    assert common_key(Key(1, ("a", "rank"))) == Key(1, ("a", "rank"))


@pytest.mark.parametrize("operator", [SharedSeedRandK(k=0.4), TopK(k=0.4)])
def test_ultra_sparsification(operator: Any) -> None:
    x = torch.ones(10)
    errors = ((results(operator, x, 20_000) - 1) ** 2).sum(1)
    assert errors.mean() == pytest.approx((1 - 0.4 / 10) * 10, abs=6 * errors.std() / math.sqrt(20_000))


@pytest.mark.parametrize(("numel", "block"), [(64, 8), (65, 8), (10, 64), (7, 1)])
def test_blocks_are_whole_and_their_error_is_an_equality(numel: int, block: int) -> None:
    x = noise(numel) + 5
    operator = BlockRandK(density=0.3, block=block)
    sent = results(operator, x, 4000)
    for row in sent[:50]:
        for start in range(0, numel, block):
            assert len(set((row[start : start + block] != 0).tolist())) == 1
    exact = x.double().numpy()
    errors = ((sent - exact) ** 2).sum(1)
    expected = operator.traits(numel).error * (exact**2).sum()
    assert abs(errors.mean() - expected) <= 6 * errors.std() / math.sqrt(4000) + 1e-9


def test_a_threshold_keeps_all_that_reaches_it() -> None:
    x, segments = noise(20_000), Segments.of_sizes([5000, 15_000])
    kept = Threshold(threshold=2.0).compress(x, Key(0), segments).to_dense()
    assert torch.equal(kept, torch.where(x.abs() >= 2.0, x, 0.0))
    for seed in range(5):
        payload = Threshold(density=0.01, sample=0.3).compress(x, Key(seed), segments)
        dense = payload.to_dense()
        for part, mine in zip(dense.split([5000, 15_000]), x.split([5000, 15_000]), strict=True):
            least = part[part != 0].abs().min()
            assert torch.equal(part, torch.where(mine.abs() >= least, mine, 0.0))
            assert 0.5 < int((part != 0).sum()) / (0.01 * len(mine)) < 1.7
    assert not Threshold(density=0.5).compress(torch.zeros(9), Key(0), Segments.whole(9)).indices.numel()


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("density", [0.001, 0.01, 0.1])
def test_dgc_selects_at_most_k_and_hardly_fewer_than_four_fifths(density: float, resample: bool) -> None:
    for seed in range(5):
        x = noise(200_000, seed)
        sent = SampledTopK(density=density, resample=resample).compress(x, Key(seed), Segments.whole(200_000))
        target = round(density * 200_000)
        assert 0.8 * target <= sent.indices.numel() <= target
        largest = TopK(density=density).compress(x, Key(0), Segments.whole(200_000)).to_dense()
        ratio = float((sent.to_dense() ** 2).sum() / (largest**2).sum())
        assert 0.7 < ratio <= 1.0 + 1e-6


def test_dgc_cuts_off_a_spike_at_the_end() -> None:
    """Between k and 1.3 k entries reach the threshold: ties here; the first k are sent, the largest is not."""
    x = torch.zeros(100)
    x[:11] = 1.0
    x[99] = 1e6
    sent = SampledTopK(density=0.1).compress(x, Key(0), Segments.whole(100)).to_dense()
    assert sent[99] == 0.0
    assert int((sent != 0).sum()) == 10
    assert SampledTopK(density=0.1).traits(100).error == 1.0


def test_the_better_of_two_is_never_worse_than_either() -> None:
    first, second = TopK(k=3), Sign()
    for seed in range(20):
        x = noise(50, seed) ** (1 if seed % 2 else 3)
        either = BetterOf(first, second).compress(x, Key(0), Segments.whole(50)).to_dense()
        errors = [((c.compress(x, Key(0), Segments.whole(50)).to_dense() - x) ** 2).sum() for c in (first, second)]
        assert ((either - x) ** 2).sum() <= min(errors) * (1 + 1e-6)
    # Its choice makes it biased: of two draws the one nearer to x is taken, which is that of the smaller entry.
    rand = RandK(k=1, unbiased=True)
    assert not BetterOf(rand, rand).traits(2).unbiased
    mean = results(BetterOf(rand, rand), torch.tensor([1.0, 3.0, 2.0]), 2000).mean(0)
    assert mean[0] == pytest.approx(3 * (1 - (2 / 3) ** 2), abs=0.2)


@pytest.mark.parametrize("second", [RandK(k=2), QSGD(levels=4), Sign(), Identity()])
def test_constants_of_successive_operators_multiply(second: Any) -> None:
    first, x = RandK(k=3), noise(12)
    both = Successive(first, second)
    assert both.traits(12).error == first.traits(12).error * second.traits(12).error
    assert both.traits(12).unbiased == second.traits(12).unbiased
    errors = ((results(both, x, 8000) - x.double().numpy()) ** 2).sum(1)
    limit = both.traits(12).error * float((x.double() ** 2).sum())
    assert errors.mean() - 6 * errors.std() / math.sqrt(8000) <= limit + 1e-9
    if isinstance(second, RandK):
        assert errors.mean() == pytest.approx(limit, abs=6 * errors.std() / math.sqrt(8000))


def test_payloads_are_of_the_described_kinds() -> None:
    x, segments = noise(100), Segments.whole(100)
    assert isinstance(Bernoulli(density=0.1).compress(x, Key(0), segments), Sparse)
    assert isinstance(Bernoulli(density=0.1, center="mean").compress(x, Key(0), segments), Sum)
