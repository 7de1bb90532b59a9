"""Where theory gives an equality, not a bound; and the constants of the papers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from compressor_cases import bound_z, compress, draws, inputs

from thinwire.compressors import QSGD, Compressor, RandK, Sign, TopK, Traits, segment_traits
from thinwire.errors import ConfigError
from thinwire.exchanges import Gather
from thinwire.layout import Layout, Segments
from thinwire.memory import ErrorFeedback
from thinwire.methods import ModelAveraging, check_method
from thinwire.random import Key
from thinwire.wire import decode, encode


@pytest.mark.parametrize("norm", ["l2", "max"])
@pytest.mark.parametrize("levels", [1, 7, 127])
@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "geometric", "huge"])
def test_the_variance_of_qsgd_is_exact(levels: int, norm: str, kind: str) -> None:
    x = inputs(64)[kind]
    exact = x.double().numpy()
    # The unit is what the operator computes with: rounded to f32.
    size = np.float32(np.linalg.norm(exact) if norm == "l2" else np.abs(exact).max())
    unit = float(np.float32(size / np.float32(levels)))
    f = np.modf(np.abs(exact) / unit)[0]
    mean = (f * (1 - f)).sum()
    fourth = (f**4 * (1 - f) + (1 - f) ** 4 * f - (f * (1 - f)) ** 2).sum()
    count = 6000
    each = ((draws(QSGD(levels=levels, norm=norm), x, count) - exact) ** 2).sum(axis=1) / unit**2  # type: ignore[arg-type]
    z = (each.mean() - mean) / math.sqrt(fourth / count)
    assert abs(z) < bound_z(1e-6, 24)
    omega = QSGD(levels=levels, norm=norm).traits(64).error  # type: ignore[arg-type]
    assert mean * unit**2 <= omega * (exact**2).sum() * (1 + 1e-6)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("k", [1, 5, 63, 64])
@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "constant"])
def test_the_error_of_rand_k_is_an_equality(kind: str, k: int, unbiased: bool) -> None:
    numel, count = 64, 2000
    x = inputs(numel)[kind]
    squares = x.double().numpy() ** 2
    # The error is ||x||^2 + factor * (sum of the kept squares), drawn without replacement.
    factor = (numel / k - 1) ** 2 - 1 if unbiased else -1.0
    expected = squares.sum() + factor * k / numel * squares.sum()
    variance = factor**2 * k * (numel - k) / numel * squares.var(ddof=1)
    each = ((draws(RandK(k=k, unbiased=unbiased), x, count) - x.double().numpy()) ** 2).sum(axis=1)
    slack = bound_z(1e-6, 24) * math.sqrt(variance / count) + 1e-6 * squares.sum()
    assert abs(each.mean() - expected) <= slack
    assert RandK(k=k, unbiased=unbiased).traits(numel).error * squares.sum() == pytest.approx(expected, abs=1e-9)


def test_every_entry_is_kept_equally_often() -> None:
    numel, k, count = 20, 3, 6000
    kept = (draws(RandK(k=k), torch.ones(numel), count) != 0).astype(float)
    assert (kept.sum(axis=1) == k).all()
    share = k / numel
    # Covariance of the indicators is share (1 - share) numel / (numel - 1) times the centring matrix.
    chi2 = ((kept.sum(axis=0) - count * share) ** 2).sum() / (count * share * (1 - share) * numel / (numel - 1))
    freedom = numel - 1
    # Wilson and Hilferty: the cube root is normal; false alarm 1e-6, on either side.
    z = ((chi2 / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert abs(z) < bound_z(1e-6, 1)


@pytest.mark.parametrize("kind", [TopK, RandK])
def test_ultra_sparsification_keeps_one_entry_with_probability_k(kind: type[TopK] | type[RandK]) -> None:
    numel, count, k = 7, 8000, 0.4
    results = draws(kind(k=k), torch.full((numel,), -2.5), count)
    kept = (results != 0).sum(axis=1)
    assert set(kept.tolist()) == {0, 1}
    z = (kept.mean() - k) / math.sqrt(k * (1 - k) / count)
    assert abs(z) < bound_z(1e-6, 2)
    # One kept entry of a constant vector takes away 1/d of its square: 1 - k/d on average.
    assert kind(k=k).traits(numel).error == pytest.approx(1 - k / numel)


@pytest.mark.parametrize("k", [1, 5, 64])
def test_top_k_attains_its_bound_on_equal_magnitudes_only(k: int) -> None:
    for kind, x in inputs(64).items():
        squares = x.double() ** 2
        error = float(((TopK(k=k).compress(x, Key(0), Segments.whole(64)).to_dense().double() - x) ** 2).sum())
        left_out = float(squares.sort().values[: 64 - k].sum())
        assert error == pytest.approx(left_out, rel=1e-12, abs=0)
        if kind == "constant":
            assert error == pytest.approx(TopK(k=k).traits(64).error * float(squares.sum()))
    assert TopK(density=1.0).traits(64).error == 0.0


@pytest.mark.parametrize("k", [1, 3, 20, 64])
def test_the_error_of_signs_is_an_equality(k: int) -> None:
    compressor = Sign() if k == 64 else TopK(k=k, values=Sign())
    for kind, x in inputs(64).items():
        if kind == "denormal":
            continue  # the scale cannot be rounded to 24 bits there
        exact = x.double()
        kept = exact.abs().sort().values[64 - k :]
        gamma_times_square = float(kept.sum() ** 2 / k)
        error = float(((compressor.compress(x, Key(0), Segments.whole(64)).to_dense().double() - exact) ** 2).sum())
        square = float((exact**2).sum())
        assert error == pytest.approx(square - gamma_times_square, rel=1e-6, abs=1e-6 * square)
        assert gamma_times_square >= compressor.traits(64).gamma * square * (1 - 1e-12)
    spike = inputs(64)["spike"]
    error = float(((compressor.compress(spike, Key(0), Segments.whole(64)).to_dense().double() - spike) ** 2).sum())
    # One large entry among k is the worst case of the sign; the sparsifier keeps it.
    assert error / 9.0 == pytest.approx(1 - 1 / k, abs=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 15, 127])
@pytest.mark.parametrize("numel", [2, 7, 64, 1000])
def test_the_max_norm_bound_is_attained_at_its_worst_vector(numel: int, levels: int) -> None:
    # Entries at f/s beside one at the norm: maximise the exact variance over f on a fine grid.
    f = np.linspace(0, 0.5, 200_001)[1:]
    ratio = (numel - 1) * f * (1 - f) / (levels**2 + (numel - 1) * f**2)
    omega = QSGD(levels=levels, norm="max").traits(numel).error
    assert omega == pytest.approx(ratio.max(), rel=1e-7)
    if levels == 1:
        assert omega == pytest.approx((math.sqrt(numel) - 1) / 2)
    x = torch.full((numel,), float(f[ratio.argmax()]) / levels)
    x[0] = 1.0
    each = ((draws(QSGD(levels=levels, norm="max"), x, 2000) - x.double().numpy()) ** 2).sum(axis=1)
    square = float((x.double() ** 2).sum())
    assert abs(each.mean() / square - omega) < 5.3 * each.std() / square / math.sqrt(2000) + 1e-6 * omega


def test_no_random_vector_passes_the_max_norm_bound() -> None:
    generator = np.random.default_rng(0)
    for numel in (2, 7, 64):
        for levels in (1, 4, 15):
            x = np.abs(generator.standard_normal((4000, numel))) ** generator.uniform(0, 8, (4000, 1))
            f = np.modf(levels * x / x.max(axis=1, keepdims=True))[0]
            variance = (f * (1 - f)).sum(axis=1) * (x.max(axis=1) / levels) ** 2
            bound = QSGD(levels=levels, norm="max").traits(numel).error
            assert (variance / (x**2).sum(axis=1)).max() <= bound * (1 + 1e-12)


@pytest.mark.parametrize("numel", [1, 7, 64, 1000])
@pytest.mark.parametrize("levels", [1, 4, 15, 127])
def test_omega_of_the_l2_norm_is_that_of_the_paper(numel: int, levels: int) -> None:
    omega = min(numel / levels**2, math.sqrt(numel) / levels)
    assert QSGD(levels=levels).traits(numel) == Traits(unbiased=True, error=omega)
    scaled = QSGD(levels=levels, scaled=True).traits(numel)
    assert scaled.gamma == pytest.approx(1 / (1 + omega))
    x = inputs(numel)["gaussian"]
    segments = Segments.whole(numel)
    plain = QSGD(levels=levels).compress(x, Key(4), segments).to_dense()
    shrunk = QSGD(levels=levels, scaled=True).compress(x, Key(4), segments).to_dense()
    assert torch.allclose(shrunk * (1 + omega), plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("k", "levels"), [(4, 1), (16, 4), (16, 1), (64, 15)])
def test_top_k_with_levels_has_the_constants_of_qsparse(k: int, levels: int) -> None:
    numel = 100
    beta = min(k / levels**2, math.sqrt(k) / levels)
    scaled = TopK(k=k, values=QSGD(levels=levels, scaled=True))
    assert scaled.traits(numel).gamma == pytest.approx(k / (numel * (1 + beta)))
    plain = TopK(k=k, values=QSGD(levels=levels))
    assert not plain.traits(numel).unbiased
    if beta < 1:
        assert plain.traits(numel).gamma == pytest.approx((1 - beta) * k / numel)
        assert plain.traits(numel).gamma <= scaled.traits(numel).gamma
    layout = Layout(("w",), (torch.Size([numel]),))
    check_method(ModelAveraging(memory=ErrorFeedback(), compressor=scaled, exchange=Gather()), layout)
    if beta >= 1:
        assert plain.traits(numel).error >= 1
        with pytest.raises(ConfigError, match=r"not a contraction.*scaled=yes"):
            check_method(ModelAveraging(memory=ErrorFeedback(), compressor=plain, exchange=Gather()), layout)
        # Without memory it may be used.
        check_method(ModelAveraging(compressor=plain, exchange=Gather()), layout)


def test_unscaled_levels_on_kept_values_can_do_more_harm_than_sending_nothing() -> None:
    x = torch.zeros(100)
    x[:64] = 1.0  # beta = 8; the exact error is sqrt(64) - 1 times the square
    square = 64.0
    plain = ((draws(TopK(k=64, values=QSGD(levels=1)), x, 400) - x.double().numpy()) ** 2).sum(axis=1)
    scaled = ((draws(TopK(k=64, values=QSGD(levels=1, scaled=True)), x, 400) - x.double().numpy()) ** 2).sum(axis=1)
    assert plain.mean() / square == pytest.approx(7.0, rel=0.1)
    assert plain.mean() / square > 1.0
    assert scaled.mean() / square < TopK(k=64, values=QSGD(levels=1, scaled=True)).traits(100).error < 1.0


@pytest.mark.parametrize(("gamma", "levels", "k"), [(0.01, 63, 81), (0.05, 127, 403), (0.2, 127, 1740)])
def test_the_table_of_levels_and_k_for_a_given_gamma(gamma: float, levels: int, k: int) -> None:
    def reached(count: int) -> bool:
        return TopK(k=count, values=QSGD(levels=levels, scaled=True)).traits(7850).gamma >= gamma

    assert reached(k)
    assert not any(reached(count) for count in range(1, k))


@pytest.mark.parametrize("compressor_", [TopK(k=2), TopK(density=0.2), Sign(), QSGD(levels=4), RandK(density=0.3)])
def test_over_a_cut_gamma_is_the_smallest_of_the_segments(compressor_: Compressor) -> None:
    segments = Segments.of_sizes([10, 0, 50, 3])
    each = [compressor_.traits(size).error for size in (10, 50, 3)]
    assert segment_traits(compressor_, segments).error == max(each)


@pytest.mark.parametrize(
    "amount",
    [{}, {"k": 1, "density": 0.1}]
    + [{"k": k} for k in (0, 2.5, -1, math.inf, math.nan)]
    + [{"density": density} for density in (0.0, -1.0, 1.5, math.nan)],
)
@pytest.mark.parametrize("kind", [TopK, RandK])
def test_amounts_that_make_no_sense_are_refused(kind: type[TopK] | type[RandK], amount: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        kind(**amount)


@pytest.mark.parametrize("density", [1e-9, 0.01, 0.05, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("kind", [TopK, RandK])
def test_density_keeps_its_rounded_share_and_at_least_one(kind: type[TopK] | type[RandK], density: float) -> None:
    segments = Segments.of_sizes([1, 0, 10, 101, 1000])
    payload = kind(density=density).compress(torch.ones(segments.numel), Key(0), segments)
    kept = [int(part.count_nonzero()) for part in payload.to_dense().split([1, 0, 10, 101, 1000])]
    assert kept == [max(1, math.floor(density * size + 0.5)) if size else 0 for size in (1, 0, 10, 101, 1000)]


def test_empty_vectors_have_empty_messages(compressor: Any) -> None:
    for segments in (Segments.whole(0), Segments.of_sizes([]), Segments.of_sizes([0, 0])):
        payload = compress(compressor, torch.empty(0), segments)
        if payload is not None:
            assert decode(encode(payload)).to_dense().numel() == 0


@pytest.mark.parametrize(("setting", "named"), [({"levels": 0}, "0"), ({"levels": 40000}, "32767"),
                                                ({"levels": 1, "norm": "l1"}, "l1")])  # fmt: skip
def test_qsgd_refuses_what_it_cannot_do(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        QSGD(**setting)
