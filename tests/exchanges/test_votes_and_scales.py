"""Votes, shared scales, and exchanges that change the mean of another one."""

import math

import numpy as np
import pytest
import torch
from exchange_cases import Party, vectors_of
from torch import Tensor

from thinwire.compressors import QSGD, Compressor, GSpar, Identity, PlainSign, TernGrad, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import (
    Accumulating,
    Context,
    Exchange,
    Gather,
    MajorityVote,
    ParameterServer,
    SharedScale,
    SignOf,
    VarianceScaled,
)
from thinwire.layout import Granularity, Layout, PerTensor, Segments, Whole
from thinwire.memory import EF21, ErrorFeedback, Handed, Memory, MemorySender, NoMemory
from thinwire.methods import GradientAveraging
from thinwire.random import Key
from thinwire.simulator import Simulation

NUMEL = 60


def party(
    exchange: Exchange,
    compressor: Compressor,
    size: int,
    memory: Memory | None = None,
    granularity: Granularity = Whole(),
    shapes: list[list[int]] | None = None,
) -> Party:
    method = GradientAveraging(
        memory=memory or NoMemory(), compressor=compressor, exchange=exchange, granularity=granularity
    )
    return Party(method, size, NUMEL, shapes=shapes)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("route", ["server", "gather"])
def test_a_majority_decides_and_a_tie_is_positive(route: str, size: int) -> None:
    crew = party(MajorityVote(route, server=size - 1), PlainSign(), size)  # type: ignore[arg-type]
    vectors = vectors_of(size, NUMEL, 1)
    for number, vector in enumerate(vectors):
        vector[number::7] = 0.0
        vector[::11] = -0.0
    votes = np.sum([np.where(vector.numpy() < 0, -1, 1) for vector in vectors], axis=0)
    assert size % 2 or (votes == 0).any()
    for aggregate, vector in zip(crew.exchange(vectors), vectors, strict=True):
        assert np.array_equal(aggregate.mean.numpy(), np.where(votes < 0, -1.0, 1.0))
        assert np.array_equal(aggregate.sent.to_dense().numpy(), np.where(vector.numpy() < 0, -1.0, 1.0))


@pytest.mark.parametrize("size", [2, 5])
def test_votes_take_a_bit_an_entry_both_ways(size: int) -> None:
    numel, frame = 4000, 8
    for route in ("server", "gather"):
        method = GradientAveraging(compressor=PlainSign(), exchange=MajorityVote(route))
        crew = Party(method, size, numel)
        (length,) = {each.message_bytes for each in crew.exchange(vectors_of(size, numel, 1))}
        assert numel / 8 <= length <= numel / 8 + 24
        sent = [link.bytes_sent for link in crew.traffic]
        received = [link.bytes_received for link in crew.traffic]
        all_others = (size - 1) * (length + frame)
        alone = [length + frame] * (size - 1) if route == "server" else [all_others] * (size - 1)
        assert sent == received == [all_others, *alone]


def test_only_signs_are_counted() -> None:
    with pytest.raises(ConfigError, match="sends no signs"):
        party(MajorityVote(), TopK(k=1), 2)
    with pytest.raises(ConfigError, match="worker 2 is to count"):
        party(MajorityVote(server=2), PlainSign(), 2)
    with pytest.raises(ConfigError, match="'server' or 'gather'"):
        MajorityVote("post")  # type: ignore[arg-type]


SHAPES = [[5, 8], [20]]


@pytest.mark.parametrize("exchange", [Gather(), ParameterServer()], ids=str)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_sum_of_ternary_messages_is_small_integers_times_the_largest_scale(size: int, exchange: Exchange) -> None:
    crew = party(SharedScale(exchange), TernGrad(clip=None), size, granularity=PerTensor(), shapes=SHAPES)
    vectors = vectors_of(size, NUMEL, 2)
    largest = torch.stack(vectors).abs().amax(dim=0)
    scales = torch.cat([largest[:40].amax().repeat(40), largest[40:].amax().repeat(20)])
    for aggregate in crew.exchange(vectors):
        sums = aggregate.mean / scales * size
        assert bool(((sums - sums.round()).abs() < 1e-4).all())
        assert float(sums.abs().max()) <= size + 1e-4
        levels = aggregate.sent.to_dense() / scales
        assert set(levels.unique().tolist()) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("clip", [None, 2.5])
