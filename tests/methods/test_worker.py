"""What a worker takes part with: which parameters, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.exchanges import ParameterServer
from thinwire.methods import ModelAveraging, parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker


def worker_of(model: nn.Module, text: str = "sgd", rank: int = 0, size: int = 1, **options: Any) -> Worker:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, **options)
    return Worker(parse_method(text), model, optimizer, rank=rank, size=size, seed=0)


@pytest.mark.parametrize("text", ["sgd", "qsgd", "topk:k=2", "local-sgd:every=1"])
def test_frozen_parameters_stay_as_they_are(text: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    first, second = (model.get_parameter(f"{number}.weight") for number in (0, 1))
    first.requires_grad_(False)
    frozen, trained = first.clone(), second.clone()
    worker = worker_of(model, text, weight_decay=0.1, momentum=0.9)
    for _ in range(3):
        worker.optimizer.zero_grad()
        model(torch.ones(4, 3)).sum().backward()
        Simulation(1).run([worker.step()])
    assert torch.equal(first, frozen)
    assert not torch.equal(second, trained)
    assert "0.weight" not in worker.layout.names


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'weight' is torch.float64; models of float32"):
        worker_of(nn.Linear(2, 1).double())
    with pytest.raises(ConfigError, match=r"'weight' is on the meta device.*materialise"):
        worker_of(nn.Linear(2, 1, device="meta"))
    with pytest.raises(ConfigError, match="nothing to train"):
        worker_of(nn.Linear(2, 1).requires_grad_(False))
    with pytest.raises(ConfigError, match="rank 5 of 2 workers"):
        worker_of(nn.Linear(2, 1), rank=5, size=2)
    stranger = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="2 of the optimizer's 2 parameters are not parameters of the model"):
        Worker(parse_method("sgd"), nn.Linear(2, 1), stranger, rank=0, size=1, seed=0)


def test_parameters_that_are_added_later_are_trained() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.5)
    worker = Worker(parse_method("sgd"), model, optimizer, rank=0, size=1, seed=0)
    optimizer.add_param_group({"params": list(model[1].parameters())})
    model(torch.ones(1, 3)).sum().backward()
    Simulation(1).run([worker.step()])
    assert list(worker.parameters()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_server_that_does_not_exist_is_refused() -> None:
    model = nn.Linear(2, 1)
    method = ModelAveraging(exchange=ParameterServer(server=7))
    with pytest.raises(ConfigError, match="worker 7 is to be the server, but there are workers 0 to 0"):
        Worker(method, model, torch.optim.SGD(model.parameters(), lr=0.5), rank=0, size=1, seed=0)


@pytest.mark.parametrize("part", [{"compressor": "topk"}, {"memory": ModelAveraging}, {"exchange": None}])
def test_a_part_of_the_wrong_kind_is_refused(part: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(part))):
        ModelAveraging(**part)  # type: ignore[arg-type]
