"""Owners that quantize means (1-bit SGD), and factors of matrices (PowerSGD)."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from exchange_cases import Party, vectors_of
from torch import Tensor

from thinwire.compressors import QSGD, Identity, OneBit, Sign, TopK
from thinwire.config import as_written_today
from thinwire.errors import ConfigError
from thinwire.exchanges import Accumulating, CompressedReduceScatter, Exchange, Gather, PowerIteration
from thinwire.exchanges.compressed_reduce_scatter import shards
from thinwire.exchanges.power_iteration import plan
from thinwire.layout import Chunks, Granularity, Layout, PerRow, PerTensor, Segments, Whole
from thinwire.memory import ErrorFeedback, Memory, NoMemory
from thinwire.methods import GradientAveraging, check_method

SHAPES = [[7, 9], [9], [3, 2, 5], [1, 4]]
NUMEL = 106


def owners(size: int, granularity: Granularity = Whole(), compressor: object = OneBit(), numel: int = NUMEL) -> Party:
    method = GradientAveraging(
        memory=ErrorFeedback(), compressor=compressor, exchange=CompressedReduceScatter(), granularity=granularity  # type: ignore[arg-type]
    )  # fmt: skip
    return Party(method, size, numel, shapes=SHAPES if numel == NUMEL else None)


def power(
    size: int, rank: int, shapes: list[list[int]], memory: Memory | None = None, warm: bool = True, sent: Any = "own"
) -> Party:
    exchange = PowerIteration(rank=rank, warm_start=warm, counts_as_sent=sent)
    method = GradientAveraging(memory=memory or ErrorFeedback(), exchange=exchange)
    return Party(method, size, sum(math.prod(shape) for shape in shapes), shapes=shapes)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 40])
@pytest.mark.parametrize(
    "segments",
    [Segments.whole(100), Segments.uniform(1000, 7), Segments.of_sizes([3, 0, 50, 1, 1, 0]), Segments.of_sizes([0, 5])],
    ids=str,
)
def test_whole_segments_are_dealt_in_order_and_about_equally(segments: Segments, size: int) -> None:
    dealt = shards(segments, size)
    assert len(dealt) == size
    assert [shard.start for shard in dealt] == [0, *(shard.stop for shard in dealt[:-1])]
    assert dealt[-1].stop == segments.numel
    offsets = segments.offsets()
    largest = max(segments.distinct_sizes())
    for shard in dealt:
        assert shard.stop - shard.start <= segments.numel / size + largest
        inside = offsets[(offsets >= shard.start) & (offsets <= shard.stop)].unique() - shard.start
        assert torch.equal(shard.cut.offsets().unique(), inside)
        assert shard.cut.numel == shard.stop - shard.start


def rows_of(x: np.ndarray) -> list[slice]:
    found, start = [], 0
    for shape in SHAPES:
        rows = shape[0] if len(shape) > 1 else 1
        length = math.prod(shape) // rows
        found += [slice(start + row * length, start + (row + 1) * length) for row in range(rows)]
        start += rows * length
    assert start == len(x)
    return found


def one_bit(x: np.ndarray) -> np.ndarray:
    """Of every row the mean of the entries that are not negative, and of those that are."""
    out = np.zeros_like(x)
    for row in rows_of(x):
        for side in (x[row] >= 0, x[row] < 0):
            if side.any():
                out[row][side] = x[row][side].mean()
    return out


@pytest.mark.parametrize("size", [1, 2, 3])
def test_one_bit_sgd_quantizes_and_remembers_both_ways(size: int) -> None:
    crew = owners(size, PerRow())
    residuals, left = np.zeros((size, NUMEL)), np.zeros(NUMEL)
    for seed in range(6):
        vectors = vectors_of(size, NUMEL, seed, heavy=False)
        intended = residuals + np.stack([vector.numpy() for vector in vectors])
        pieces = np.stack([one_bit(each) for each in intended])
        residuals = intended - pieces
        total = pieces.mean(axis=0) + left
        answer = one_bit(total)
        left = total - answer
        for aggregate in crew.exchange(vectors):
            np.testing.assert_allclose(aggregate.mean.numpy(), answer, rtol=1e-4, atol=1e-5)
    mine = np.concatenate([channel.exchange["residual"].numpy() for channel in crew.channels])
    np.testing.assert_allclose(mine, left, rtol=1e-4, atol=1e-5)
    assert size == 1 or np.abs(left).max() > 0.01  # of one worker the message is quantized already
    for channel, residual in zip(crew.channels, residuals, strict=True):
        np.testing.assert_allclose(channel.memory["residual"].numpy(), residual, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("granularity", [Whole(), PerTensor(), PerRow()], ids=str)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_owners_keep_what_they_do_not_send(size: int, granularity: Granularity) -> None:
    """All vectors so far are P times the means, P times what owners keep, and what workers keep."""
    crew = owners(size, granularity, TopK(density=0.2))
    given = received = torch.zeros(NUMEL, dtype=torch.float64)
    for seed in range(5):
        vectors = vectors_of(size, NUMEL, seed)
        given = given + torch.stack(vectors).double().sum(dim=0)
        received = received + size * crew.exchange(vectors)[0].mean.double()
    kept = torch.stack([channel.memory["residual"] for channel in crew.channels]).double().sum(dim=0)
    left = torch.cat([channel.exchange["residual"] for channel in crew.channels]).double()
    torch.testing.assert_close(received + kept + size * left, given, rtol=1e-5, atol=1e-4)
    assert size == 1 or float(left.abs().max()) > 0.0


@pytest.mark.parametrize("size", [1, 2, 5])
def test_owners_of_exact_pieces_have_the_gathered_mean_bit_for_bit(size: int) -> None:
    mine = owners(size, PerTensor(), Identity())
    method = GradientAveraging(memory=ErrorFeedback(), exchange=Gather(), granularity=PerTensor())
    gathered = Party(method, size, NUMEL, shapes=SHAPES)
    for seed in range(3):
        vectors = vectors_of(size, NUMEL, seed)
        for aggregate, other in zip(mine.exchange(vectors), gathered.exchange(vectors), strict=True):
            assert aggregate.mean.numpy().tobytes() == other.mean.numpy().tobytes()


@pytest.mark.parametrize("size", [2, 4, 8])
def test_owners_move_a_message_each_way_whatever_the_number_of_workers(size: int) -> None:
    numel, length = 64_000, 500
    crew = owners(size, Chunks(length), numel=numel)
    crew.exchange(vectors_of(size, numel, 0))
    message = numel / 8 + 8 * (numel // length)
    for link in crew.traffic:
        for num_bytes in (link.bytes_sent, link.bytes_received):
            assert num_bytes == pytest.approx(2 * (size - 1) / size * message, rel=0.02, abs=size * 60)


def test_owners_need_a_contraction() -> None:
    with pytest.raises(ConfigError, match="an owner remembers"):
        Party(GradientAveraging(compressor=QSGD(levels=1), exchange=CompressedReduceScatter()), 2, 500)


def test_a_row_is_what_makes_one_output() -> None:
    layout = Layout(("w", "b", "c"), (torch.Size([3, 2, 4]), torch.Size([3]), torch.Size([])))
    assert PerRow().segments(layout).sizes == (8, 8, 8, 3, 1)
    assert check_method(GradientAveraging(granularity=PerRow()), layout).count == 5


# PowerSGD.

MATRICES = [[12, 10], [12], [8, 3, 5], [2, 2]]


def orthonormal_columns(m: np.ndarray) -> np.ndarray:
    return np.linalg.qr(m)[0]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("sent", ["own", "mean"])
def test_factors_are_those_of_power_iteration_on_the_mean_matrix(size: int, sent: str) -> None:
    crew = power(size, 2, MATRICES, sent=sent)
    starts = [directions.double().numpy().T for directions in crew.channels[0].exchange.values()]
    places = [(0, 120, (12, 10)), (132, 252, (8, 15))]
    residuals = np.zeros((size, 256))
    for seed in range(5):
        vectors = vectors_of(size, 256, seed, heavy=False)
        intended = residuals + np.stack([vector.numpy() for vector in vectors])
        mean = intended.mean(axis=0)
        decoded, own = mean.copy(), intended.copy()
        for number, (start, stop, shape) in enumerate(places):
            matrix = mean[start:stop].reshape(shape)
            left = orthonormal_columns(matrix @ starts[number])
            right = matrix.T @ left
            decoded[start:stop] = (left @ right.T).ravel()
            for each, given in zip(own, intended, strict=True):
                each[start:stop] = (left @ left.T @ given[start:stop].reshape(shape)).ravel()
            starts[number] = right
        # What is not compressed leaves nothing; of a matrix each keeps what its own projection leaves, or the mean one.
        residuals = np.zeros((size, 256))
        for start, stop, _ in places:
            taken = own[:, start:stop] if sent == "own" else decoded[start:stop]
            residuals[:, start:stop] = intended[:, start:stop] - taken
        for aggregate, channel, residual in zip(crew.exchange(vectors), crew.channels, residuals, strict=True):
            np.testing.assert_allclose(aggregate.mean.numpy(), decoded, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(channel.memory["residual"].numpy(), residual, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("sent", ["own", "mean"])
def test_what_counts_as_sent_is_the_aggregate_on_average(size: int, sent: str) -> None:
    crew = power(size, 1, MATRICES, sent=sent)
    given = received = torch.zeros(256, dtype=torch.float64)
    for seed in range(4):
        vectors = vectors_of(size, 256, seed)
        aggregates = crew.exchange(vectors)
        said = torch.stack([each.sent.to_dense() for each in aggregates]).double().mean(dim=0)
        torch.testing.assert_close(said, aggregates[0].mean.double(), rtol=1e-5, atol=1e-4)
        given = given + torch.stack(vectors).double().mean(dim=0)
        received = received + aggregates[0].mean.double()
    kept = torch.stack([channel.memory["residual"] for channel in crew.channels]).double().mean(dim=0)
    torch.testing.assert_close(received + kept, given, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("rank", [10, 200])
def test_at_full_rank_nothing_is_lost(rank: int) -> None:
    crew = power(3, rank, MATRICES)
    vectors = vectors_of(3, 256, 0)
    for aggregate in crew.exchange(vectors):
        torch.testing.assert_close(aggregate.mean, torch.stack(vectors).mean(dim=0), rtol=1e-6, atol=1e-6)
        assert aggregate.message_bytes == 4 * 256
    assert not crew.channels[0].memory["residual"].any()


@pytest.mark.parametrize("warm", [True, False])
def test_a_mean_of_low_rank_is_found_at_once(warm: bool) -> None:
    crew = power(2, 2, [[40, 30]], warm=warm)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        left = torch.randn(40, 2, generator=generator)
        vectors = [(left @ torch.randn(2, 30, generator=generator)).view(-1) for _ in range(2)]
        mean = crew.exchange(vectors)[0].mean
        torch.testing.assert_close(mean, torch.stack(vectors).mean(dim=0), rtol=1e-3, atol=1e-4)


def test_factors_take_the_bytes_of_the_paper() -> None:
    rank, size = 2, 4
    crew = power(size, rank, MATRICES)
    (num_bytes,) = {each.message_bytes for each in crew.exchange(vectors_of(size, 256, 0))}
    # The 2 x 2 matrix gains nothing from factors and goes with the bias.
    assert num_bytes == 4 * (rank * (12 + 10) + rank * (8 + 15) + 12 + 4)
    assert sum(link.bytes_sent for link in crew.traffic) == 2 * (size - 1) * num_bytes
    # ResNet-18's largest layers, 512 x 512 x 3 x 3.
    (part,) = plan(Layout(("w",), (torch.Size([512, 512, 3, 3]),)), 2)
    assert part.rows * part.columns / (2 * (part.rows + part.columns)) == pytest.approx(230.4)


def test_a_memory_of_unlike_matrices_is_bounded_and_the_iterates_are_those_of_the_paper() -> None:
    """Workers whose matrices differ by more than they have in common, for ever."""
    generator = torch.Generator().manual_seed(7)
    apart = [torch.randn(600, generator=generator) for _ in range(4)]
    crews = {sent: power(4, 2, [[20, 30]], sent=sent) for sent in ("own", "mean")}
    norms: dict[str, list[float]] = {sent: [] for sent in crews}
    for number in range(200):
        noise = torch.randn(600, generator=generator)
        vectors = [own + 0.1 * noise for own in apart]
        means = []
        for sent, crew in crews.items():
            means.append(crew.exchange(vectors)[0].mean)
            norms[sent].append(float(crew.channels[0].memory["residual"].norm()))
        if number < 20:
            torch.testing.assert_close(means[0], means[1], rtol=1e-3, atol=1e-3)
    # An entry waits until the directions come round, twenty of them two at a time.
    assert max(norms["own"][150:]) < 1.2 * max(norms["own"][50:100]) < 12 * float(apart[0].norm())
    assert norms["mean"][199] > 1.9 * norms["mean"][99] > 3 * norms["own"][99]


@pytest.mark.parametrize(
    ("written", "today"),
    [
        ("PowerIteration(rank=3, warm_start=True)", PowerIteration(rank=3)),
        (
            "PowerIteration(rank=2, warm_start=True, counts_as_sent='mean')",
            PowerIteration(counts_as_sent="mean"),
        ),
        ("Accumulating(exchange=Gather())", Accumulating(Gather())),
        ("Accumulating(exchange=Gather(), rate=0.5)", Accumulating(Gather(), rate=0.5)),
    ],
)
def test_states_of_before_there_was_a_choice_know_the_exchange_by_its_text(written: str, today: Exchange) -> None:
    assert as_written_today(written) == repr(today)
    with pytest.raises(ConfigError, match="'own' or 'mean'"):
        PowerIteration(counts_as_sent="all")  # type: ignore[arg-type]


def unlike_directions(numel: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in (30, 20))
    matrix: Tensor = u[:, :20] * torch.logspace(0, -2, 20) @ v.T
    assert matrix.numel() == numel
    return matrix.reshape(-1)


def test_a_warm_start_comes_to_the_best_approximation() -> None:
    x = unlike_directions(600)
    singular = torch.linalg.svdvals(x.view(30, 20)).double()
    best = float(singular[2:].square().sum().sqrt())
    errors = {}
    for warm in (True, False):
        crew = power(1, 2, [[30, 20]], memory=NoMemory(), warm=warm)
        for _ in range(20):
            (aggregate,) = crew.exchange([x])
        errors[warm] = float((aggregate.mean - x).norm())
    assert errors[True] == pytest.approx(best, rel=0.01)
    assert errors[False] > 1.1 * best


@pytest.mark.parametrize("first", ["zeros", "one direction"])
def test_directions_that_have_vanished_are_drawn_anew(first: str) -> None:
    crew = power(2, 2, [[12, 10]], memory=NoMemory())
    one = torch.outer(torch.ones(12), torch.arange(10.0)).view(-1)
    crew.exchange([torch.zeros(120) if first == "zeros" else one] * 2)
    found = [next(iter(channel.exchange.values())) for channel in crew.channels]
    assert all(bool(directions.any(dim=1).all()) for directions in found)
    assert len({directions.numpy().tobytes() for directions in found}) == 1
    generator = torch.Generator().manual_seed(0)
    rank_two = torch.randn(12, 2, generator=generator) @ torch.randn(2, 10, generator=generator)
    mean = crew.exchange([rank_two.view(-1)] * 2)[0].mean
    torch.testing.assert_close(mean, rank_two.view(-1), rtol=1e-3, atol=1e-4)


def test_power_iteration_refuses_what_has_no_effect() -> None:
    with pytest.raises(ConfigError, match="a rank is 1 or more"):
        PowerIteration(rank=0)
    with pytest.raises(ConfigError, match="allow"):
        GradientAveraging(compressor=Sign(), exchange=PowerIteration())
