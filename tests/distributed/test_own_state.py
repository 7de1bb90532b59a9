"""What a process trains by itself goes through a file as it is, and only into a process of the same kind."""

from pathlib import Path

import pytest
import torch
from torch import nn

from thinwire.distributed.own_state import own_state, take_own_state
from thinwire.errors import ConfigError
from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker


def worker_of(width: int = 4, num_groups: int = 1) -> Worker:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width), nn.Linear(width, 1))
    groups = [{"params": list(each.parameters())} for each in model] if num_groups == 2 else model.parameters()
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    return Worker(parse_method("local-sgd:every=2"), model, optimizer, rank=0, size=1, seed=0)


def train(worker: Worker, *steps: int) -> list[bytes]:
    for step in steps:
        worker.optimizer.zero_grad()
        batch = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        worker.model(batch).square().mean().backward()
        Simulation(1).run([worker.step()])
    return [each.detach().numpy().tobytes() for each in worker.model.parameters()]


def test_with_the_memory_beside_it_a_worker_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    first, second = worker_of(), worker_of()
    train(first, *range(6))
    torch.save({"memory": first.state_dict(), **own_state(first)}, tmp_path / "state")
    saved = torch.load(tmp_path / "state", weights_only=True)
    second.load_state_dict(saved["memory"])
    take_own_state(second, saved, tmp_path / "state")
    assert train(second, 6, 7, 8, 9) == train(first, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("other", "said"),
    [(worker_of(width=5), "parameters of another model"), (worker_of(num_groups=2), "state of another optimizer")],
    ids=["model", "optimizer"],
)
def test_of_another_kind_is_refused_by_the_name_of_its_file(other: Worker, said: str) -> None:
    train(other, 0)
    worker = worker_of()
    before = [each.detach().clone() for each in worker.model.parameters()]
    with pytest.raises(ConfigError, match=rf"own\.state has the {said}"):
        take_own_state(worker, own_state(other), "own.state")
    assert all(torch.equal(each, param) for each, param in zip(before, worker.model.parameters(), strict=True))