def test_ternary_messages_at_a_shared_scale_are_right_on_average(clip: float | None) -> None:
    size, count = 3, 120
    crew = party(SharedScale(), TernGrad(clip=clip), size)
    vectors = vectors_of(size, NUMEL, 3)
    # Each worker clips at its own deviation; the scale is the largest of what is left.
    clipped = [v if clip is None else v.clamp(-(b := clip * float(v.std(correction=0))), b) for v in vectors]
    scale = max(float(each.abs().max()) for each in clipped)
    total = sum(crew.exchange(vectors)[0].mean.double() for _ in range(count))
    expected = torch.stack(clipped).double()
    deviation = (scale * expected.abs() - expected.square()).clamp(min=1e-12).sum(dim=0).sqrt() / size / count**0.5
    assert bool(((total / count - expected.mean(dim=0)).abs() < 5 * deviation).all())
    assert clip is None or not torch.equal(clipped[0], vectors[0])


def test_a_scale_is_shared_by_operators_that_have_one() -> None:
    with pytest.raises(ConfigError, match="has no scale that workers could share"):
        party(SharedScale(), TopK(k=1), 2)
    # 14 bytes of scales with their frame, beside the messages.
    apart = party(Gather(), TernGrad(), 4).exchange(vectors_of(4, NUMEL, 0))[0].message_bytes
    shared = party(SharedScale(), TernGrad(), 4).exchange(vectors_of(4, NUMEL, 0))[0].message_bytes
    assert 4 < shared - apart < 20


def test_a_memory_hears_what_was_sent_at_the_shared_scale() -> None:
    layout, x = Layout(("v",), (torch.Size([NUMEL]),)), vectors_of(1, NUMEL, 5)[0]
    sender = MemorySender(TernGrad(), ErrorFeedback(), {"residual": torch.ones(NUMEL)})
    ctx = Context(0, 1, Key(0), Segments.whole(NUMEL), 999, layout)
    (aggregate,) = Simulation(1).run([SharedScale().run(Handed(x.clone()), sender, ctx, {})])
    assert sender.next_state is not None
    assert torch.equal(sender.next_state["residual"], 1.0 + x - aggregate.mean)


@pytest.mark.parametrize("inner", [Gather(), ParameterServer()], ids=str)
def test_changes_add_up_to_the_mean_of_the_estimates(inner: Exchange) -> None:
    size = 3
    crew = party(Accumulating(inner), TopK(k=4), size, memory=EF21())
    for seed in range(12):
        vectors = vectors_of(size, NUMEL, seed)
        if seed == 5:
            # What fails changes neither the estimates nor their mean.
            before = crew.bits()
            broken = [vectors[0], vectors[1].clone(), vectors[2]]
            broken[1][7] = math.inf
            assert not any(each.finite for each in crew.exchange(broken))
            assert crew.bits() == before
        aggregates = crew.exchange(vectors)
        estimates = torch.stack([channel.memory["estimate"] for channel in crew.channels])
        for aggregate in aggregates:
            torch.testing.assert_close(aggregate.mean, estimates.mean(dim=0), rtol=1e-5, atol=1e-5)
        if seed == 0:
            assert all(int(estimate.count_nonzero()) == 4 for estimate in estimates)


def test_estimates_of_exact_changes_are_the_vectors() -> None:
    crew = party(Accumulating(), Identity(), 3, memory=EF21())
    for seed in range(5):
        vectors = vectors_of(3, NUMEL, seed)
        for aggregate in crew.exchange(vectors):
            torch.testing.assert_close(aggregate.mean, torch.stack(vectors).mean(dim=0), rtol=1e-5, atol=1e-5)


