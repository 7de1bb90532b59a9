"""The quantizers of the literature: exact variances, worst cases, and where a published claim ends."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compressor_cases import bound_z, draws, inputs

from thinwire.compressors import QSGD, RandK
from thinwire.compressors.k_level import KLevel
from thinwire.compressors.natural import NaturalCompression, NaturalDithering
from thinwire.compressors.one_bit import OneBit
from thinwire.compressors.plain_sign import PlainSign
from thinwire.compressors.rotate import Rotate
from thinwire.compressors.scaled import Scaled
from thinwire.compressors.tern_grad import TernGrad
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.payloads import Concat, Rotated
from thinwire.random import Key

Numbers = np.ndarray[Any, np.dtype[np.float64]]
COUNT = 4000


def neighbours(points: Numbers, x: Numbers) -> tuple[Numbers, Numbers]:
    upper = np.clip(np.searchsorted(points, x, side="left"), 1, len(points) - 1)
    return points[upper - 1], points[upper]


def points_of(operator: Any, x: Numbers) -> Numbers:
    """Where an operator may put the entries of x, signs included, ascending."""
    if isinstance(operator, KLevel):
        span = x.max() - x.min() if operator.span == "range" else math.sqrt(2.0) * np.linalg.norm(x)
        return np.asarray(x.min() + np.arange(operator.levels) * span / (operator.levels - 1))
    if isinstance(operator, TernGrad):
        return np.asarray(np.array([-1.0, 0.0, 1.0]) * np.abs(x).max())
    if isinstance(operator, NaturalCompression):
        positive = 2.0 ** np.arange(-149, 128)
    else:
        norm = np.abs(x).max() if operator.norm == "max" else np.linalg.norm(x)
        positive = norm * 2.0 ** np.arange(1 - operator.levels, 1)
    return np.concatenate([-positive[::-1], [0.0], positive])


UNBIASED = [
    TernGrad(clip=None),
    NaturalCompression(),
    NaturalDithering(levels=1),
    NaturalDithering(levels=5),
    NaturalDithering(levels=5, norm="max"),
    KLevel(levels=2),
    KLevel(levels=5),
    KLevel(levels=300),
    KLevel(levels=9, span="norm", coding="entropy"),
]


@pytest.mark.parametrize("operator", UNBIASED, ids=str)
@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "geometric", "huge"])
def test_mean_and_variance_are_those_of_rounding_to_the_neighbours(operator: Any, kind: str) -> None:
    x = inputs(64)[kind]
    exact = x.double().numpy()
    size = np.abs(exact).max()
    low, high = neighbours(points_of(operator, exact), exact)
    # Every result is a neighbour, and the variance of an unbiased choice between two is (high - x) (x - low).
    variance = (high - exact) * (exact - low)
    results = draws(operator, x, COUNT)
    slack = 1e-6 * size
    assert (np.minimum(np.abs(results - low), np.abs(results - high)) <= slack).all()
    limit = bound_z(1e-6, 64 * len(UNBIASED) * 4)
    often = variance > 1e-3 * (high - low) ** 2  # else too few draws go the other way for a normal mean
    z = np.abs(results.mean(axis=0) - exact) - slack
    assert (z[often] <= limit * np.sqrt(variance[often] / COUNT)).all()
    fourth = ((high - exact) ** 4 * (exact - low) + (exact - low) ** 4 * (high - exact)) / np.where(
        high > low, high - low, 1.0
    )
    spread = math.sqrt((fourth - variance**2).clip(min=0).sum() / COUNT)
    each = ((results - exact) ** 2).sum(axis=1)
    assert abs(each.mean() - variance.sum()) <= limit * spread + 1e-5 * variance.sum() + slack**2 * 64
    assert variance.sum() <= operator.traits(64).error * (exact**2).sum() * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "heavy tails"])
def test_stochastic_binary_has_the_variance_of_the_paper(kind: str) -> None:
    x = inputs(64)[kind].double().numpy()
    low, high = neighbours(points_of(KLevel(levels=2), x), x)
    assert ((high - x) * (x - low)).sum() == pytest.approx(((x.max() - x) * (x - x.min())).sum())


@pytest.mark.parametrize("numel", [2, 7, 64, 1000])
def test_the_worst_cases_of_levels_on_the_range_are_attained(numel: int) -> None:
    x = torch.zeros(numel)
    x[0], x[1] = 1.0, -1.0
    for levels in (2, 4, 16):
        error = KLevel(levels=levels).traits(numel).error
        assert error <= numel / (2 * (levels - 1) ** 2)  # the paper's
        each = ((draws(KLevel(levels=levels), x, 50) - x.double().numpy()) ** 2).sum(axis=1)
        # Zero is in the middle of two points: every result has the same error.
        assert each / 2.0 == pytest.approx(np.full(50, error), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("numel", [4, 64, 1024])
def test_the_worst_case_of_tern_grad_is_attained(numel: int) -> None:
    x = np.ones(numel)
    x[0] = math.sqrt(numel) + 1.0
    omega = x.max() * np.abs(x).sum() / (x**2).sum() - 1.0
    assert omega == pytest.approx((math.sqrt(numel) - 1) / 2)
    assert TernGrad(clip=None).traits(numel).error == pytest.approx(omega)
    each = ((draws(TernGrad(clip=None), torch.from_numpy(x).float(), 2000) - x) ** 2).sum(axis=1) / (x**2).sum()
    assert abs(each.mean() - omega) <= 5.3 * each.std() / math.sqrt(2000) + 1e-6


def test_clipping_makes_tern_grad_biased_and_bounds_its_error() -> None:
    x = inputs(1000)["heavy tails"]
    exact = x.double().numpy()
    clipped = np.clip(exact, -2.5 * exact.std(), 2.5 * exact.std())
    results = draws(TernGrad(), x, 2000)
    scale = np.abs(clipped).max()
    spread = np.sqrt(np.abs(clipped) * (scale - np.abs(clipped)) / 2000) + 1e-6 * scale
    often = np.abs(clipped) > 0.01 * scale  # else too few draws are not 0 for a normal mean
    assert (np.abs(results.mean(axis=0) - clipped) <= 6 * spread)[often].all()  # the mean is the clipped vector
    cut = np.abs(exact) > 3 * exact.std()
    assert cut.any()
    assert (np.abs(results.mean(axis=0) - exact)[cut] > 0.1 * np.abs(exact)[cut]).all()  # and not the vector
    assert not TernGrad().traits(1000).unbiased
    assert TernGrad(clip=None).traits(1000).unbiased
    # A constant vector has no deviation and vanishes, as in the published code.
    assert not TernGrad().compress(torch.full((10,), 3.0), Key(0), Segments.whole(10)).to_dense().any()


@pytest.mark.parametrize("clip", [0.5, 1.0, 2.5, 4.0, 6.0])
def test_no_vector_passes_the_bound_of_clipping(clip: float) -> None:
    generator = np.random.default_rng(0)
    worst = 0.0
    for numel in (2, 16, 400, 10_000):
        for power in np.linspace(0, 6, 60):
            x = generator.choice([-1.0, 1.0], numel) * np.abs(generator.standard_normal(numel)) ** power
            scale = min(clip * x.std(), np.abs(x).max())
            y = np.clip(x, -scale, scale)
            error = ((x - y) ** 2).sum() + scale * np.abs(y).sum() - (y**2).sum()
            worst = max(worst, error / (x**2).sum())
    bound = TernGrad(clip=clip).traits(1).error
    assert worst <= bound
    assert worst > 0.4 * bound


def test_natural_compression_has_an_eighth_at_four_thirds_and_082_on_average() -> None:
    t = np.exp2(np.linspace(0, 1, 200_001)[:-1])
    variance = (2 - t) * (t - 1) / t**2
    assert variance.max() == pytest.approx(1 / 8)
    assert t[variance.argmax()] == pytest.approx(4 / 3, rel=1e-5)
    # The integral of the above over log2 t is 3 / (4 ln 2) - 1.
    assert variance.mean() == pytest.approx(3 / (4 * math.log(2)) - 1, rel=1e-4)
    assert variance.mean() == pytest.approx(0.082, abs=5e-5)
    each = ((draws(NaturalCompression(), torch.full((64,), 4 / 3), 400) - 4 / 3) ** 2).mean(axis=1) / (16 / 9)
    assert abs(each.mean() - 1 / 8) <= 5.3 * each.std() / 20
    many = torch.from_numpy(t).float()
    error = NaturalCompression().compress(many, Key(1), Segments.whole(200_000)).to_dense() - many
    assert float((error.double() ** 2 / many.double() ** 2).mean()) == pytest.approx(0.082, rel=0.02)


@pytest.mark.parametrize("norm", ["l2", "max"])
@pytest.mark.parametrize("levels", [1, 2, 3, 5, 8])
def test_no_vector_passes_the_bound_of_natural_dithering(levels: int, norm: str) -> None:
    operator = NaturalDithering(levels=levels, norm=norm)  # type: ignore[arg-type]
    generator = np.random.default_rng(levels)
    least = 2.0 ** (1 - levels)
    for numel in (2, 16, 400, 10_000):
        error, q = operator.traits(numel).error, math.sqrt(numel) * least
        assert error <= 1 / 8 + q * min(1.0, q)  # the paper's
        found = []
        levelled = [generator.uniform(0, 1.5) * least for _ in range(20)]
        vectors = [np.abs(generator.standard_normal(numel)) ** power for power in np.linspace(0, 6, 30)]
        if norm == "max":
            # A largest entry beside equal ones, at the very worst of heights and around it.
            levelled.append(least / (2 * (1 + error)))
            vectors += [np.concatenate([[1.0], np.full(numel - 1, height)]) for height in levelled]
        for x in vectors:
            ratio = x / (x.max() if norm == "max" else np.linalg.norm(x))
            low, high = neighbours(np.concatenate([[0.0], 2.0 ** np.arange(1 - levels, 1)]), ratio)
            found.append(((high - ratio) * (ratio - low)).sum() / (ratio**2).sum())
        assert max(found) <= error * (1 + 1e-9)
        if norm == "max" and error > 0.125:
            assert max(found) == pytest.approx(error)
        if norm == "l2" and q > 2.25:
            assert max(found) == pytest.approx(error)  # all entries equal


@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "constant", "sparse", "geometric"])
def test_one_bit_has_the_two_means_and_no_split_by_sign_does_better(kind: str) -> None:
    x = inputs(1000)[kind]
    exact = x.double().numpy()
    expected = exact.copy()
    for side in (exact >= 0, exact < 0):
        if side.any():
            expected[side] = exact[side].mean()
    decoded = OneBit().compress(x, Key(0), Segments.whole(1000)).to_dense().double().numpy()
    assert decoded == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(expected).max())
    sign = np.where(exact < 0, -1, 1) * np.abs(exact).mean()
    assert ((decoded - exact) ** 2).sum() <= ((sign - exact) ** 2).sum() * (1 + 1e-6)


def test_one_bit_attains_its_constant() -> None:
    x = torch.zeros(50)
    x[3] = 5.0
    error = (OneBit().compress(x, Key(0), Segments.whole(50)).to_dense() - x).square().sum() / 25.0
    assert float(error) == pytest.approx(OneBit().traits(50).error)


def test_plain_signs_are_no_contraction() -> None:
    x = torch.tensor([0.0, -0.0, 1e-3, -2.0])
    decoded = PlainSign().compress(x, Key(0), Segments.of_sizes([1, 3])).to_dense()
    assert decoded.tolist() == [1.0, 1.0, 1.0, -1.0]
    assert PlainSign().traits(4).gamma == 0.0
    assert PlainSign().traits(4).error == math.inf


CUTS = [
    Segments.whole(1000),
    Segments.uniform(1000, 64),
    Segments.uniform(1000, 100),
    Segments.of_sizes([300, 0, 700]),
    Segments.of_sizes([0, 0]),
    Segments.of_sizes([]),
]


@pytest.mark.parametrize("segments", CUTS, ids=str)
@pytest.mark.parametrize("block", [None, 16])
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_rotation_around_nothing_gives_the_vector_back(segments: Segments, block: int | None, rounds: Any) -> None:
    x = torch.randn(segments.numel, generator=torch.Generator().manual_seed(1))
    fine = KLevel(levels=65536)
    payload = Rotate(values=fine, rounds=rounds, block=block).compress(x, Key(3), segments)
    assert torch.allclose(payload.to_dense(), x, atol=2e-4)
    one = segments.count <= 1 or not x.numel() or (segments.length == 64)
    assert isinstance(payload, Rotated if one else Concat)


@pytest.mark.parametrize("segments", CUTS[1:4], ids=str)
def test_a_rotation_stays_within_its_segment(segments: Segments) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    other = x.clone()
    first = int(segments.offsets()[1])
    other[first:] += 1.0
    a, b = (Rotate(values=KLevel(levels=4)).compress(v, Key(3), segments).to_dense() for v in (x, other))
    assert torch.equal(a[:first], b[:first])
    assert not torch.equal(a[first:], b[first:])


def test_rotation_helps_levels_where_tails_are_heavy() -> None:
    x = inputs(1000)["heavy tails"]
    square = float(x.double().square().sum())
    for levels in (2, 4, 16):
        plain, rotated = KLevel(levels=levels), Rotate(values=KLevel(levels=levels))
        bound = (2 * math.log(512) + 2) / (levels - 1) ** 2
        assert rotated.traits(1000).error == pytest.approx(min(bound, plain.traits(512).error))
        error = [
            ((draws(operator, x, 30) - x.double().numpy()) ** 2).sum(axis=1).mean() for operator in (plain, rotated)
        ]
        assert error[1] < error[0] / 3
        assert error[1] / square <= bound


SCALED = [
    QSGD(levels=3),
    TernGrad(clip=None),
    KLevel(levels=4),
    NaturalCompression(),
    NaturalDithering(levels=3),
    RandK(density=0.2, unbiased=True),
    RandK(density=0.2, unbiased=True, values=QSGD(levels=3)),
    Rotate(values=KLevel(levels=4)),
    Rotate(values=KLevel(levels=4), block=16),
]


@pytest.mark.parametrize("inner", SCALED, ids=str)
def test_scaling_divides_each_segment_by_its_own_omega(inner: Any) -> None:
    for segments in CUTS:
        x = torch.randn(segments.numel, generator=torch.Generator().manual_seed(2)) ** 3
        plain = inner.compress(x, Key(5), segments).to_dense()
        scaled = Scaled(inner=inner).compress(x, Key(5), segments).to_dense()
        sizes = segments.offsets().diff()
        factor = torch.tensor([1.0 / (1.0 + inner.traits(size).error) if size else 1.0 for size in sizes.tolist()])
        expected = plain * factor.repeat_interleave(sizes)
        assert torch.allclose(scaled, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()) if len(x) else 0.0)
    omega = inner.traits(1000).error
    assert Scaled(inner=inner).traits(1000).gamma == pytest.approx(1 / (1 + omega))


def test_settings_that_make_no_sense_are_refused() -> None:
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: Scaled(inner=TernGrad()), "biased"),
        (lambda: Scaled(inner=OneBit()), "biased"),
        (lambda: KLevel(levels=1), "2 to 65536"),
        (lambda: KLevel(levels=4, span="l1"), "l1"),  # type: ignore[arg-type]
        (lambda: KLevel(levels=4, coding="elias"), "elias"),  # type: ignore[arg-type]
        (lambda: NaturalDithering(levels=128), "1 to 127"),
        (lambda: NaturalDithering(levels=4, norm="l1"), "l1"),  # type: ignore[arg-type]
        (lambda: TernGrad(clip=0.0), "0.0"),
        (lambda: TernGrad(coding="none"), "none"),  # type: ignore[arg-type]
        (lambda: Rotate(values=OneBit(), rounds=3), "1 or 2"),  # type: ignore[arg-type]
        (lambda: Rotate(values=OneBit(), block=3), "power of two"),
    ]
    for make, named in cases:
        with pytest.raises(ConfigError, match=named):
            make()


@pytest.mark.parametrize("levels", [2, 5, 65536])
def test_the_largest_floats_and_the_least_stay_finite(levels: int) -> None:
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([largest, -largest, 2.0**-149, 0.0])
    for operator in (KLevel(levels=levels), OneBit(), NaturalCompression(), TernGrad(), TernGrad(clip=None)):
        assert torch.isfinite(operator.compress(x, Key(0), Segments.whole(4)).to_dense()).all()
    tiny = torch.tensor([2.0**-149, -(2.0**-148), 2.0**-126])
    assert NaturalCompression().compress(tiny, Key(0), Segments.uniform(3, 1)).to_dense().tolist() == tiny.tolist()
