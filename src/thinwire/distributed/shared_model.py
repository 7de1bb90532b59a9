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
        _write(worker, own)


def keep_shared(worker: Worker) -> None:
    """Leave the shared parameters in a worker's model."""
    _write(worker, {name: param.clone() for name, param in worker.shared_parameters().items()})


@torch.no_grad()
def _write(worker: Worker, values: Mapping[str, Tensor]) -> None:
    named = worker.parameters()
    torch._foreach_copy_([local_part(named[name]) for name in values], list(values.values()))
    worker.accept_values()
