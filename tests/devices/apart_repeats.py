"""A step again and again: what overtakes something only now and then shows itself here, on a real device."""

import functools
from pathlib import Path

import repeat_mains as mains
import torch
from method_cases import backward, flat, small_model
from place import DEVICE, IS_CUDA, host, working
from torch import Tensor

from thinwire.experiments.launch import launch
from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker

REPEATS = 200 if IS_CUDA else 3


def trained(text: str) -> Tensor:
    model = small_model().to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0**-4)
    worker = Worker(parse_method(text), model, optimizer, rank=0, size=1, seed=0)
    for step in range(3):
        backward(model, 0, step)
        Simulation(1).run([worker.step()])
    return host(flat(model))


def test_repeats_are_alike() -> None:
    with working():
        for text in ("signtopk:density=10%", "qsgd:bits=4", "ef-signsgd"):
            first = trained(text)
            assert all(torch.equal(trained(text), first) for _ in range(REPEATS - 1))


def test_repeats_under_the_hook_are_alike(tmp_path: Path) -> None:
    """In two processes, on a stream beside that of backward; both end with the same parameters each time."""
    launch(2, functools.partial(mains.repeat_all, str(tmp_path)))
    found = [torch.load(Path(tmp_path, f"rank-{rank}.pt"), weights_only=True) for rank in range(2)]
    for method in mains.METHODS:
        for each in found:
            num_results, num_alike, num_moved, races = each[method]
            assert num_results == num_alike == mains.REPEATS
            assert num_moved > 0
            assert not races
        assert torch.equal(found[0][f"{method}, the first"], found[1][f"{method}, the first"])
