"""The reducer of DistributedDataParallel: which parameters it exchanges, and a new one when others are trained.

DDP asks once, when it is made, which parameters need gradients, and makes a reducer for these. What is unfrozen or
replaced afterwards it does not exchange; and where a frozen one gets no gradient, it waits for it.
"""

# Annotations stay evaluated in this file: DDP looks at those of a hook and refuses text.

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Exchanger(Protocol):
    """What takes over DDP's buckets."""

    def exchange(self, bucket: Any) -> "torch.futures.Future[Tensor]":
        """Begin the exchange of a bucket."""
        ...


def _hook(
    exchanger: Any,
    bucket: dist.GradBucket,
) -> torch.futures.Future[torch.Tensor]:
    found: torch.futures.Future[torch.Tensor] = exchanger.exchange(bucket)
    return found


def attach(model: DistributedDataParallel, exchanger: Exchanger) -> None:
    """Let the reducer of ``model`` hand over its buckets; it takes one hook in its life."""
    model.register_comm_hook(exchanger, _hook)


def renew(model: DistributedDataParallel, exchanger: Exchanger) -> None:
    """A new reducer, of the parameters that need gradients now, which hands over its buckets.

    It is made as for a DDP that was unpickled.
    """
    ddp: Any = model  # these have no types
    ddp._remove_autograd_hooks()
    params, expects_sparse = ddp._build_params_for_reducer()
    names = ddp._build_debug_param_to_name_mapping(params)
    ddp._ddp_init_helper(params, expects_sparse, names, ddp.static_graph)
    if ddp.static_graph:
        ddp._static_graph_delay_allreduce_enqueued = False
        ddp.reducer._set_static_graph()
        ddp.logger._set_static_graph()
    del ddp._comm_hooks[:]
    attach(model, exchanger)


class TrainedParameters:
    """The parameters that the reducer has, compared with those that are trained.

    Args:
        model: with its reducer, as it is now.
    """

    def __init__(self, model: DistributedDataParallel) -> None:
        buckets = model.reducer._get_zeros_like_grad_buckets()
        self._reduced: list[Tensor] = [param for bucket in buckets for param in bucket.parameters()]
        self._seen: list[nn.Parameter] = []
        self._marks: list[int] = []

    def differ(self, model: DistributedDataParallel) -> bool:
        """Whether the model needs a new reducer; quick while nothing is frozen, unfrozen or replaced.

        While no parameter at all is trained (one half of an adversarial pair) the reducer stays, and so it does for
        frozen ones where DDP looks for unused ones itself.
        """
        seen = list(model.module.parameters())
        # Parameters are kept, so that no other has the address of one.
        marks = [2 * id(param) + param.requires_grad for param in seen]
        if marks == self._marks:
            return False
        self._seen, self._marks = seen, marks
        trained = _trained(model)
        if not trained or _same(trained, self._reduced):
            return False
        finds_unused = model.find_unused_parameters and not model.static_graph
        return not (finds_unused and _ids(trained) <= _ids(self._reduced))

    def take_over(self, model: DistributedDataParallel, exchanger: Exchanger) -> list[Tensor]:
        """Make the new reducer; the parameters that the old one did not have."""
        before = _ids(self._reduced)
        renew(model, exchanger)
        self._reduced = _trained(model)
        return [param for param in self._reduced if id(param) not in before]


def _trained(model: Any) -> list[Tensor]:
    params: list[Tensor] = model._build_params_for_reducer()[0]
    return params


def _ids(params: Sequence[Tensor]) -> set[int]:
    return {id(param) for param in params}


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return _ids(some) == _ids(others)