def test_changes_are_sent_only_to_who_adds_them_up() -> None:
    for given in ({"memory": EF21(), "exchange": Gather()}, {"memory": ErrorFeedback(), "exchange": Accumulating()}):
        with pytest.raises(ConfigError, match="changes of an estimate"):
            GradientAveraging(compressor=TopK(k=1), **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must not be reset"):
        GradientAveraging(compressor=TopK(k=1), memory=EF21(), exchange=Accumulating(), reset_memory=True)


def test_a_sign_is_taken_after_the_mean_and_leaves_the_memory_alone() -> None:
    signed = party(SignOf(), TopK(k=3), 3, memory=ErrorFeedback())
    plain = party(Gather(), TopK(k=3), 3, memory=ErrorFeedback())
    for seed in range(4):
        vectors = vectors_of(3, NUMEL, seed)
        for mine, other in zip(signed.exchange(vectors), plain.exchange(vectors), strict=True):
            assert torch.equal(mine.mean, other.mean.sign())
            assert int((mine.mean == 0).sum()) >= NUMEL - 9
    assert signed.bits() == plain.bits()
    assert signed.traffic == plain.traffic


@pytest.mark.parametrize("size", [1, 4])
def test_steps_are_divided_by_the_second_moment_that_was_measured(size: int) -> None:
    compressor = GSpar(density=0.2)
    scaled, plain = party(VarianceScaled(), compressor, size), party(Gather(), compressor, size)
    vectors = vectors_of(size, NUMEL, 4)
    mine, others = scaled.exchange(vectors), plain.exchange(vectors)
    ratios = [
        float(each.sent.to_dense().double().square().sum() / vector.double().square().sum())
        for each, vector in zip(others, vectors, strict=True)
    ]
    ratio = float(np.mean(ratios))
    assert ratio != pytest.approx(1.0, rel=0.01)
    for aggregate, other in zip(mine, others, strict=True):
        torch.testing.assert_close(aggregate.mean, other.mean / ratio, rtol=1e-5, atol=1e-6)
        assert aggregate.message_bytes == other.message_bytes + 4


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**20])
def test_the_ratio_has_no_unit(scale: float) -> None:
    large, small = party(VarianceScaled(), GSpar(density=0.2), 3), party(VarianceScaled(), GSpar(density=0.2), 3)
    vectors = vectors_of(3, NUMEL, 4)
    first, second = large.exchange(vectors)[0], small.exchange([vector * scale for vector in vectors])[0]
    torch.testing.assert_close(second.mean / scale, first.mean, rtol=1e-5, atol=1e-7)


def test_a_ratio_that_is_known_costs_nothing_and_is_that_of_the_operator() -> None:
    known = party(VarianceScaled(Gather(), ratio=1.5), GSpar(variance=0.5), 2)
    measured = party(VarianceScaled(), GSpar(variance=0.5), 2)
    plain = party(Gather(), GSpar(variance=0.5), 2)
    factors = []
    for seed in range(60):
        vectors = vectors_of(2, NUMEL, seed % 5, heavy=False)
        mine, other, base = (crew.exchange(vectors)[0] for crew in (known, measured, plain))
        torch.testing.assert_close(mine.mean, base.mean / 1.5, rtol=1e-6, atol=1e-7)
        place = int(base.mean.abs().argmax())
        factors.append(float(base.mean[place] / other.mean[place]))
    assert known.traffic == plain.traffic
    assert float(np.mean(factors)) == pytest.approx(1.5, rel=0.06)


@pytest.mark.parametrize("size", [1, 3])
def test_exact_messages_have_no_variance(size: int) -> None:
    scaled, plain = party(VarianceScaled(), Identity(), size), party(Gather(), Identity(), size)
    vectors = vectors_of(size, NUMEL, 4)
    for mine, other in zip(scaled.exchange(vectors), plain.exchange(vectors), strict=True):
        assert mine.mean.numpy().tobytes() == other.mean.numpy().tobytes()


def zeros_and_ones() -> list[Tensor]:
    return [torch.zeros(NUMEL), torch.ones(NUMEL)]


@pytest.mark.parametrize("vectors", [[torch.zeros(NUMEL)] * 2, zeros_and_ones()], ids=["zeros", "one of zeros"])
def test_vectors_of_zeros_have_no_variance(vectors: list[Tensor]) -> None:
    for compressor in (GSpar(density=0.5), QSGD(levels=3)):
        for aggregate in party(VarianceScaled(), compressor, 2).exchange(vectors):
            assert aggregate.finite
            assert bool(torch.isfinite(aggregate.mean).all())


@pytest.mark.parametrize("ratio", [0.5, math.inf, math.nan])
def test_a_ratio_below_one_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="at least"):
        VarianceScaled(ratio=ratio)
