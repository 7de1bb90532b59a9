"""What a program asked for takes on another network exactly what the program itself takes there."""

import dataclasses

import pytest
from method_cases import CATALOGUE, Crew, backward
from torch import Tensor

from thinwire.methods import parse_method
from thinwire.network import Network
from thinwire.simulator import Simulation
from thinwire.simulator.tracing import replayed, traced
from thinwire.steps import Op, Steps, compute
from thinwire.worker import Worker, needs_server

NUM_STEPS = 4
NEAR, FAR = Network.parse("100Mbit,1ms"), Network.parse("200kbit,0.3s")


def steps_of(worker: Worker) -> Steps[None]:
    for _ in range(NUM_STEPS):
        backward(worker.model, worker.rank, worker.num_steps)
        yield from compute(0.01 + 0.001 * worker.rank)
        yield from worker.step()


def tensors_of(trace: list[Op]) -> list[Tensor]:
    values = [getattr(op, field.name) for op in trace for field in dataclasses.fields(op)]
    return [value for value in values if isinstance(value, Tensor)]


@pytest.mark.parametrize("name", [each for each in CATALOGUE if not needs_server(parse_method(each))])
def test_clocks_and_traffic_are_those_of_the_program_itself(name: str) -> None:
    method, size = parse_method(name), 4
    traces: list[list[Op]] = [[] for _ in range(size)]
    workers = Crew(method, size).workers
    Simulation(size, NEAR).run([traced(steps_of(each), trace) for each, trace in zip(workers, traces, strict=True)])
    assert not any(part.device.type == "cpu" for trace in traces for part in tensors_of(trace))
    itself, again = Simulation(size, FAR), Simulation(size, FAR)
    itself.run([steps_of(each) for each in Crew(method, size).workers])
    again.run([replayed(trace) for trace in traces])
    assert again.clocks == itself.clocks
    assert again.traffic == itself.traffic
    assert max(itself.clocks) > 0.0


def test_the_end_of_a_program_is_its_own() -> None:
    def program() -> Steps[str]:
        yield from compute(1.0)
        return "done"

    trace: list[Op] = []
    assert Simulation(1).run([traced(program(), trace)]) == ["done"]
    assert len(trace) == 1
