"""What every prediction of a step must obey, and where it must be exact: on links that have no noise."""

import itertools
from collections.abc import Callable
from typing import cast

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.network import Network, all_gather_s, all_reduce_s
from thinwire.simulator import Simulation
from thinwire.step_time import (
    Bucket,
    Compute,
    Curve,
    Exchange,
    LinkCurves,
    Round,
    Way,
    dense_step_s,
    hooked_step_s,
    synchronized_step_s,
)
from thinwire.step_time.curves import quantile
from thinwire.steps import Steps, all_gather, all_reduce, compute

NETWORKS = ("10Mbit,100ms", "100Mbit,20ms", "1Gbit,0.1ms")
SIZES = (64, 4096, 65_536, 1 << 20)


def straight(latency_s: float, byte_s: float) -> LinkCurves:
    curve = Curve(((0.0, latency_s), (1e6, latency_s + 1e6 * byte_s)))
    return LinkCurves(dict.fromkeys(Way, ((0.0, curve),)))


def of_network(network: Network, size: int) -> LinkCurves:
    """The curves that a network without noise would be measured to have."""
    gathers = tuple((float(n), all_gather_s(network, [n - 8] * size)) for n in SIZES)
    sums = tuple((float(n), all_reduce_s(network, n // 4, size)) for n in SIZES)
    return LinkCurves({Way.GATHER: ((0.0, Curve(gathers)),), Way.SUM: ((0.0, Curve(sums)),)})


def drawn(seed: int, count: int = 4) -> tuple[Compute, list[Exchange]]:
    """A step with buckets, and an exchange for each."""
    generator = torch.Generator().manual_seed(seed)
    moments = torch.rand(count, generator=generator, dtype=torch.float64).cumsum(0).tolist()
    costs = torch.rand(count, 2, generator=generator, dtype=torch.float64).tolist()
    sizes = torch.randint(1, 200_000, (count,), generator=generator).tolist()
    buckets = tuple(Bucket(size, at) for size, at in zip(sizes, moments, strict=True))
    exchanges = [
        Exchange(before, (Round(Way.GATHER, size, after),))
        for size, (before, after) in zip(sizes, costs, strict=True)
    ]  # fmt: skip
    return Compute(buckets, moments[-1] + 0.1, moments[-1] + 0.3), exchanges


@pytest.mark.parametrize("text", NETWORKS)
@pytest.mark.parametrize("size", [2, 4])
def test_a_step_that_waits_takes_what_the_simulator_takes(text: str, size: int) -> None:
    """Local steps, compression, a gather, decoding, a sum: on the virtual clock, and by the formula."""
    network, num_bytes, step_s, period = Network.parse(text), 65_536, 0.02, 5

    def program() -> Steps[None]:
        for _ in range(period):
            yield from compute(step_s)
        yield from compute(0.003)
        yield from all_gather(torch.zeros(num_bytes - 8, dtype=torch.uint8), list)
        yield from compute(0.002)
        yield from all_reduce(torch.zeros((1 << 20) // 4, dtype=torch.float32))
        yield from compute(0.001)

    simulation = Simulation(size, network)
    simulation.run([program() for _ in range(size)])
    exchange = Exchange(0.003, (Round(Way.GATHER, num_bytes, 0.002), Round(Way.SUM, 1 << 20, 0.001)))
    predicted = synchronized_step_s(step_s, exchange, of_network(network, size), period)
    assert predicted * period == pytest.approx(max(simulation.clocks), rel=1e-9)


PREDICTIONS: tuple[Callable[[Compute, list[Exchange], LinkCurves], float], ...] = (
    lambda compute, exchanges, link: dense_step_s(compute, link, 4),
    lambda compute, exchanges, link: dense_step_s(compute, link, 2, exchanges),
    lambda compute, exchanges, link: hooked_step_s(compute, exchanges, link),
    lambda compute, exchanges, link: hooked_step_s(compute, exchanges, link, hidden=0.3),
    lambda compute, exchanges, link: synchronized_step_s(compute.step_s, exchanges[0], link, 3.0),
)


@pytest.mark.parametrize("number", range(len(PREDICTIONS)))
@pytest.mark.parametrize("seed", range(5))
def test_a_slower_link_never_shortens_a_step_and_none_beats_computing(number: int, seed: int) -> None:
    predict = PREDICTIONS[number]
    compute, exchanges = drawn(seed)
    found = [
        predict(compute, exchanges, straight(latency, byte))
        for latency in (0.0, 0.1, 1.0)
        for byte in (0.0, 1e-6, 1e-5)
    ]
    by_latency = [found[place::3] for place in range(3)]
    by_byte = [found[place : place + 3] for place in (0, 3, 6)]
    for row in (*by_latency, *by_byte):
        assert row == sorted(row)
    assert found[0] >= compute.step_s - 1e-12
    assert found[-1] > found[0]


@pytest.mark.parametrize("seed", range(5))
def test_more_bytes_or_more_compression_never_shorten_a_step(seed: int) -> None:
    compute, exchanges = drawn(seed)
    link = straight(0.05, 2e-6)
    for hidden in (0.0, 0.5, 1.0):
        before = hooked_step_s(compute, exchanges, link, hidden)
        for place, each in enumerate(exchanges):
            (turn,) = each.rounds
            for changed in (
                Exchange(each.before_s + 0.1, each.rounds),
                Exchange(each.before_s, (Round(turn.way, turn.num_bytes + 50_000, turn.after_s),)),
                Exchange(each.before_s, (Round(turn.way, turn.num_bytes, turn.after_s + 0.1),)),
            ):
                other = [*exchanges[:place], changed, *exchanges[place + 1 :]]
                assert hooked_step_s(compute, other, link, hidden) >= before - 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_what_is_not_hidden_lengthens_backward(seed: int) -> None:
    """Without a link to wait for, one processor does everything in turn and two do some of it together."""
    compute, exchanges = drawn(seed)
    free = straight(0.0, 0.0)
    codec_s = sum(each.codec_s for each in exchanges)
    shared, hidden = (hooked_step_s(compute, exchanges, free, share) for share in (0.0, 1.0))
    assert hidden <= shared + 1e-12
    assert compute.step_s - 1e-12 <= hidden
    assert shared <= compute.step_s + codec_s + 1e-12


def test_one_bucket_is_handed_over_compressed_sent_and_decoded() -> None:
    compute = Compute((Bucket(1000, 2.0),), 2.5, 3.0)
    link = straight(0.5, 1e-3)
    # 2 handed over, 1 compressed, .5 + 1 on the wire, .25 decoded, .5 the optimizer.
    assert hooked_step_s(compute, [Exchange(1.0, (Round(Way.GATHER, 1000, 0.25),))], link) == pytest.approx(5.25)
    assert dense_step_s(compute, link, 4) == pytest.approx(2.0 + 0.5 + 4.0 + 0.5)
    rounds = (Round(Way.TORCH_SUM, 100, 0.0), Round(Way.TORCH_SUM, 200, 0.0), Round(Way.TORCH_SUM, 300, 0.5))
    assert hooked_step_s(compute, [Exchange(1.0, rounds)], link) == pytest.approx(2 + 1 + 3 * 0.5 + 0.6 + 0.5 + 0.5)


def test_two_buckets_of_ddp_wait_together_and_share_the_bandwidth() -> None:
    """Both begin at 1: their latencies pass together until 2, then 1 s and 3 s of bytes share the link until 6."""
    compute = Compute((Bucket(250, 1.0), Bucket(750, 1.0)), 1.0, 1.0)
    assert dense_step_s(compute, straight(1.0, 1e-3), 4) == pytest.approx(6.0)
    # A third one begins when the first is done, at 4, and has the link to itself from 6 on, but for the last bytes.
    three = Compute((*compute.buckets, Bucket(250, 1.0)), 1.0, 1.0)
    assert dense_step_s(three, straight(1.0, 1e-3), 4) == pytest.approx(7.0)


@pytest.mark.parametrize("seed", range(5))
def test_buckets_of_ddp_end_no_sooner_than_their_bytes_allow_and_no_later_than_in_turn(seed: int) -> None:
    compute, _ = drawn(seed, count=6)
    latency_s, byte_s = 0.2, 2e-6
    found = dense_step_s(compute, straight(latency_s, byte_s), 4) - (compute.step_s - compute.backward_s)
    in_turn = 0.0
    for bucket in compute.buckets:
        in_turn = max(in_turn, bucket.handed_s) + latency_s + 4 * bucket.numel * byte_s
    last = compute.buckets[-1]
    bytes_s = byte_s * 4 * sum(bucket.numel for bucket in compute.buckets)
    least = max(compute.buckets[0].handed_s + latency_s + bytes_s, last.handed_s + latency_s + 4 * last.numel * byte_s)
    assert least - 1e-9 <= found <= in_turn + 1e-9


def test_a_curve_goes_through_its_points_and_never_falls() -> None:
    points = ((10.0, 1.0), (20.0, 3.0), (40.0, 2.0), (80.0, 4.0))
    curve = Curve(points)
    assert [curve.seconds(size) for size, _ in points] == [1.0, 3.0, 3.0, 4.0]
    seen = [curve.seconds(size) for size in range(0, 200, 3)]
    assert all(before <= after for before, after in itertools.pairwise(seen))
    assert curve.seconds(0) == 1.0
    assert curve.seconds(120) == pytest.approx(5.0)
    assert Curve(((5.0, 2.0),)).seconds(1e9) == 2.0


def test_a_link_that_was_idle_takes_what_was_measured_after_that_time() -> None:
    curves = ((0.1, Curve(((0.0, 1.0),))), (0.5, Curve(((0.0, 2.0),))))
    link = LinkCurves({Way.GATHER: curves})
    assert [link.seconds(Way.GATHER, 9, idle) for idle in (0.0, 0.1, 0.3, 0.5, 9.0)] == pytest.approx(
        [1.0, 1.0, 1.5, 2.0, 2.0]
    )
    exchange = Exchange(0.0, (Round(Way.GATHER, 9), Round(Way.GATHER, 9)))
    # Of two rounds only the first finds the link idle.
    assert exchange.seconds(link, 0.5) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Curve(()), "at least one point"),
        (lambda: Curve(((2.0, 1.0), (1.0, 1.0))), "bytes that ascend"),
        (lambda: Curve(((0.0, -1.0),)), "seconds from 0 on"),
        (lambda: Exchange(-1.0), "0 or more"),
        (lambda: LinkCurves({}).seconds(Way.SUM, 1), "not measured"),
        (lambda: synchronized_step_s(1.0, Exchange(), straight(0, 0), 0.5), "1 or more"),
        (lambda: hooked_step_s(Compute((), 1, 1), [], straight(0, 0)), "each bucket has one"),
        (lambda: hooked_step_s(Compute((Bucket(1, 0),), 1, 1), [Exchange()], straight(0, 0), 2.0), "from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(make: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cast(Callable[[], object], make)()


def test_quantiles_are_those_of_torch() -> None:
    values = torch.rand(17, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for share in (0.0, 0.1, 0.5, 0.77, 1.0):
        assert quantile(values.tolist(), share) == pytest.approx(float(values.quantile(share)))
