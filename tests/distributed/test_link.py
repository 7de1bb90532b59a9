"""The link between real processes, what is predicted from it, and what exchanges are measured to cost."""

import functools
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import link_mains as mains
import pytest
import torch

from thinwire.distributed import Transport
from thinwire.distributed.link_speed import LARGEST_BYTES, SMALLEST_BYTES, dense_exchange_s, fit_link, measure_link
from thinwire.distributed.probe import Cost, _line
from thinwire.errors import ConfigError
from thinwire.experiments.launch import launch
from thinwire.methods import ModelAveraging, PostLocal, RandomGaps, exchanges_per_step, parse_method
from thinwire.network import Network, Traffic, all_gather_traffic, all_reduce_s, all_reduce_traffic

SIZE = 2
RANKS = range(SIZE)
NUMEL = sum(mains.SIZES)
LOCAL = parse_method("local-sgd:every=100")
assert isinstance(LOCAL, ModelAveraging)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("link")
    launch(SIZE, functools.partial(mains.measure_everything, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=False) for rank in RANKS]


class Ring:
    """All-reduces on a link of the test's own: P - 1 rounds to sum, P - 1 to spread."""

    def __init__(self, latency_s: float, bandwidth_Bps: float, size: int) -> None:
        self.latency_s, self.bandwidth_Bps, self.size = latency_s, bandwidth_Bps, size
        self.num_bytes: list[int] = []
        self.seconds: list[float] = []

    def __call__(self, num_bytes: int) -> float:
        self.num_bytes.append(num_bytes)
        one_way = self.latency_s + num_bytes / self.size / self.bandwidth_Bps
        self.seconds.append((self.size - 1) * one_way + (self.size - 1) * one_way)
        return self.seconds[-1]


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize(
    ("latency_s", "bandwidth_Bps"), [(1e-5, 5e9), (1e-4, 1.25e8), (2e-2, 1.25e7), (1e-3, 1.25e6), (0.3, 1e8)]
)
def test_a_ring_gives_its_link_back_soon(latency_s: float, bandwidth_Bps: float, size: int) -> None:
    ring = Ring(latency_s, bandwidth_Bps, size)
    network = fit_link(ring, size)
    assert network.bandwidth_Bps == pytest.approx(bandwidth_Bps, rel=1e-6)
    # The few bytes of a small round count as latency.
    assert network.latency_s == pytest.approx(latency_s + 4 / bandwidth_Bps, rel=1e-6)
    large = [num_bytes for num_bytes in ring.num_bytes if num_bytes > 4 * size]
    assert large[0] == SMALLEST_BYTES
    assert max(large) <= LARGEST_BYTES
    assert all(after in (before, 2 * before, 4 * before) for before, after in itertools.pairwise(large))
    assert sum(ring.seconds) < 0.6 + 10 * 2 * (size - 1) * latency_s


def test_a_10_mbit_link_is_busy_for_less_than_half_a_second() -> None:
    ring = Ring(1e-3, 1.25e6, 2)
    fit_link(ring, 2)
    assert sum(ring.seconds) < 0.5


def test_a_fast_link_is_measured_by_large_messages() -> None:
    ring = Ring(1e-5, 1e9, 2)
    fit_link(ring, 2)
    assert ring.num_bytes.count(LARGEST_BYTES) == 3


def test_a_small_round_that_takes_longer_than_a_large_one_still_gives_a_link() -> None:
    network = fit_link(lambda num_bytes: 0.01 if num_bytes < 1000 else 0.001, 2)
    assert 0 < network.bandwidth_Bps < math.inf
    assert network.latency_s == pytest.approx(0.005)


