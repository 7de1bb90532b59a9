"""Links that differ, and a server that takes messages from anyone as they come."""

import math

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError, DeadlockError, ProtocolError
from thinwire.machines import Machines
from thinwire.network import Link, Network, Traffic, all_gather_s, all_gather_traffic, all_reduce_s, all_reduce_traffic
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.steps import Steps, all_gather, all_reduce, compute, receive, receive_any, send

FRAME = 8


def message(num_bytes: int) -> Tensor:
    return torch.zeros(num_bytes, dtype=torch.uint8)


def sender(waits: float, *sizes: int, to: int = 0) -> Steps[None]:
    yield from compute(waits)
    for size in sizes:
        yield from send(to, message(size))


def collector(count: int, busy: float = 0.0) -> Steps[list[tuple[int, int]]]:
    got = []
    for _ in range(count):
        got.append((yield from receive_any(Tensor.numel)))
        yield from compute(busy)
    return got


def test_messages_are_taken_in_the_order_in_which_they_arrive() -> None:
    # Worker 1 begins first, but its way up is slow; worker 3 is far away.
    links = ((1, Link(1e6, 0.1, uplink_Bps=100.0)), (3, Link(1e6, 4.1)))
    simulation = Simulation(4, Network(1e6, 0.1, links=links))
    programs = [collector(4), sender(0.0, 92), sender(0.5, 10), sender(0.0, 7, 6)]
    got, *_ = simulation.run(programs)
    # Worker 1's message arrives after .1 + 100/100 s, worker 2's after .6 s, worker 3's after (.1 + 4.1)/2 s.
    assert got == [(2, 10), (1, 92), (3, 7), (3, 6)]
    assert simulation.clocks[0] == pytest.approx(2.1, abs=1e-3)


def test_a_message_that_overtakes_one_under_way_comes_first() -> None:
    """The server waits before either is sent: the later one arrives earlier."""
    links = ((1, Link(1e9, 10.0)),)
    simulation = Simulation(3, Network(1e9, 0.0, links=links))
    got, *_ = simulation.run([collector(2), sender(0.0, 1), sender(1.0, 2)])
    assert got == [(2, 2), (1, 1)]
    assert simulation.clocks[0] == pytest.approx(5.0)


def test_a_busy_server_takes_what_came_first_when_it_looks() -> None:
    simulation = Simulation(3, Network(1e9, 0.0))
    got, *_ = simulation.run([collector(3, busy=5.0), sender(0.0, 1, 3), sender(0.5, 2)])
    assert got == [(1, 1), (1, 3), (2, 2)]
    assert simulation.clocks[0] == pytest.approx(15.0)


def test_who_waits_for_anyone_in_vain_is_named() -> None:
    with pytest.raises(DeadlockError, match=r"worker 0: ReceiveAny\(\)"):
        Simulation(2).run([collector(2), sender(0.0, 1)])


def test_a_message_longer_than_agreed_is_refused_from_anyone() -> None:
    def program() -> Steps[tuple[int, int]]:
        return (yield from receive_any(Tensor.numel, 5))

    with pytest.raises(ProtocolError, match="worker 1 announced a message of 6 bytes, where at most 5"):
        Simulation(2).run([program(), sender(0.0, 6)])


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_collective_is_as_slow_as_its_busiest_link(size: int) -> None:
    slow = Link(1000.0, 0.5, uplink_Bps=250.0)
    network = Network(8000.0, 0.1, links=((size - 1, slow),))
    numel = 60
    traffic = all_reduce_traffic(numel, size)[size - 1]
    # Half of an all-reduce's bytes go each way in each of its two rounds, since 60 is a multiple of each size.
    expected = 2 * (max(traffic.bytes_sent / 2 / 250.0, traffic.bytes_received / 2 / 1000.0) + 0.3)
    assert all_reduce_s(network, numel, size) == pytest.approx(expected)
    sizes = [100 * (rank + 1) for rank in range(size)]
    own = all_gather_traffic(sizes)[size - 1]
    gathered = max(own.bytes_sent / 250.0, own.bytes_received / 1000.0) + 0.3
    assert all_gather_s(network, sizes) == pytest.approx(gathered)

    def program(rank: int) -> Steps[None]:
        yield from all_reduce(torch.ones(numel))
        yield from all_gather(message(sizes[rank]), len)

    simulation = Simulation(size, network)
    simulation.run([program(rank) for rank in range(size)])
    assert simulation.clocks == pytest.approx([expected + gathered] * size)


