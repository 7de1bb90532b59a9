"""A model that holds, for a while or for good, what all processes have in common."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from thinwire.worker import Worker
from thinwire.worker.parameters import local_part


@contextmanager
def shared_model(worker: Worker) -> Iterator[nn.Module]:
    """Inside the block a worker's model holds the shared parameters; after it its own."""
    own = {name: local_part(param.detach()).clone() for name, param in worker.parameters().items()}
    try:
        keep_shared(worker)
        yield worker.model
    finally:
        write_parameters(worker, own)


def keep_shared(worker: Worker) -> None:
    """Leave the shared parameters in a worker's model."""
    write_parameters(worker, {name: param.clone() for name, param in worker.shared_parameters().items()})


@torch.no_grad()
def write_parameters(worker: Worker, values: Mapping[str, Tensor]) -> None:
    """Let a worker's parameters have these values, by name; they count as its own work."""
    named = worker.parameters()
    torch._foreach_copy_([local_part(named[name]) for name in values], list(values.values()))
    worker.accept_values()
