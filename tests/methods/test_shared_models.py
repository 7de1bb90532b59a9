"""Simulated workers that share a model give the bits of workers that have one each."""

import pytest
from method_cases import CATALOGUE, OPTIMIZERS, Crew, backward, bits, flat, small_model
from torch import nn

from thinwire.errors import ConfigError
from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.steps import Steps, compute
from thinwire.worker import Worker, can_share

SIZE, STEPS = 3, 5
SHARED = [text for text in CATALOGUE if can_share(parse_method(text), small_model())]


def lead_of(text: str, model: nn.Module) -> Worker:
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    return Worker(parse_method(text), model, optimizer, rank=0, size=SIZE, seed=5)


def train(worker: Worker, pace: float) -> Steps[None]:
    for step in range(STEPS):
        yield from compute(pace)
        worker.optimizer.zero_grad()
        backward(worker.model, worker.rank, step)
        yield from worker.step()


@pytest.mark.parametrize("paces", [(1.0, 1.0, 1.0), (3.0, 1.0, 2.0)])
@pytest.mark.parametrize("text", SHARED)
def test_the_bits_are_those_of_workers_with_a_model_each(text: str, paces: tuple[float, ...]) -> None:
    apart = Crew(parse_method(text), SIZE, OPTIMIZERS["momentum"]).run(STEPS)
    model = small_model()
    lead = lead_of(text, model)
    workers = [lead, *(lead.sharing_model(rank) for rank in range(1, SIZE))]
    # Whole programs at once: a worker may be at its next step while others have yet to get this one's mean.
    Simulation(SIZE).run([train(worker, pace) for worker, pace in zip(workers, paces, strict=True)])
    assert bits(flat(model)) == bits(flat(apart.models[0]))
    for worker, other in zip(workers, apart.workers, strict=True):
        state, expected = worker.state_dict(), other.state_dict()
        assert state["counters"] == expected["counters"]
        assert [bits(each) for each in state["tensors"].values()] == [bits(e) for e in expected["tensors"].values()]


def test_there_is_something_to_share() -> None:
    assert {"sgd", "qsgd", "ef-sgd", "powersgd", "signsgd"} <= set(SHARED)
    assert not {"local-sgd", "choco", "qsparse-async"} & set(SHARED)


@pytest.mark.parametrize("text", ["local-sgd", "topk"])
def test_workers_with_models_of_their_own_cannot_share_one(text: str) -> None:
    with pytest.raises(ConfigError, match="workers can share a model under gradient averaging"):
        lead_of(text, small_model()).sharing_model(1)


def test_buffers_are_each_workers_own() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    with pytest.raises(ConfigError, match="without buffers"):
        lead_of("sgd", model).sharing_model(1)