def test_the_way_up_and_the_way_down_are_two() -> None:
    network = Network(1000.0, 0.0, uplink_Bps=10.0)
    assert network.round_s([Traffic(100, 100), Traffic(100, 100)]) == pytest.approx(10.0)
    simulation = Simulation(2, network)

    def ask() -> Steps[int]:
        return (yield from receive(1, Tensor.numel))

    simulation.run([ask(), sender(0.0, 92, to=0)])
    assert simulation.clocks[0] == pytest.approx(10.0)


def test_a_network_text_says_what_it_says() -> None:
    network = Network.parse("80kbit,30ms,up=8kbit; 2: 1MB,1s ;0:2kB/s,5ms,up=1kB")
    assert network == Network(1e4, 0.03, 1e3, ((2, Link(1e6, 1.0)), (0, Link(2e3, 0.005, 1e3))))
    assert network.link(1) == Link(1e4, 0.03, 1e3)
    for text in ("1Mbit,1ms;", "1Mbit,1ms;x:1Mbit,1ms", "1Mbit,1ms;1", "1Mbit,1ms,up=", "1Mbit,1ms,up=5"):
        with pytest.raises(ConfigError, match="cannot read the network"):
            Network.parse(text)
    with pytest.raises(ConfigError, match=r"links of workers \[1, 1\]"):
        Network.parse("1Mbit,1ms;1:1Mbit,1ms;1:2Mbit,1ms")
    with pytest.raises(ConfigError, match="bandwidth must be above 0"):
        Network.parse("1Mbit,1ms,up=0Mbit")


def test_the_time_of_a_step_has_the_mean_and_deviation_that_were_asked_for() -> None:
    machines = Machines.parse("20ms,jitter=50%")
    times = [machines.seconds(Key(1), rank, step) for rank in range(4) for step in range(2000)]
    mean = sum(times) / len(times)
    deviation = math.sqrt(sum((time - mean) ** 2 for time in times) / len(times))
    # 8,000 draws: the mean is known to .5/sqrt(8000) = .6 %; the deviation of a lognormal to a few percent.
    assert mean == pytest.approx(0.02, rel=0.025)
    assert deviation / mean == pytest.approx(0.5, rel=0.1)
    assert min(times) > 0
    assert machines.seconds(Key(1), 2, 7) == machines.seconds(Key(1), 2, 7) != machines.seconds(Key(2), 2, 7)


def test_stalls_and_slow_workers_take_as_many_times_as_long() -> None:
    machines = Machines.parse("1s, stall=10%x8, slow=1x3/2x0.5")
    times = [machines.seconds(Key(0), 0, step) for step in range(4000)]
    assert set(times) == {1.0, 8.0}
    # Binomial with p = .1: four deviations of sqrt(.09 / 4000).
    assert times.count(8.0) / 4000 == pytest.approx(0.1, abs=0.019)
    assert {machines.seconds(Key(0), 1, step) for step in range(100)} == {3.0, 24.0}
    assert {machines.seconds(Key(0), 2, step) for step in range(100)} == {0.5, 4.0}


@pytest.mark.parametrize(
    "text", ["", "fast", "10 m", "10ms,", "10ms,jitter", "10ms,stall=5%", "10ms,slow=3", "10ms,x=1"]
)
def test_what_is_no_compute_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="give it such as 10ms"):
        Machines.parse(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("-1ms", "compute time of -0.001 s"),
        ("nan", "compute time of nan s"),
        ("inf", "compute time of inf s"),
        ("1ms,jitter=-1", "a jitter of -1.0"),
        ("1ms,stall=120%x2", "a share of 1.2"),
        ("1ms,slow=0x0", "0.0 times as long"),
    ],
)
def test_machines_that_cannot_be_are_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Machines.parse(text)
    assert named in str(refused.value)
