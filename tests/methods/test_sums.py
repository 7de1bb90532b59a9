"""Methods whose messages are added before they are decoded: the recursions of the papers, and the laws of sums."""

import itertools
import math

import numpy as np
import pytest
import torch
from exchange_cases import Party
from torch import Tensor

from thinwire.compressors import Sign, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Context, IntegerSum, TableSum
from thinwire.exchanges.integer_sum import integer_unit
from thinwire.kernels.bitpack.bits import pack, unpack
from thinwire.kernels.quantize.stochastic_table import quantile, rounding_table, rounding_variance
from thinwire.layout import Layout, Segments
from thinwire.methods import GradientAveraging, parse_method
from thinwire.payloads import Codebook, Levels, Rotated, Sparse
from thinwire.random import Key
from thinwire.wire import decode, encode

NUMEL, SIZE, LR = 30, 3, 0.1


def gradients(x: np.ndarray, step: int) -> np.ndarray:
    """Of quadratics that differ between workers, with noise: f64 ``[P, d]``."""
    generator = np.random.default_rng(0)
    curvatures, centres = generator.uniform(0.3, 1.2, (SIZE, NUMEL)), generator.normal(size=(SIZE, NUMEL))
    return curvatures * (x - centres) + 0.1 * np.random.default_rng(step + 1).normal(size=(SIZE, NUMEL))


def test_scalecom_is_the_papers_recursion() -> None:
    crew, beta, k = Party(parse_method("scalecom:k=4,beta=0.3"), SIZE, NUMEL), 0.3, 4
    memory = np.zeros((SIZE, NUMEL))
    x = x_paper = np.zeros(NUMEL)
    for step in range(80):
        found = crew.exchange([torch.tensor(g, dtype=torch.float32) for g in gradients(x, step)])
        g = gradients(x_paper, step)
        leader = step % SIZE
        chosen = np.argsort(-np.abs(memory[leader] + g[leader]), kind="stable")[:k]
        sent = np.zeros((SIZE, NUMEL))
        sent[:, chosen] = (memory + g)[:, chosen]
        memory = (1 - beta) * memory + beta * (memory + g - sent)
        mean = found[0].mean.double().numpy()
        assert np.abs(mean - sent.mean(axis=0)).max() < 1e-6 * max(1.0, np.abs(sent).max())
        x, x_paper = x - LR * mean, x_paper - LR * sent.mean(axis=0)
        assert found[(leader + 1) % SIZE].message_bytes == 4 * (k + 1) < found[leader].message_bytes
    kept = np.stack([channel.memory["residual"].numpy() for channel in crew.channels])
    assert np.abs(kept - memory).max() < 3e-6


