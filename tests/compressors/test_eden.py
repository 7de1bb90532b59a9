"""EDEN and DRIVE: the codebooks, the published constants, where they hold and where they do not."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from thinwire.compressors import rotation
from thinwire.compressors.drive import DRIVE
from thinwire.compressors.eden import EDEN
from thinwire.errors import ConfigError
from thinwire.kernels.bitpack.bits import unpack
from thinwire.kernels.quantize.codebook import (
    add_codes,
    add_codes_torch,
    nearest_codes,
    nearest_codes_torch,
    write_codes,
)
from thinwire.kernels.quantize.lloyd_max import gaussian_table
from thinwire.kernels.transform.hadamard import hadamard_blocks, hadamard_rotate
from thinwire.layout import Segments
from thinwire.payloads import Codebook, Concat, Rotated, SeededSparse, Sum
from thinwire.random import Key

BITS = range(1, 9)
NORMAL = NormalDist()
DISTORTION = (0.3634, 0.1175, 0.03455, 0.0095)


def noise(numel: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, numel).astype(np.float32))


def measured(compressor: EDEN | DRIVE, x: Tensor, count: int) -> tuple[float, float, float]:
    """Error, squared bias and the variance that the mean of the draws still has, all over ``||x||^2``."""
    segments = Segments.uniform(count * x.numel(), x.numel())
    each = compressor.compress(x.repeat(count), Key(3), segments).to_dense().double().view(count, -1)
    norm = x.double().square().sum()
    error = (each - x.double()).square().sum(1).mean() / norm
    bias = (each.mean(0) - x.double()).square().sum() / norm
    spread = each.var(0).sum() / count / norm
    return float(error), float(bias), float(spread)


def geometric(numel: int) -> Tensor:
    return torch.exp2(-torch.arange(numel, dtype=torch.float32))


def three(numel: int) -> Tensor:
    return torch.tensor([3.0, 2.0, 1.0] + [0.0] * (numel - 3))


@pytest.mark.parametrize("bits", BITS)
def test_a_codebook_has_the_means_of_its_cells(bits: int) -> None:
    table = gaussian_table(bits).double().tolist()
    assert len(table) == 2**bits
    assert table == sorted(table)
    assert table == [-number for number in reversed(table)]
    borders = [-math.inf, *((a + b) / 2 for a, b in itertools.pairwise(table)), math.inf]
    density = [0.0 if math.isinf(border) else NORMAL.pdf(border) for border in borders]
    for number, low, high, at_low, at_high in zip(
        table, borders[:-1], borders[1:], density[:-1], density[1:], strict=True
    ):
        # From the upper tail, which has more digits there.
        mass = NORMAL.cdf(-low) - NORMAL.cdf(-high) if low >= 0 else NORMAL.cdf(high) - NORMAL.cdf(low)
        # Of the mean of a narrow cell f32 borders move little, but digits of the difference are lost.
        assert (at_low - at_high) / mass == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize("bits", [3, 5, 8])
def test_codebooks_solved_anew(bits: int) -> None:
    """Newton's method for the positive half in f64, from the limit law of fine codebooks."""
    half = 2 ** (bits - 1)
    table = np.array([math.sqrt(3.0) * NORMAL.inv_cdf(0.5 + 0.5 * (j + 0.5) / half) for j in range(half)])
    cdf = np.vectorize(NORMAL.cdf)
    for _ in range(100):
        borders = np.concatenate([[0.0], (table[1:] + table[:-1]) / 2])
        density = np.append(np.exp(-(borders**2) / 2) / math.sqrt(2 * math.pi), 0.0)
        tail = np.append(cdf(-borders), 0.0)
        mass = tail[:-1] - tail[1:]
        mean = (density[:-1] - density[1:]) / mass
        # Newton: a mean moves with its two borders.
        lower = density[:-1] * (mean - borders) / mass / 2
        upper = density[1:] * (np.append(borders[1:], 0.0) - mean) / mass / 2
        lower[0] = upper[-1] = 0.0
        slope = np.diag(lower + upper - 1) + np.diag(lower[1:], -1) + np.diag(upper[:-1], 1)
        step = np.linalg.solve(slope, table - mean)
        table = table + step
        if np.abs(step).max() < 1e-13:
            break
    assert np.allclose(gaussian_table(bits)[half:].double().numpy(), table, rtol=0, atol=1e-6)


