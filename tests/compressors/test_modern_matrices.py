"""DCT (DeMo's transform) and LowRank (PowerSGD's factors)."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from thinwire.compressors import Identity, TopK
from thinwire.compressors.dct import DCT
from thinwire.compressors.low_rank import LowRank
from thinwire.errors import ConfigError
from thinwire.kernels.transform.low_rank import (
    columns_times,
    columns_times_torch,
    orthonormal,
    rows_times,
    rows_times_torch,
)
from thinwire.layout import Segments
from thinwire.payloads import DCT as CosinePayload
from thinwire.payloads import Concat, Dense
from thinwire.payloads import LowRank as LowRankPayload
from thinwire.random import Key


def vector(numel: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, numel).astype(np.float32))


def error(x: torch.Tensor, sent: torch.Tensor) -> float:
    return float((x.double() - sent.double()).square().sum() / x.double().square().sum())


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_the_coefficients_are_those_of_the_orthonormal_dct(side: int) -> None:
    numel = 3 * side**2 + min(side, 3)
    x = vector(numel)
    payload = DCT(side=side, values=Identity()).compress(x, Key(0), Segments.whole(numel))
    assert isinstance(payload, CosinePayload)
    chunks = x.double()[: 3 * side**2].view(3, side, side).numpy()
    expected = np.concatenate([dctn(chunk, norm="ortho").ravel() for chunk in chunks] + [x[3 * side**2 :].numpy()])
    assert np.allclose(payload.inner.to_dense().numpy(), expected, atol=1e-5)
    assert torch.allclose(payload.to_dense(), x, atol=1e-5)


def test_what_top_k_loses_of_the_coefficients_is_what_is_lost() -> None:
    x = vector(4096 * 2)
    segments = Segments.uniform(4096 * 2, 4096)
    payload = DCT(side=64, values=TopK(k=32)).compress(x, Key(0), segments)
    assert isinstance(payload, CosinePayload)
    kept = payload.inner.to_dense().double().square().sum() / x.double().square().sum()
    assert error(x, payload.to_dense()) == pytest.approx(1 - float(kept), abs=1e-6)
    for begin in (0, 4096):
        coefficients = dctn(x[begin : begin + 4096].double().view(64, 64).numpy(), norm="ortho").ravel()
        best = np.sort(np.abs(coefficients))[-32:]
        found = payload.inner.to_dense()[begin : begin + 4096]
        assert np.allclose(np.sort(found[found != 0].abs().numpy()), best, rtol=1e-4)
    smooth = torch.outer(torch.linspace(-1, 1, 64), torch.linspace(0, 2, 64)).reshape(-1)
    plain = TopK(k=32).compress(smooth, Key(0), Segments.whole(4096)).to_dense()
    waves = DCT(side=64, values=TopK(k=32)).compress(smooth, Key(0), Segments.whole(4096)).to_dense()
    assert error(smooth, waves) < 0.01 < 0.9 < error(smooth, plain)


def test_segments_that_are_no_whole_chunks_are_transformed_apart() -> None:
    x = vector(21)
    payload = DCT(side=2, values=TopK(k=1)).compress(x, Key(0), Segments.of_sizes([7, 0, 14]))
    assert isinstance(payload, Concat)
    alone = DCT(side=2, values=TopK(k=1)).compress(x[:7].clone(), Key(0), Segments.whole(7))
    assert torch.equal(payload.to_dense()[:7], alone.to_dense())
    with pytest.raises(ConfigError, match="side"):
        DCT(side=0, values=Identity())


@pytest.mark.parametrize(("rows", "columns", "rank"), [(1, 1, 1), (7, 65, 2), (65, 7, 1), (300, 1500, 3), (0, 3, 1)])
def test_the_products_are_their_twins(rows: int, columns: int, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = vector(rows * columns).view(rows, columns)
    right, left = vector(rank * columns, 1).view(rank, columns), vector(rank * rows, 2).view(rank, rows)
    for num_threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda num=num_threads: num)
        assert torch.equal(rows_times(matrix, right), rows_times_torch(matrix, right))
        assert torch.equal(columns_times(matrix, left), columns_times_torch(matrix, left))
    assert torch.allclose(rows_times(matrix, right).double(), matrix.double() @ right.double().T, rtol=1e-3, atol=1e-3)


def test_a_basis_is_orthonormal_and_spans() -> None:
    vectors = vector(4 * 100).view(4, 100)
    vectors[2] = vectors[0] * 3 - vectors[1]
    basis = orthonormal(vectors * 1e30).double()
    expected = torch.diag(torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(basis @ basis.T, expected, atol=1e-6)
    assert torch.allclose(vectors.double() @ basis.T @ basis, vectors.double(), atol=1e-4)
    with pytest.raises(ConfigError):
        orthonormal(torch.ones(3))


@pytest.mark.parametrize(("rows", "columns"), [(20, 50), (50, 20), (32, 32)])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_matrix_of_low_rank_arrives_whole(rows: int, columns: int, rank: int) -> None:
    x = (vector(rows * rank).view(rows, rank) @ vector(rank * columns, 1).view(rank, columns)).reshape(-1)
    payload = LowRank(rank=rank, columns=columns).compress(x, Key(0), Segments.whole(len(x)))
    assert isinstance(payload, LowRankPayload)
    assert payload.left.shape == (rows, rank)
    assert payload.right.shape == (columns, rank)
    assert error(x, payload.to_dense()) < 1e-10


def test_the_constant_is_attained_by_equal_singular_values() -> None:
    identity = torch.eye(16).reshape(-1)
    for rank in (1, 3):
        sent = LowRank(rank=rank).compress(identity, Key(0), Segments.whole(256)).to_dense()
        assert error(identity, sent) == pytest.approx(LowRank(rank=rank).traits(256).error, abs=1e-5)


def test_more_rounds_come_nearer_to_the_best_matrix_of_the_rank() -> None:
    x = vector(40 * 40)
    singular = np.linalg.svd(x.double().view(40, 40).numpy(), compute_uv=False)
    best = 1 - (singular[:2] ** 2).sum() / (singular**2).sum()
    errors = [
        error(x, LowRank(rank=2, rounds=rounds).compress(x, Key(5), Segments.whole(1600)).to_dense())
        for rounds in (1, 2, 4, 30)
    ]
    assert errors == sorted(errors, reverse=True)
    assert best - 1e-6 <= errors[-1] <= best + 0.01
    assert math.isclose(errors[-1], best, rel_tol=0.05)


def test_shapes() -> None:
    assert [LowRank(rank=1)._shape(size) for size in (12, 13, 1, 0, 5)] == [(3, 4), (4, 4), (1, 1), (0, 1), (1, 5)]
    x = vector(1003)
    payload = LowRank(rank=1).compress(x, Key(0), Segments.of_sizes([1000, 0, 3]))
    assert isinstance(payload, Concat)
    assert [type(part) for part in payload.parts] == [LowRankPayload, Dense, Dense]
    assert torch.equal(payload.to_dense()[1000:], x[1000:])
    assert LowRank(rank=1).compress(torch.empty(0), Key(0), Segments.whole(0)).to_dense().shape == (0,)
    zeros = LowRank(rank=1).compress(torch.zeros(100), Key(0), Segments.whole(100)).to_dense()
    assert not bool(zeros.any())
    for bad in ({"rank": 0}, {"rank": 1, "rounds": 0}, {"rank": 1, "columns": 0}):
        with pytest.raises(ConfigError):
            LowRank(**bad)
