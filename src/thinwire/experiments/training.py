"""What every training of a task by simulated or real workers begins with, and one step's gradient."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from thinwire.experiments.optimizers import make_optimizer
from thinwire.experiments.sharding import Batches
from thinwire.experiments.tasks import Task
from thinwire.methods import Method
from thinwire.random import Key
from thinwire.worker import Worker, can_share


def make_worker(task: Task, method: Method, optimizer: str, lr: float, rank: int, size: int, seed: int) -> Worker:
    """Worker ``rank`` of ``size`` with a fresh model of the task.

    Raises:
        ConfigError: an optimizer or a method that does not fit the model.
    """
    model = task.model(seed)
    return Worker(method, model, make_optimizer(optimizer, model, lr), rank=rank, size=size, seed=seed)


def make_crew(
    task: Task, method: Method, optimizer: str, lr: float, ranks: Sequence[int], size: int, seed: int
) -> list[Worker]:
    """The workers of these ranks; thousands of them need not have thousands of models where one is enough.

    Raises:
        ConfigError: see :func:`make_worker`.
    """
    if not ranks:
        return []
    first, *others = ranks
    lead = make_worker(task, method, optimizer, lr, first, size, seed)
    if can_share(method, lead.model):
        return [lead, *map(lead.sharing_model, others)]
    return [lead, *(make_worker(task, method, optimizer, lr, rank, size, seed) for rank in others)]


def take_gradient(task: Task, worker: Worker, batches: Batches, key: Key, step: int) -> None:
    """Leave the gradient of batch ``step``, counted from 0, in the worker's parameters.

    Dropout and the like draw from torch's generator: addressed by step and rank, they are the same in every engine and
    after every restart.
    """
    take_gradient_of(task, worker, batches.indices(step), key.fold("model", step, worker.rank))


def take_gradient_of(task: Task, worker: Worker, indices: Tensor, key: Key) -> None:
    """Leave the gradient of these examples in the worker's parameters; ``key`` addresses what the model draws."""
    torch.default_generator.manual_seed(key.bits64() >> 1)
    worker.optimizer.zero_grad()
    task.loss(worker.model, indices).backward()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Sums depend on how many threads share them; with one thread every engine gives the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def private_torch_randomness() -> Iterator[None]:
    """Leave torch's global generator as it was found."""
    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)