@pytest.mark.parametrize("numel", [0, 1, 7, 63, 64, 65, 4096, 280_001])
@pytest.mark.parametrize("bits", [1, 3, 6])
def test_the_kernels_are_their_twins(numel: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, table = noise(numel), gaussian_table(bits)
    cuts = [Segments.whole(numel), Segments.uniform(numel, 100), Segments.of_sizes([numel // 3, 0, numel - numel // 3])]
    for segments in cuts:
        offsets = segments.offsets()
        units = torch.linspace(0.0, 2.0, max(segments.count, 1))[: segments.count]
        expected = nearest_codes_torch(x, offsets, units, table)
        start = noise(numel, 1)
        for num_threads in (1, 2):
            monkeypatch.setattr(torch, "get_num_threads", lambda num=num_threads: num)
            found = nearest_codes(x, offsets, units, table)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
            out, twin = start.clone(), start.clone()
            add_codes(found[0], bits, table, units, offsets, out, 0.3)
            add_codes_torch(found[0], bits, table, units, offsets, twin, 0.3)
            assert torch.equal(out, twin)
            write_codes(found[0], bits, table, units, offsets, out)
            assert torch.equal(0.0 + out, Codebook(found[0], table, units, segments).to_dense() + 0.0)


def test_codes_are_the_nearest_numbers() -> None:
    x, table = noise(2000), gaussian_table(3)
    codes = unpack(nearest_codes(x, torch.tensor([0, 2000]), torch.tensor([1.5]), table)[0], 2000, 3)
    nearest = (x.double().unsqueeze(1) - 1.5 * table.double()).abs().argmin(1)
    assert torch.equal(codes.long(), nearest)


def test_bad_tables_and_units_are_refused() -> None:
    x, offsets = torch.ones(3), torch.tensor([0, 3])
    for table, units in (
        (torch.ones(3), torch.ones(1)),
        (torch.ones(2).double(), torch.ones(1)),
        (torch.ones(2), torch.ones(2)),
    ):
        with pytest.raises(ConfigError):
            nearest_codes(x, offsets, units, table)
    with pytest.raises(ConfigError):
        gaussian_table(9)
    with pytest.raises(ConfigError):
        write_codes(torch.zeros(1, dtype=torch.uint8), 9, torch.ones(2), torch.ones(1), offsets, x)


@pytest.mark.parametrize("kind", ["gaussian", "lognormal", "student"])
def test_published_errors_on_three_kinds_of_vectors(kind: str) -> None:
    generator = np.random.default_rng(5)
    drawn = {
        "gaussian": generator.standard_normal(16384),
        "lognormal": generator.choice([-1.0, 1.0], 16384) * generator.lognormal(size=16384),
        "student": generator.standard_t(2, 16384),
    }[kind]
    x = torch.from_numpy(drawn.astype(np.float32))
    for bits, omega in ((1, 0.571), (2, 0.133), (3, 0.0358), (4, 0.0096)):
        assert measured(EDEN(bits), x, 8)[0] == pytest.approx(omega, rel=0.02)
    for bits, error in zip((1, 2, 3, 4), DISTORTION, strict=True):
        assert measured(EDEN(bits, scale="contraction"), x, 8)[0] == pytest.approx(error, rel=0.02)
    for share in (0.1, 0.5):
        assert measured(EDEN(share), x, 16)[0] == pytest.approx((math.pi / 2) / share - 1, rel=0.04)
        shrunk = measured(EDEN(share, scale="contraction"), x, 8)[0]
        assert shrunk == pytest.approx(1 - 2 / math.pi * share, rel=0.02)
    assert measured(DRIVE("contraction", rounds=2), x, 8)[0] == pytest.approx(1 - 2 / math.pi, rel=0.02)


@pytest.mark.parametrize("bits", [1.25, 1.5, 1.75, 2.5, 3.5])
def test_between_whole_bits_there_is_one_scale_and_the_error_of_the_mean_codebook(bits: float) -> None:
    """``1 / (1 - D) - 1`` with D the mean of both codebooks: .317 for 1.5 bits; a scale for each part gives .352."""
    x, share = noise(16384, 5), bits - int(bits)
    distortion = (1.0 - share) * DISTORTION[int(bits) - 1] + share * DISTORTION[int(bits)]
    assert measured(EDEN(bits), x, 16)[0] == pytest.approx(1.0 / (1.0 - distortion) - 1.0, rel=0.015)
    assert measured(EDEN(bits, scale="contraction"), x, 16)[0] == pytest.approx(distortion, rel=0.015)
    payload = EDEN(bits).compress(x, Key(0), Segments.whole(16384))
    assert isinstance(payload, Rotated)
    assert isinstance(payload.inner, Sum)
    coarse, fine = (part.values for part in payload.inner.parts)  # type: ignore[attr-defined]
    assert torch.equal(coarse.scales, fine.scales)
    sent = payload.to_dense().double()
    assert float(sent @ x.double()) == pytest.approx(float(x.double().square().sum()), rel=1e-5)


def test_with_two_codebooks_too_the_error_is_below_the_number_of_entries() -> None:
    """``<z, q>^2 >= ||q||^2`` for ``||z||^2 = n``, whichever entry has which codebook: sampled, and at the borders."""
    generator = np.random.default_rng(0)
    worst = 0.0
    for low in range(1, 8):
        tables = [gaussian_table(low + more).double().numpy() for more in (0, 1)]
        borders = np.concatenate([(table[1:] + table[:-1]) / 2 for table in tables])
        places = np.concatenate([borders - 1e-6, borders + 1e-6, np.linspace(0.01, 6.0, 40)])
        for n in (2, 3, 4, 8, 40):
            z = np.abs(generator.choice(places, (1000, n)))
            z *= np.sqrt(n / np.maximum((z**2).sum(1, keepdims=True), 1e-12))
            fine = generator.random(z.shape) < 0.5
            q = [table[np.abs(z[..., None] - table).argmin(-1)] for table in tables]
            chosen = np.where(fine, q[1], q[0])
            worst = max(worst, float(((chosen**2).sum(1) / (z * chosen).sum(1) ** 2).max()))
    assert 0.9 < worst <= 1.0 + 1e-9


@pytest.mark.parametrize("vector", [geometric, three])
def test_one_round_is_biased_on_few_large_entries_and_two_are_not(vector: type) -> None:
    x = vector(64)
    published = {(geometric, 1): 0.333, (geometric, 2): 0.023, (three, 1): 0.07, (three, 2): 0.03}
    for bits in (1, 2):
        _, bias, spread = measured(EDEN(bits, rounds=1), x, 4000)
        assert bias - spread == pytest.approx(published[vector, bits], abs=0.1 * published[vector, bits] + 0.001)
        error, bias, spread = measured(EDEN(bits, rounds=2), x, 4000)
        assert abs(bias - spread) < 0.001
        assert error == pytest.approx((0.571, 0.133)[bits - 1], rel=0.05)


@pytest.mark.parametrize("numel", [4, 65_540, 63, 32])
def test_where_a_block_is_small_nothing_is_called_unbiased(numel: int) -> None:
    """All of a vector may lie in its last block, whose two rounds stay biased."""
    for compressor in (EDEN(1), EDEN(0.5), EDEN(1.5), DRIVE(rounds=2)):
        assert not compressor.traits(numel).unbiased
        assert compressor.traits(65_536).unbiased
        assert compressor.traits(65_536 + 64).unbiased
        assert compressor.traits(1).unbiased
    if numel == 4:
        _, bias, spread = measured(EDEN(1), three(4), 4000)
        assert bias - spread == pytest.approx(0.046, abs=0.006)


@pytest.mark.parametrize("bits", [0.5, 1, 1.5, 2])
def test_where_no_block_is_small_two_rounds_have_hardly_a_bias(bits: float) -> None:
    for numel in (64, 128):
        two = torch.tensor([1.0, 1.0] + [0.0] * (numel - 2))
        for x in (three(numel), geometric(numel), two.roll(1) + 3 * two):
            _, bias, spread = measured(EDEN(bits), x, 10_000)
            assert bias - spread < 6e-4


def test_the_scales_do_what_they_are_made_for() -> None:
    x = noise(4096)
    sent = EDEN(2, rounds=1).compress(x, Key(0), Segments.whole(4096)).to_dense().double()
    assert float(sent @ x.double()) == pytest.approx(float(x.double().square().sum()), rel=1e-5)
    shrunk = EDEN(2, rounds=1, scale="contraction").compress(x, Key(0), Segments.whole(4096)).to_dense().double()
    assert float(shrunk @ x.double()) == pytest.approx(float(shrunk.square().sum()), rel=1e-5)
    rotated = hadamard_rotate(x, Key(0).fold("rotation").bits64()).double()
    drive = DRIVE().compress(x, Key(0), Segments.whole(4096)).to_dense().double()
    scale = x.double().square().sum() / rotated.abs().sum()
    assert float((drive - x.double()).square().sum()) == pytest.approx(
        float((scale * rotated.sign() - rotated).square().sum()), rel=1e-5
    )


def test_drive_is_eden_of_one_bit() -> None:
    x = noise(1000)
    for scale in ("unbiased", "contraction"):
        for rounds in (1, 2):
            drive = DRIVE(scale, rounds).compress(x, Key(2), Segments.whole(1000)).to_dense()
            assert torch.equal(drive, EDEN(1, rounds, scale).compress(x, Key(2), Segments.whole(1000)).to_dense())
            assert DRIVE(scale, rounds).traits(1000) == EDEN(1, rounds, scale).traits(1000)


def test_half_of_the_energy_is_kept_whatever_the_vector() -> None:
    """Khintchine's inequality; two equal entries attain it with one round."""
    two = torch.tensor([1.0, 1.0] + [0.0] * 62)
    assert measured(DRIVE("contraction"), two, 2000)[0] == pytest.approx(0.5, abs=1e-5)
    for x in (geometric(64), three(64), noise(64)):
        assert measured(DRIVE("contraction"), x, 500)[0] < 0.5


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_worst_errors_solve_their_linear_programs(bits: int) -> None:
    """Over all laws of ``|z|`` on a grid whose moments a sum with random signs may have."""
    table = gaussian_table(bits)[2 ** (bits - 1) :].double().numpy()
    borders = np.concatenate([[0.0], (table[1:] + table[:-1]) / 2])
    grid = np.unique(np.concatenate([np.linspace(0, 8, 2001), borders, borders[1:] - 1e-9, np.linspace(8, 60, 200)]))
    errors = (grid - table[np.searchsorted(borders, grid, side="right") - 1]) ** 2
    limits = [(-grid, -math.sqrt(0.5)), (grid**4, 3.0), (grid**6, 15.0), (grid**8, 105.0)]
    # Every row in units of its bound.
    solved = linprog(
        -errors,
        A_ub=np.stack([row / abs(bound) for row, bound in limits]),
        b_ub=[math.copysign(1.0, bound) for _, bound in limits],
        A_eq=np.stack([np.ones_like(grid), grid**2]),
        b_eq=[1.0, 1.0],
        method="highs",
    )
    assert solved.status == 0
    assert -solved.fun <= rotation._WORST[bits - 1] <= -solved.fun * 1.05


@pytest.mark.parametrize("bits", [0.05, 0.4, 1.25, 1.5, 2.0, 2.999, 7.5, 8.0])
@pytest.mark.parametrize("numel", [1, 2, 3, 7, 100, 1000])
def test_any_length_and_any_bits(bits: float, numel: int) -> None:
    x = noise(numel)
    payload = EDEN(bits).compress(x, Key(1), Segments.whole(numel))
    sent = payload.to_dense()
    assert sent.shape == (numel,)
    assert bool(sent.isfinite().all())
    if bits >= 1:
        # Every entry has a code: the two subsets cover each block.
        assert float((sent - x).square().sum() / x.square().sum()) < 1.6
        assert isinstance(payload, Rotated)
        if isinstance(payload.inner, Sum):
            low, high = (part.sparse().indices for part in payload.inner.parts if isinstance(part, SeededSparse))
            assert torch.equal(torch.cat([low, high]).sort().values, torch.arange(numel))
            shares = [rotation.split_counts(size, bits) for size in hadamard_blocks(numel).diff().tolist()]
            assert low.numel() == sum(share[0] for share in shares)


def test_segments_do_not_mix() -> None:
    x = noise(3000)
    for segments in (Segments.uniform(3000, 256), Segments.uniform(3000, 300), Segments.of_sizes([1000, 0, 2000])):
        payload = EDEN(1).compress(x, Key(1), segments)
        assert isinstance(payload, Concat if segments.length != 256 else Rotated)
        begin, end = int(segments.offsets()[1]), 3000
        other = x.clone()
        other[begin:end] = 1.0
        assert torch.equal(payload.to_dense()[:begin], EDEN(1).compress(other, Key(1), segments).to_dense()[:begin])


def test_bad_arguments() -> None:
    for bits in (0.01, 8.5, float("nan")):
        with pytest.raises(ConfigError, match="bits"):
            EDEN(bits)
    for rounds in (0, 3):
        with pytest.raises(ConfigError, match="rounds"):
            EDEN(1, rounds)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="rounds"):
            DRIVE(rounds=rounds)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scale"):
        EDEN(1, scale="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scale"):
        DRIVE("best")  # type: ignore[arg-type]
