"""A method as hooks of an optimizer's step."""

import torch
from torch import nn

from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.handle_options import HandleOptions
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.synchronizer import Synchronizer
from thinwire.distributed.transport import Group, process_group_of
from thinwire.methods import Method, parse_method
from thinwire.worker.layer_report import LayerReport


def synchronize(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    method: str | Method,
    *,
    group: Group = None,
    seed: int = 0,
    guard: ReplicaGuard | None = None,
    layer_report: LayerReport | None = None,
    profile: bool = False,
    links: LinkOptions | None = None,
    clip_grad_norm: float | None = None,
) -> Synchronizer:
    """From now on ``optimizer.step()`` also exchanges what ``method`` says with the other processes.

    The processes run under ``torchrun`` with an initialised process group, which introduces them to each other; what
    they exchange travels over links of their own. Parameters and buffers start as those of rank 0: where they differ
    they are sent, outside of the byte counts. The optimizer remains the script's own: schedulers, a
    ``GradScaler``, closures and wrappers of other libraries work with it as before. A step in which a ``GradScaler``
    finds inf or NaN is skipped by every worker if gradients are averaged, with memories and counters as they were;
    under model averaging it is a local step that moves nothing, and workers stay in step.

    Args:
        optimizer: any ``torch.optim`` optimizer over parameters of ``model``.
        model: the replica of this process; it may be compiled, of bf16, or sharded (FSDP2) within an island.
        method: a method string such as ``"qsparse:density=1%,every=8"``, or a method.
        group: the processes that exchange; all by default. With islands (nodes) that average within themselves, by
            DDP or FSDP2, the processes of equal place in every island: the mesh's replicate dimension.
        seed: the same on every process; addresses the method's randomness.
        guard: compare what the processes have in common every now and then.
        layer_report: sampled exchanges are reported tensor by tensor.
        profile: whether :attr:`Synchronizer.times` is measured.
        links: how the processes reach each other, and how long they wait.
        clip_grad_norm: the largest norm of the gradient that the optimizer gets. Under gradient averaging it is that
            of the mean, as with DDP; a script that clips before ``step()`` clips each worker's own gradient. Under
            model averaging, where each worker steps on its own, it is that of the worker's.

    Raises:
        ConfigError: no process group, an unknown method, one that does not fit the model or the guard, or processes
            that do not agree on method, seed, model or guard.
        WorkerError: processes cannot reach each other.

    Example::

        dist.init_process_group()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with thinwire.synchronize(optimizer, model, "signtopk:density=1%,every=8"):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss_of(model(inputs), targets).backward()
                optimizer.step()
    """
    product = parse_method(method) if isinstance(method, str) else method
    options = HandleOptions(seed=seed, guard=guard, layer_report=layer_report, profile=profile, links=links)
    return Synchronizer(optimizer, model, product, process_group_of(group), clip_grad_norm, options)