@pytest.mark.parametrize("granularity", ["whole", "16"])
@pytest.mark.parametrize("format", ["int8", "int16", "int32"])
def test_intsgd_is_the_papers_recursion(format: str, granularity: str) -> None:
    """The unit of each step, and the mean as the sum of integers that P workers rounded, times the unit over P."""
    crew = Party(parse_method(f"intsgd:format={format},granularity={granularity}"), SIZE, NUMEL)
    sizes = [NUMEL] if granularity == "whole" else [16, 14]
    largest = min(32767, int(torch.iinfo(getattr(torch, format)).max) // SIZE)
    r = np.zeros(len(sizes))
    x = np.zeros(NUMEL)
    off = []
    for step in range(60):
        g = gradients(x, step)
        found = crew.exchange([torch.tensor(each, dtype=torch.float32) for each in g])
        mean = found[0].mean.double().numpy()
        assert len({each.mean.numpy().tobytes() for each in found}) == 1
        if step == 0:
            assert np.abs(mean - g.mean(axis=0)).max() < 1e-6
            assert found[0].message_bytes == 4 * NUMEL
        else:
            units = np.repeat([integer_unit(each, SIZE, size) for each, size in zip(r, sizes, strict=True)], sizes)
            integers = mean * SIZE / units
            assert np.abs(integers - integers.round()).max() < 1e-6 * largest * SIZE
            levels = [each.sent for each in found]
            assert all(isinstance(each, Levels) for each in levels)
            each_levels = np.stack([each.levels().numpy() for each in levels if isinstance(each, Levels)])
            # Rounded to a neighbour or clipped; the sum is that of what each worker's message decodes to.
            clipped = np.clip(g / units, -largest, largest)
            assert np.abs(each_levels - clipped).max() < 1 + 1e-3
            assert np.array_equal(each_levels.sum(axis=0), integers.round())
            total = sum(decode(encode(each)).to_dense().double() for each in levels)
            assert np.abs(np.asarray(total) / SIZE - mean).max() < 1e-6 * np.abs(g).max()
            assert found[0].message_bytes == (NUMEL + 1) * torch.iinfo(getattr(torch, format)).bits // 8
            off.append((each_levels - clipped).ravel())
        squares = np.array([np.square(part).sum() for part in np.split(mean, np.cumsum(sizes)[:-1])])
        r = 0.9 * r + 0.1 * squares if step else squares
        x = x - LR * mean
    errors = np.concatenate(off)
    assert abs(errors.mean()) < 5 * errors.std() / math.sqrt(errors.size)


def test_integers_never_overflow_and_more_workers_than_they_have_room_for_are_refused() -> None:
    crew = Party(parse_method("intsgd"), 5, 8)
    crew.exchange([torch.full((8,), 1e-3)] * 5)
    for sign in (1.0, -1.0):
        (found, *_) = crew.exchange([torch.full((8,), sign * 1e20)] * 5)
        # 25 of the unit from each: clipped, and of the right sign.
        assert bool((found.mean * sign > 0).all())
        assert float(found.mean.abs().max()) < 10.0
    for format, most in (("int8", 127), ("int16", 32767)):
        exchange = IntegerSum(format)  # type: ignore[arg-type]
        assert exchange.largest(most) == 1
        assert exchange.largest(most + 1) == 0
    ctx = Context(0, 128, Key(0), Segments.whole(4), 99, Layout(("w",), (torch.Size([4]),)))
    with pytest.raises(ConfigError, match="int16"):
        IntegerSum().init(ctx, parse_method("sgd").compressor)
    with pytest.raises(ConfigError, match="leave it out"):
        IntegerSum().init(ctx, TopK(k=1))


@pytest.mark.parametrize(("bits", "granularity", "tail"), [(2, 6, 0.05), (2, 9, 1 / 32), (3, 9, 0.3), (1, 4, 0.1)])
def test_no_table_has_less_variance(bits: int, granularity: int, tail: float) -> None:
    t = quantile(tail)

    def variance(table: tuple[int, ...]) -> float:
        points = [(2 * r / granularity - 1) * t for r in table]
        return sum(rounding_variance(a, b) for a, b in itertools.pairwise(points))

    inner = itertools.combinations(range(1, granularity), 2**bits - 2)
    best = min(variance((0, *each, granularity)) for each in inner)
    table = rounding_table(bits, granularity, tail)
    assert len(table) == 2**bits
    assert variance(table) == pytest.approx(best, rel=1e-12)
    # The integral, by the midpoint rule.
    z = (np.arange(200_000) + 0.5) / 200_000 * 1.7 - 0.4
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    assert rounding_variance(-0.4, 1.3) == pytest.approx(
        float(((z + 0.4) * (1.3 - z) * density).mean() * 1.7), rel=1e-6
    )


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_sum_of_codes_is_the_sum_of_what_they_stand_for(size: int) -> None:
    """Round trip on the wire, integers exact, and as many bits as were promised."""
    exchange, segments = TableSum(), Segments.of_sizes([32, 5])
    table = torch.tensor(exchange.table(), dtype=torch.float32) / 15.0 - 1.0
    generator = torch.Generator().manual_seed(size)
    codes = torch.randint(0, 16, (size, 37), generator=generator)
    parts = [Codebook(pack(each, 4), table, torch.tensor([2.0, 0.5]), segments) for each in codes]
    total = exchange.added(parts)
    integers = torch.tensor(exchange.table())[codes].sum(dim=0)
    assert torch.equal(unpack(total.codes, 37, total.width), integers.int())
    assert total.width == (30 * size).bit_length()
    again = decode(encode(total))
    assert torch.equal(again.to_dense(), total.to_dense())
    mean = torch.stack([decode(encode(part)).to_dense().double() for part in parts]).mean(dim=0)
    torch.testing.assert_close(total.to_dense().double(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4])
def test_thc_sends_the_mean_of_its_messages_and_remembers_the_rest(size: int) -> None:
    crew = Party(parse_method("thc"), size, 100)
    owed = torch.zeros(100, dtype=torch.float64)
    for step in range(50):
        vectors = list(torch.randn(size, 100, generator=torch.Generator().manual_seed(step)))
        found = crew.exchange(vectors)
        assert all(isinstance(each.sent, Rotated) for each in found)
        sent = torch.stack([each.sent.to_dense().double() for each in found])
        torch.testing.assert_close(found[0].mean.double(), sent.mean(dim=0), rtol=1e-4, atol=1e-5)
        owed += torch.stack(vectors).double().mean(dim=0) - found[0].mean.double()
        kept = torch.stack([channel.memory["residual"] for channel in crew.channels]).double().mean(dim=0)
        torch.testing.assert_close(kept, owed, rtol=1e-4, atol=1e-4)


def test_codes_are_unbiased_where_nothing_is_clipped() -> None:
    draws, vectors = 250, list(torch.randn(2, 64, generator=torch.Generator().manual_seed(9)))
    results = []
    for seed in range(draws):
        (found, *_) = Party(parse_method("thc:memory=none,tail=0.01%"), 2, 64, seed).exchange(vectors)
        results.append(found.mean.double())
    each = torch.stack(results)
    off = each.mean(dim=0) - torch.stack(vectors).double().mean(dim=0)
    assert float(off.norm()) < 1.3 * float((each.var(dim=0).sum() / draws).sqrt())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: TableSum(bits=5), "at least 2\\^bits"),
        (lambda: TableSum(bits=0), "1 to 8 bits"),
        (lambda: TableSum(tail=0.0), "below 1"),
        (lambda: TableSum(block=3), "power of two"),
        (lambda: IntegerSum(beta=1.0), "below 1"),
        (lambda: parse_method("scalecom:beta=0"), "at most 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()  # type: ignore[operator]


def test_a_leader_needs_entries_to_choose() -> None:
    method = parse_method("scalecom")
    assert isinstance(method, GradientAveraging)
    with pytest.raises(ConfigError, match="does not choose"):
        Party(GradientAveraging(memory=method.memory, compressor=Sign(), exchange=method.exchange), 2, 8)


def test_the_leaders_support_is_everybodys() -> None:
    crew = Party(parse_method("scalecom:k=5"), 4, 40)
    for step in range(8):
        vectors = list(torch.randn(4, 40, generator=torch.Generator().manual_seed(step)))
        intended = vectors[step % 4] + crew.channels[step % 4].memory["residual"]
        found = crew.exchange(vectors)
        chosen: list[Tensor] = []
        for each in found:
            assert isinstance(each.sent, Sparse)
            chosen.append(each.sent.indices)
        assert all(torch.equal(each.sort().values, chosen[0].sort().values) for each in chosen)
        assert set(chosen[0].tolist()) == set(intended.abs().topk(5).indices.tolist())
