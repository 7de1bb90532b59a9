from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError, DeadlockError, ProtocolError
from thinwire.network import Network
from thinwire.simulator import Simulation
from thinwire.steps import Steps, all_gather, all_reduce, as_it_is, compute, receive, send

B, LATENCY, FRAME = 1000.0, 0.25, 8  # bytes a second, seconds, bytes before a message of unknown length
NETWORK = Network(bandwidth_Bps=B, latency_s=LATENCY)


def message(num_bytes: int, fill: int = 0) -> Tensor:
    return torch.full((num_bytes,), fill, dtype=torch.uint8)


def check_conservation(simulation: Simulation) -> None:
    assert sum(link.bytes_sent for link in simulation.traffic) == sum(
        link.bytes_received for link in simulation.traffic
    )


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("numel", [0, 1, 7, 24, 1001])
def test_all_reduce(size: int, numel: int) -> None:
    generator = torch.Generator().manual_seed(size)
    vectors = torch.randn(size, numel, generator=generator)
    waits = [0.5 * rank for rank in range(size)]

    def program(rank: int) -> Steps[Tensor]:
        yield from compute(waits[rank])
        return (yield from all_reduce(vectors[rank]))

    simulation = Simulation(size, NETWORK)
    totals = simulation.run([program(rank) for rank in range(size)])
    expected = vectors[0].clone()
    for row in vectors[1:]:
        expected = expected + row
    assert all(total.numpy().tobytes() == expected.numpy().tobytes() for total in totals)
    # Reduce-scatter and all-gather between all pairs: worker r owns entries [r d / P, (r + 1) d / P).
    owned = [(rank + 1) * numel // size - rank * numel // size for rank in range(size)]
    for rank, link in enumerate(simulation.traffic):
        scattered, gathered = numel - owned[rank], owned[rank] * (size - 1)
        assert link.bytes_sent == link.bytes_received == 4 * (scattered + gathered)
    check_conservation(simulation)
    busiest = max(max(numel - own, own * (size - 1)) for own in owned)
    seconds = 2 * (LATENCY + 4 * busiest / B) if size > 1 else 0.0
    assert simulation.clocks == pytest.approx([max(waits) + seconds] * size)


@pytest.mark.parametrize("sizes", [[5], [5, 0], [10, 300, 20], [7] * 8])
def test_all_gather(sizes: list[int]) -> None:
    calls: list[list[int]] = []

    def combine(messages: Sequence[Tensor]) -> list[int]:
        calls.append([int(each[0]) if each.numel() else -1 for each in messages])
        return calls[-1]

    def program(rank: int) -> Steps[list[int]]:
        return (yield from all_gather(message(sizes[rank], rank), combine))

    simulation = Simulation(len(sizes), NETWORK)
    results = simulation.run([program(rank) for rank in range(len(sizes))])
    assert calls == [[rank if num_bytes else -1 for rank, num_bytes in enumerate(sizes)]]
    assert all(result is calls[0] for result in results)
    framed = [num_bytes + FRAME for num_bytes in sizes]
    others = len(sizes) - 1
    for own, link in zip(framed, simulation.traffic, strict=True):
        assert (link.bytes_sent, link.bytes_received) == (own * others, sum(framed) - own)
    check_conservation(simulation)
    busiest = max(max(own * others, sum(framed) - own) for own in framed)
    assert simulation.clocks == pytest.approx([LATENCY + busiest / B if others else 0.0] * len(sizes))


def star(rank: int, size: int, up: int, down: int) -> Steps[int]:
    if rank == 0:
        collected = 0
        for other in range(1, size):
            collected += (yield from receive(other, as_it_is)).numel()
        for other in range(1, size):
            yield from send(other, message(down))
        return collected
    yield from send(0, message(up))
    return (yield from receive(0, as_it_is)).numel()


@pytest.mark.parametrize("size", [2, 3, 9])
@pytest.mark.parametrize(("up", "down"), [(92, 492), (492, 92), (0, 0)])
def test_a_server_is_as_slow_as_its_port(size: int, up: int, down: int) -> None:
    simulation = Simulation(size, NETWORK)
    results = simulation.run([star(rank, size, up, down) for rank in range(size)])
    assert results == [up * (size - 1)] + [down] * (size - 1)
    # All messages leave at once; the server's downlink takes them one after another, its uplink likewise.
    collected = LATENCY + (size - 1) * (up + FRAME) / B
    assert simulation.clocks[0] == pytest.approx(collected)
    for rank in range(1, size):
        assert simulation.clocks[rank] == pytest.approx(collected + LATENCY + rank * (down + FRAME) / B)
    server = simulation.traffic[0]
    assert (server.bytes_sent, server.bytes_received) == ((size - 1) * (down + FRAME), (size - 1) * (up + FRAME))
    check_conservation(simulation)


def test_messages_of_a_pair_arrive_in_order_and_share_the_uplink() -> None:
    def sender() -> Steps[None]:
        for number in range(3):
            yield from send(1, message(92, number))

    def receiver() -> Steps[list[tuple[int, float]]]:
        arrivals = []
        for _ in range(3):
            number = int((yield from receive(0, as_it_is))[0])
            arrivals.append((number, simulation.clocks[1]))
        return arrivals

    simulation = Simulation(2, NETWORK)
    _, arrivals = simulation.run([sender(), receiver()])
    assert arrivals is not None
    assert [number for number, _ in arrivals] == [0, 1, 2]
    assert [when for _, when in arrivals] == pytest.approx([LATENCY + 0.1, LATENCY + 0.2, LATENCY + 0.3])
    assert simulation.clocks[0] == 0.0  # a send does not wait


def test_a_message_sent_before_it_is_asked_for_does_not_arrive_twice_as_late() -> None:
    def sender() -> Steps[None]:
        yield from send(1, message(92))

    def busy_receiver() -> Steps[None]:
        yield from compute(10.0)
        yield from receive(0, as_it_is)

    simulation = Simulation(2, NETWORK)
    simulation.run([sender(), busy_receiver()])
    assert simulation.clocks == [0.0, 10.0]


def mixed(rank: int, size: int, trace: list[tuple[int, str]]) -> Steps[float]:
    """Computation, point-to-point and collectives; ``trace`` records who runs when."""
    total = torch.zeros(())
    for step in range(5):
        yield from compute(0.01 * ((rank * 7 + step) % 3))
        trace.append((rank, f"send {step}"))
        yield from send((rank + 1) % size, message(10 * rank + step, rank))
        trace.append((rank, f"receive {step}"))
        yield from receive((rank - 1) % size, as_it_is)
        total = total + (yield from all_reduce(torch.tensor([rank + 0.1 * step]))).sum()
    return float(total)


def test_equal_programs_give_equal_results_times_bytes_and_order() -> None:
    records = []
    for _ in range(3):
        trace: list[tuple[int, str]] = []
        simulation = Simulation(4, NETWORK)
        results = simulation.run([mixed(rank, 4, trace) for rank in range(4)])
        check_conservation(simulation)
        records.append((results, simulation.clocks, simulation.traffic, trace))
    assert records[0] == records[1] == records[2]


def test_clocks_and_ports_go_on_from_run_to_run_and_from_a_saved_state() -> None:
    def runs(simulation: Simulation, count: int) -> Simulation:
        for _ in range(count):
            simulation.run([mixed(rank, 3, []) for rank in range(3)])
            simulation.run([star(rank, 3, 50, 90) for rank in range(3)])
        return simulation

    whole = runs(Simulation(3, NETWORK), 4)
    halfway = runs(Simulation(3, NETWORK), 2).state_dict()
    resumed = Simulation(3, NETWORK)
    resumed.load_state_dict(halfway)
    assert runs(resumed, 2).state_dict() == whole.state_dict()
    with pytest.raises(ConfigError, match=r"3 workers.* 2"):
        Simulation(2).load_state_dict(halfway)


@pytest.mark.parametrize("num_bytes", [0, 99, 100, 101, 5000])
def test_a_message_longer_than_agreed_is_refused(num_bytes: int) -> None:
    def gather() -> Steps[int]:
        return (yield from all_gather(message(num_bytes), len, max_num_bytes=100))

    def sender() -> Steps[int]:
        yield from send(1, message(num_bytes))
        return 0

    def receiver() -> Steps[int]:
        return (yield from receive(0, Tensor.numel, max_num_bytes=100))

    for programs in ([gather(), gather()], [sender(), receiver()]):
        if num_bytes <= 100:
            Simulation(2).run(programs)
        else:
            with pytest.raises(ProtocolError, match=f"worker 0 announced a message of {num_bytes} bytes, .*most 100"):
                Simulation(2).run(programs)


def waiting(source: int) -> Steps[Any]:
    return (yield from receive(source, as_it_is))


def reducing(numel: int) -> Steps[Any]:
    return (yield from all_reduce(torch.zeros(numel)))


def gathering(num_bytes: int) -> Steps[Any]:
    return (yield from all_gather(message(num_bytes), len))


def ending() -> Steps[None]:
    yield from compute(0.0)


@pytest.mark.parametrize(
    ("programs", "named"),
    [
        (lambda: [waiting(1), waiting(0)], ["worker 0: Receive(source=1)", "worker 1: Receive(source=0)"]),
        (
            lambda: [waiting(1), waiting(2), waiting(0)],
            ["worker 0: Receive(source=1)", "worker 1: Receive(source=2)", "worker 2: Receive(source=0)"],
        ),
        (lambda: [reducing(3), waiting(0)], ["worker 0: AllReduce(3 entries)", "worker 1: Receive(source=0)"]),
        (lambda: [reducing(3), ending(), reducing(3)], ["worker 0: All", "worker 2: All", "finished: [1]"]),
        (lambda: [waiting(1), ending()], ["worker 0: Receive(source=1)", "finished: [1]"]),
    ],
)
def test_a_deadlock_names_every_waiting_request(programs: Any, named: list[str]) -> None:
    made = programs()
    with pytest.raises(DeadlockError) as told:
        Simulation(len(made)).run(made)
    assert all(part in str(told.value) for part in named), str(told.value)


@pytest.mark.parametrize(
    ("programs", "named"),
    [
        (lambda: [reducing(3), gathering(5)], ["AllReduce(3 entries)", "AllGather(5 bytes)"]),
        (lambda: [reducing(3), reducing(3), reducing(4)], ["worker 0: (3,)", "worker 2: (4,)", "different shapes"]),
    ],
)
def test_collectives_that_do_not_match_are_refused(programs: Any, named: list[str]) -> None:
    made = programs()
    with pytest.raises(ProtocolError) as told:
        Simulation(len(made)).run(made)
    assert not isinstance(told.value, DeadlockError)
    assert all(part in str(told.value) for part in named), str(told.value)


@pytest.mark.parametrize("peer", [-1, 0, 2, 7])
def test_peers_that_are_not_there_are_refused(peer: int) -> None:
    def sending() -> Steps[None]:
        yield from send(peer, message(1))

    for program, name in ((sending, "Send"), (lambda: waiting(peer), "Receive")):
        with pytest.raises(ProtocolError, match=rf"worker 0 asks for {name}\(.*workers 0 to 1"):
            Simulation(2).run([program(), ending()])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_is_one_program_for_each_worker(count: int) -> None:
    with pytest.raises(ConfigError, match=f"{count} programs were given for 2 workers"):
        Simulation(2).run([ending() for _ in range(count)])
    with pytest.raises(ConfigError, match="0 workers"):
        Simulation(0)


def test_a_message_may_be_under_way_while_the_others_wait_for_a_collective() -> None:
    def first() -> Steps[int]:
        yield from compute(1.0)
        yield from send(1, message(92))
        return int((yield from all_reduce(torch.ones(1))).sum())

    def second() -> Steps[int]:
        yield from receive(0, as_it_is)
        return int((yield from all_reduce(torch.ones(1))).sum())

    def third() -> Steps[int]:
        return int((yield from all_reduce(torch.ones(1))).sum())

    simulation = Simulation(3, NETWORK)
    assert simulation.run([first(), second(), third()]) == [3, 3, 3]
    # It begins when the last one arrives: compute, then the message. One entry is owned by one worker alone.
    assert simulation.clocks == pytest.approx([1.0 + LATENCY + 0.1 + 2 * (LATENCY + 8 / B)] * 3)


def test_an_error_of_a_program_is_its_own() -> None:
    def failing() -> Steps[None]:
        yield from compute(1.0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Simulation(2).run([failing(), waiting(0)])


def test_a_collective_waits_for_messages_under_way() -> None:
    network = Network(bandwidth_Bps=1000.0, latency_s=0.25)

    def program(rank: int) -> Steps[None]:
        if rank == 0:
            yield from send(1, torch.zeros(1992, dtype=torch.uint8))
        yield from all_gather(torch.zeros(92, dtype=torch.uint8), len)
        if rank == 1:
            yield from receive(0, as_it_is)

    simulation = Simulation(2, network)
    simulation.run([program(0), program(1)])
    arrival = 0.25 + 2000 / 1000
    assert simulation.clocks == pytest.approx([arrival + 0.25 + 100 / 1000] * 2)


def test_messages_that_nobody_received_are_told() -> None:
    def sender() -> Steps[None]:
        yield from send(1, torch.zeros(3, dtype=torch.uint8))

    def idler() -> Steps[None]:
        yield from compute(1.0)

    with pytest.raises(ProtocolError, match="nobody received: 1 from worker 0 to worker 1"):
        Simulation(2).run([sender(), idler()])


def test_time_in_the_background_passes_while_the_program_goes_on() -> None:
    def program(rank: int) -> Steps[None]:
        yield from compute(1.0)
        yield from compute(3.0, in_background=True)
        yield from compute(2.0, in_background=True)  # after the one before
        if rank == 0:
            yield from send(1, torch.zeros(4, dtype=torch.uint8))  # at 1
        else:
            yield from receive(0, as_it_is)  # at 1 + 10
        yield from compute(0.5)

    simulation = Simulation(2, Network(1e12, 10.0))
    simulation.run([program(0), program(1)])
    assert simulation.clocks == pytest.approx([6.5, 11.5])

    def ends(seconds: float) -> Steps[None]:
        yield from compute(seconds, in_background=True)

    simulation.run([ends(1.0), ends(2.0)])
    assert simulation.clocks == pytest.approx([7.5, 13.5])
