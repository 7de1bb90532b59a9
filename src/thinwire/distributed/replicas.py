"""What is the same on all processes, of a module, and of a worker under each kind of averaging."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinwire.distributed.guard import GuardedReplicas, ReplicaGuard, take_first
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.methods import GradientAveraging
from thinwire.worker import Worker
from thinwire.worker.channel import Channel
from thinwire.worker.parameters import held_parameters, local_part, named_parameters


@dataclass(frozen=True, slots=True)
class ModuleReplicas:
    """The parameters of a module whose gradients are averaged; of sharded ones the local part.

    Buffers are each process's own. Nor is the optimizer known here: if its state differs, the parameters will come
    apart again.

    Args:
        module: this process's replica, not wrapped in DDP.
    """

    module: nn.Module

    def named(self) -> Mapping[str, Tensor]:
        """Every parameter."""
        return {name: local_part(param.detach()) for name, param in named_parameters(self.module).items()}

    def take_over(self, transport: Transport) -> None:
        """Every parameter of process 0."""
        take_first(transport, list(self.named().values()))


@dataclass(frozen=True, slots=True)
class WorkerReplicas:
    """What the workers of a method have in common.

    Under gradient averaging these are the parameters; the state of the optimizer is taken over with them. Under model
    averaging it is the reference point; what the update remembers beside it and results that wait to be applied are
    taken over with it. The worker's own parameters are kept, but where its reference point was another than that of
    process 0: these entries may be wrong as well, and begin again at the reference point.

    What the memory and the exchange remember of past messages is not touched.

    Args:
        worker: this process's.

    Raises:
        ConfigError: a method under which workers have no model in common.
    """

    worker: Worker

    def __post_init__(self) -> None:
        method = self.worker.method
        has_common = isinstance(method, GradientAveraging) or "reference" in self.worker.channels[0].update
        if not (method.exchange.workers_agree and has_common):
            raise ConfigError(
                f"under {method} each worker has a model of its own at every moment; there is nothing to compare, "
                "leave out the guard"
            )

    def named(self) -> Mapping[str, Tensor]:
        """The common parameters, and those that are frozen."""
        held = held_parameters(self.worker.model, self.worker.optimizer)
        named = {name: local_part(param.detach()) for name, param in held.items()}
        return named | self.worker.shared_parameters()

    @torch.no_grad()
    def take_over(self, transport: Transport) -> None:
        """Those of process 0, and what goes with them."""
        if isinstance(self.worker.method, GradientAveraging):
            take_first(transport, [*self.named().values(), *_optimizer_state(self.worker)])
            return
        for channel in self.worker.channels:
            _take_reference(channel, transport)


def _take_reference(channel: Channel, transport: Transport) -> None:
    reference = channel.update["reference"]
    before = reference.clone()
    pending = [] if channel.pending is None else [channel.pending.aggregate.mean]
    take_first(transport, [*(channel.update[kind] for kind in sorted(channel.update)), *pending])
    # Bits: NaN is not equal to itself.
    differed = before.view(torch.int32) != reference.view(torch.int32)
    if differed.any():
        channel.write_params(torch.where(differed, reference, channel.local()))


def _optimizer_state(worker: Worker) -> list[Tensor]:
    """The optimizer's tensors, in an order that is the same on every process."""
    params = [param for group in worker.optimizer.param_groups for param in group["params"]]
    states = [worker.optimizer.state.get(param, {}) for param in params]
    found = [state[kind] for state in states for kind in sorted(state)]
    return [local_part(each) for each in found if isinstance(each, Tensor)]


def guard_module(guard: ReplicaGuard, transport: Transport, module: nn.Module) -> GuardedReplicas:
    """A guard over the parameters of a module, see :class:`ModuleReplicas`."""
    return GuardedReplicas(guard, transport, ModuleReplicas(module))


def guard_worker(guard: ReplicaGuard, transport: Transport, worker: Worker) -> GuardedReplicas:
    """A guard over what a worker has in common with the others, see :class:`WorkerReplicas`.

    Raises:
        ConfigError: a method under which workers have no model in common.
    """
    return GuardedReplicas(guard, transport, WorkerReplicas(worker))