@pytest.mark.parametrize("size", [2, 3, 16])
def test_a_dense_exchange_is_a_ring(size: int) -> None:
    numel = 48 * 125_000
    network = Network(bandwidth_Bps=1e7, latency_s=3e-3)
    rounds, bytes_each = 2 * (size - 1), 4 * numel / size
    assert dense_exchange_s(network, 4 * numel, size) == pytest.approx(rounds * (3e-3 + bytes_each / 1e7))
    # The direct exchange of this library moves the same bytes, in two rounds whatever the number of processes, of which
    # the second begins with the first piece.
    saved = (rounds - 2) * 3e-3
    both = dense_exchange_s(network, 4 * numel, size) - saved
    assert both - 3e-3 <= all_reduce_s(network, numel, size) * (1 + 1e-9) <= both * (1 + 1e-6)


def test_a_slow_way_up_or_one_slow_process_slows_all() -> None:
    plain = Network(bandwidth_Bps=1e6, latency_s=0.0)
    assert dense_exchange_s(Network.parse("8Mbit,0ms,up=4Mbit"), 1000, 2) == 2 * dense_exchange_s(plain, 1000, 2)
    assert dense_exchange_s(Network.parse("8Mbit,0ms;1:4Mbit,0ms"), 1000, 2) == 2 * dense_exchange_s(plain, 1000, 2)


def test_every_process_finds_the_same_link_and_nothing_is_counted(found: list[dict[str, Any]]) -> None:
    assert found[0]["networks"] == found[1]["networks"]
    for network in found[0]["networks"]:
        assert 1e6 < network.bandwidth_Bps < 1e12
        assert 0 < network.latency_s < 1
        assert network.links == ()
    assert all(each["traffic"] == Traffic() for each in found)


def test_the_hook_warns_once_in_one_process_where_dense_is_faster(found: list[dict[str, Any]]) -> None:
    (message,) = found[0]["hooks"]["ideal"]["messages"]
    assert "MB, are predicted to take" in message
    num_parameters = 6 * 20 + 20 + 20 * 3 + 3
    assert f"dense ones in 16 bits, {2e-6 * num_parameters:.3g} MB, are" in message
    assert "warn_if_slower=False" in message
    assert found[1]["hooks"]["ideal"]["messages"] == []
    assert [each["hooks"]["hopeless"]["messages"] for each in found] == [[], []]
    assert [each["hooks"]["off"]["messages"] for each in found] == [[], []]


def test_watching_changes_neither_gradients_nor_counts(found: list[dict[str, Any]]) -> None:
    for each in found:
        hooks = each["hooks"]
        assert hooks["off"]["network"] is None
        assert hooks["off"]["traffic"].bytes_sent > 0
        for name in ("ideal", "hopeless", "own"):
            assert hooks[name]["network"].bandwidth_Bps > 0
            assert hooks[name]["traffic"] == hooks["off"]["traffic"]
            assert torch.equal(hooks[name]["grad"], hooks["off"]["grad"])
    assert found[0]["hooks"]["own"]["network"] == found[1]["hooks"]["own"]["network"]


def test_what_is_measured_is_common_and_counts_the_bytes_of_a_step(found: list[dict[str, Any]]) -> None:
    costs = found[0]["costs"]["ample"]
    assert costs == found[1]["costs"]["ample"]
    dense = all_reduce_traffic(NUMEL, SIZE)[0]
    for method, every in (("sgd", 1), ("local-sgd:every=3", 3)):
        assert costs[method].bytes_sent == pytest.approx(dense.bytes_sent / every)
        assert costs[method].bytes_received == pytest.approx(dense.bytes_received / every)
    for method in mains.PROBED:
        assert not costs[method].is_predicted
        assert 1 <= costs[method].rounds <= 5
        assert costs[method].measured_numel == NUMEL
        assert 0 < costs[method].seconds < 10
    # 600 of 60,000 entries: at least their f32 values, and fewer than 32 bits for each index.
    assert 2400 < costs["topk:density=1%"].bytes_sent < all_gather_traffic([4800] * 2)[0].bytes_sent
    assert costs["topk:density=1%,every=8"].bytes_sent == pytest.approx(
        costs["topk:density=1%"].bytes_sent / 8, rel=0.05
    )


