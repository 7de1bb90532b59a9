import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.errors import ConfigError
from thinwire.network import (
    PIECE_NUM_BYTES,
    Network,
    Traffic,
    all_gather_s,
    all_gather_traffic,
    all_reduce_s,
    all_reduce_traffic,
    shard_bounds,
)

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@pytest.mark.parametrize("prefix", UNITS)
@pytest.mark.parametrize(("unit", "bytes_each"), [("bit", 0.125), ("bps", 0.125), ("B", 1.0)])
@pytest.mark.parametrize(("time", "seconds_each"), [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])
def test_every_unit_is_read(prefix: str, unit: str, bytes_each: float, time: str, seconds_each: float) -> None:
    for text in (f"2.5{prefix}{unit},20{time}", f" 2.5 {prefix}{unit}/s , 20 {time} "):
        network = Network.parse(text)
        assert network.bandwidth_Bps == pytest.approx(2.5 * UNITS[prefix] * bytes_each, rel=1e-12)
        assert network.latency_s == pytest.approx(20 * seconds_each, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "fast", "100Mbit", "100Mbit,", ",20ms", "100Mbit 20ms", "100,20ms", "100Mbit,20", "100mbit,20ms",
     "1.2.3Mbit,1ms", "-1Mbit,1ms", "1Mbit,-1ms", "1Mbit,1ms,1", "1Tbit,1ms", "1Mbit,1min", ".Mbit,1ms", "nanMbit,1ms"],
)  # fmt: skip
def test_what_is_no_network_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="100Mbit,20ms") as refused:
        Network.parse(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("bandwidth", "latency"), [(0.0, 0.0), (-1.0, 0.0), (1.0, -1.0), (math.nan, 0.0), (1.0, math.nan)]
)
def test_networks_that_cannot_be_are_refused(bandwidth: float, latency: float) -> None:
    with pytest.raises(ConfigError, match="bandwidth must be above 0"):
        Network(bandwidth, latency)


def test_a_network_without_bandwidth_is_refused_in_text_too() -> None:
    with pytest.raises(ConfigError, match="bandwidth must be above 0"):
        Network.parse("0Mbit,1ms")


NUMELS, SIZES = st.integers(0, 10**9), st.integers(1, 300)


@settings(max_examples=200, deadline=None)
@given(NUMELS, SIZES)
def test_shards_cover_the_vector_evenly(numel: int, size: int) -> None:
    bounds = shard_bounds(numel, size)
    shards = [end - start for start, end in pairwise(bounds)]
    assert (bounds[0], bounds[-1], len(shards)) == (0, numel, size)
    assert set(shards) <= {numel // size, numel // size + 1}


@settings(max_examples=200, deadline=None)
@given(NUMELS, SIZES, st.sampled_from([2, 4, 8]))
def test_an_all_reduce_moves_twice_all_shards_but_the_own(numel: int, size: int, itemsize: int) -> None:
    links = all_reduce_traffic(numel, size, itemsize)
    # 2 (P - 1)/P of the vector for each of P workers.
    assert sum(link.bytes_sent for link in links) == 2 * (size - 1) * numel * itemsize
    assert sum(link.bytes_received for link in links) == sum(link.bytes_sent for link in links)
    even = 2 * (size - 1) * numel * itemsize / size
    assert all(abs(link.bytes_sent - even) <= itemsize * max(size - 2, 0) for link in links)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=40))
def test_an_all_gather_sends_each_message_to_all_others(sizes: list[int]) -> None:
    links = all_gather_traffic(sizes)
    others = len(sizes) - 1
    for own, link in zip(sizes, links, strict=True):
        assert link.bytes_sent == (own + 8) * others
        assert link.bytes_received == sum(sizes) + 8 * len(sizes) - own - 8
    assert sum(link.bytes_sent for link in links) == sum(link.bytes_received for link in links)
    assert sum(links, Traffic()).bytes_sent == others * (sum(sizes) + 8 * len(sizes))


NETWORKS = st.builds(Network, st.floats(1.0, 1e12), st.floats(0.0, 10.0))


@settings(max_examples=200, deadline=None)
@given(NETWORKS, NUMELS, SIZES)
def test_an_all_reduce_takes_two_rounds_that_overlap_in_pieces(network: Network, numel: int, size: int) -> None:
    seconds = all_reduce_s(network, numel, size)
    if size == 1:
        assert seconds == 0.0
        return
    # No link is faster than its bytes, and no sum is back before two latencies; rounding of shards costs little.
    latency_s, both_s = network.latency_s, 2 * 4 * numel * (size - 1) / size / network.bandwidth_Bps
    rounding_s = 2 * 4 * size / network.bandwidth_Bps
    assert max(latency_s + both_s, 2 * latency_s + both_s / 2) * (1 - 1e-9) <= seconds
    assert seconds <= (2 * latency_s + both_s) * (1 + 1e-9) + rounding_s
    if 4 * (numel / size + 1) <= PIECE_NUM_BYTES:  # one piece: the second round waits for the first
        assert seconds >= (2 * latency_s + both_s) * (1 - 1e-9)


@settings(max_examples=200, deadline=None)
@given(NETWORKS, st.lists(st.integers(0, 10**9), min_size=2, max_size=20))
def test_an_all_gather_is_as_slow_as_its_busiest_link(network: Network, sizes: list[int]) -> None:
    seconds = all_gather_s(network, sizes)
    each = [max(link.bytes_sent, link.bytes_received) / network.bandwidth_Bps for link in all_gather_traffic(sizes)]
    assert seconds == pytest.approx(network.latency_s + max(each))
    assert all_gather_s(network, sizes[:1]) == 0.0
    assert network.transfer_s(0) == network.latency_s
