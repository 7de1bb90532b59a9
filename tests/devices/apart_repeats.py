"""A step again and again: what overtakes something only now and then shows itself here, on a real device."""

import torch
from method_cases import backward, flat, small_model
from place import DEVICE, IS_CUDA, host, working
from torch import Tensor

from thinwire.methods import parse_method
from thinwire.simulator import Simulation
from thinwire.worker import Worker

REPEATS = 200 if IS_CUDA else 3


def trained(text: str) -> Tensor:
    model = small_model().to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
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