def test_sums_beside_exchanges_and_in_their_place_count(found: list[dict[str, Any]]) -> None:
    costs, dense = found[0]["costs"]["ample"], all_reduce_traffic(NUMEL, SIZE)[0].bytes_sent
    states, full = (costs[method] for method in mains.SUMMED)
    assert states.bytes_sent == pytest.approx(dense * (1 / 3 + 1 / 6 + 1 / 12))
    # A quarter of the rounds in full; the others have a quarter of the values, and fewer than 8 bits for each place.
    assert dense / 4 + 3 / 4 * NUMEL < full.bytes_sent < dense / 4 + 3 / 4 * (NUMEL * 5 / 4 + 100)


def test_dense_is_measured_in_16_bits_too(found: list[dict[str, Any]]) -> None:
    halved, dense = (found[0]["fast"][name] for name in ("bfloat16", "float32"))
    for cost in (halved, dense):
        assert not cost.is_predicted
        assert cost.rounds >= 1
        assert cost.measured_numel == NUMEL
        assert 0 < cost.seconds < 10
    assert halved.bytes_sent == dense.bytes_sent / 2 == all_reduce_traffic(NUMEL, SIZE)[0].bytes_sent / 2
    assert found[0]["fast"] == found[1]["fast"]


def test_what_would_take_too_long_is_predicted(found: list[dict[str, Any]]) -> None:
    ample, none = (found[0]["costs"][name] for name in mains.LIMITS)
    # Measuring dense on the hopeless link would take days, whatever the limit: 2 (100 s + 120,000 bytes at 1 B/s).
    predicted = Cost(2 * (100.0 + 2 * NUMEL), 4.0 * NUMEL, 4.0 * NUMEL, 0, 0)
    assert ample["dense"] == none["dense"] == predicted
    for method in ("sgd", "topk:density=1%", "local-sgd:every=3", "topk:density=1%,every=8"):
        assert none[method].is_predicted
        assert none[method].measured_numel == NUMEL // 4
        assert none[method].bytes_sent == pytest.approx(ample[method].bytes_sent, rel=0.1)
        assert none[method].seconds > 0
    # 30,000 entries cannot be kept of a quarter of the vector: it is measured as it is.
    assert not none["topk:k=30000"].is_predicted


def test_a_method_with_a_server_is_refused(found: list[dict[str, Any]]) -> None:
    assert all("server" in each["refusal"] for each in found)


def test_one_process_has_no_link() -> None:
    with pytest.raises(ConfigError, match="start 2 or more"):
        measure_link(cast(Transport, SimpleNamespace(size=1)))


def test_costs_are_extended_by_a_line() -> None:
    half, whole = Cost(1.0, 10.0, 30.0, 0, 100), Cost(1.5, 18.0, 50.0, 0, 200)
    assert _line([half, whole], 400) == Cost(2.5, 34.0, 90.0, 0, 200)
    assert _line([half], 400) == Cost(4.0, 40.0, 120.0, 0, 100)
    # Noise must not make a longer vector cheaper.
    assert _line([Cost(2.0, 10.0, 30.0, 0, 100), whole], 400).seconds == 1.5


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        (PostLocal(switch=50, steps=7), 1 / 7),
        (RandomGaps(4), 1 / 2.5),
        (LOCAL.schedule, 0.01),
    ],
)
def test_exchanges_are_spread_over_local_steps(schedule: Any, share: float) -> None:
    method = ModelAveraging(schedule=schedule)
    assert exchanges_per_step(method) == pytest.approx(share, rel=0.02 if isinstance(schedule, RandomGaps) else 1e-12)


def test_gradient_averaging_exchanges_at_every_step() -> None:
    assert exchanges_per_step(parse_method("sgd")) == 1.0


def test_local_steps_without_end_are_refused() -> None:
    with pytest.raises(ConfigError, match="fewer local steps"):
        exchanges_per_step(parse_method("local-sgd:every=1000000"))
