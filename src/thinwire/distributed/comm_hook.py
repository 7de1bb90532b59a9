"""A method of gradient averaging as the communication hook of DistributedDataParallel."""

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.distributed.bucket_exchange import GradScaler
from thinwire.distributed.compressed_gradients import CompressedGradients
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.handle_options import HandleOptions
from thinwire.distributed.hooked_model import Detached, ddp_in, refuse_unfit
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.reducer import attach, renew
from thinwire.errors import ConfigError
from thinwire.methods import GradientAveraging, Method, ModelAveraging, parse_method
from thinwire.worker.layer_report import LayerReport


def compress_ddp(
    model: nn.Module,
    method: str | Method,
    *,
    policy: DensePolicy | None = None,
    scaler: GradScaler | None = None,
    seed: int = 0,
    warn_if_slower: bool = True,
    guard: ReplicaGuard | None = None,
    layer_report: LayerReport | None = None,
    profile: bool = False,
    links: LinkOptions | None = None,
) -> CompressedGradients:
    """Let ``model`` exchange its gradients by ``method``, overlapped with backward.

    Wherever a method would look at the whole model it looks at each tensor: DDP hands over one bucket after another.
    Parameters and buffers that are not equal on all processes are sent from process 0. DDP has sent all of them before,
    which takes long on a slow link: ``DistributedDataParallel(model, init_sync=False)`` leaves that out.

    Layers may be frozen, unfrozen and replaced while training goes on, on all processes before the same forward pass.
    A copy of the model (``copy.deepcopy``, ``torch.save``) is a plain DDP.

    Args:
        model: in DDP without another hook; it may be in further wrappers, as of ``torch.compile``.
        method: a method string such as ``"signtopk:density=1%"``, or a method. One that averages models after every
            step, plainly, is taken with its memory in units of a gradient.
        policy: which parameters are sent in full; by default biases, norms, embeddings and what is small.
        scaler: the ``GradScaler`` of mixed precision: the memory is then kept in units of the unscaled gradient, and
            gradients that are not finite are left to it.
        seed: the same on every process; addresses the method's randomness.
        warn_if_slower: the same on every process; whether the link is measured now, which takes at most about a
            second, and a :class:`thinwire.distributed.dense_watch.SlowerThanDense` warning is given, once, if after
            12 steps they turn out to take longer than DDP's own are predicted to.
        guard: compare the processes' parameters every now and then; a step is compared in the backward of the next.
        layer_report: sampled exchanges are reported tensor by tensor, once they count.
        profile: whether :attr:`CompressedGradients.times` is measured; buckets are then exchanged one after another,
            where otherwise one is compressed while the one before it is on the wire.
        links: how the processes reach each other, and how long they wait.

    Raises:
        ConfigError: no DDP, one that has a hook, embeddings with ``sparse=True``, a method with local steps or another
            update of models, one that does not fit, or processes that do not agree on these arguments.
        WorkerError: processes cannot reach each other.

    Example::

        model = DistributedDataParallel(model)
        thinwire.compress_ddp(model, "signtopk:density=1%")
    """
    ddp = ddp_in(model)
    product = on_gradients(parsed_method(method))
    is_second = _had_hook(ddp)
    refuse_unfit(ddp)
    options = HandleOptions(seed=seed, guard=guard, layer_report=layer_report, profile=profile, links=links)
    state = CompressedGradients(ddp, product, policy or DensePolicy(), scaler, warn_if_slower, options)
    if is_second:
        renew(ddp, state)
    else:
        attach(ddp, state)
    return state


def can_overlap(method: Method) -> bool:
    """Whether :func:`compress_ddp` takes the method, whose exchange then overlaps with backward.

    Example:
        >>> can_overlap(parse_method("topk:density=1%")), can_overlap(parse_method("local-sgd:every=8"))
        (True, False)
    """
    try:
        on_gradients(method)
    except ConfigError:
        return False
    return True


def parsed_method(method: object) -> Method:
    """The method that a string says, or that was given.

    Raises:
        ConfigError: neither.
    """
    if isinstance(method, str):
        return parse_method(method)
    if isinstance(method, GradientAveraging | ModelAveraging):
        return method
    raise ConfigError(f'method = {method!r} was given; give a method string such as "signtopk:density=1%", or a method')


def _had_hook(model: DistributedDataParallel) -> bool:
    """Whether the model's reducer has the hook of a handle that was closed, and takes no other."""
    # A copy of a hooked model has a new reducer.
    model._comm_hooks[:] = [each for each in model._comm_hooks if not isinstance(each[1], Detached)]
    if not model._comm_hooks:
        return False
    ours = [state for _, state in model._comm_hooks if isinstance(state, CompressedGradients)]
    if len(ours) < len(model._comm_hooks):
        raise ConfigError("the model has another communication hook, and DDP takes one; wrap it anew without that hook")
    if not all(state.is_closed for state in ours):
        raise ConfigError("the model's gradients are compressed already; close() that handle before the second call")
    return True


def on_gradients(method: Method) -> GradientAveraging:
    """The method as one that averages gradients, which the hook takes.

    Raises:
        ConfigError: local steps or another update of models, or a part that a hook cannot serve.
    """
    if method.reset_memory or (isinstance(method, GradientAveraging) and method.clip_norm is not None):
        raise ConfigError(
            "a hook sees neither the norm of the whole gradient nor the learning rate: clip_norm and reset_memory have "
            "no meaning there; leave them out"
        )
    if isinstance(method, GradientAveraging):
        return method
    names = ("memory", "compressor", "exchange", "granularity", "warm_up")
    parts: dict[str, Any] = {name: getattr(method, name) for name in names}
    if method != ModelAveraging(**parts) or not method.exchange.workers_agree:
        raise ConfigError(
            f"{method} averages models after local steps or in a way of its own, and DDP's hook sees gradients, at "
            "every step; use thinwire.synchronize without DDP, or leave out every=..."
        )
    return GradientAveraging(**parts)
