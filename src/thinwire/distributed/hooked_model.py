"""The DistributedDataParallel that a script means, and whether a hook can take over its gradients."""

from typing import Any, Protocol

import torch
from torch import nn
from torch._compile import _disable_dynamo
from torch.nn.parallel import DistributedDataParallel

from thinwire.errors import ConfigError
from thinwire.worker.parameters import check_device, plain_name


class Detached:
    """What a copy of a hooked model has in place of the handle: the copy is a plain DDP, which sends gradients in full.

    The handle has threads and links, of which there is no copy; copies are for averages of weights and for files.
    """

    def __call__(self, module: nn.Module, args: Any) -> None:
        """As a hook it does nothing."""


class HearsOfForward(Protocol):
    """What is told of forward passes."""

    def before_forward(self, model: nn.Module) -> None:
        """A forward pass begins."""
        ...


class BeforeForward:
    """The model's hook before a forward pass; a copy of the model has none.

    Args:
        listener: is told of each.
    """

    def __init__(self, listener: HearsOfForward) -> None:
        self._listener = listener

    @_disable_dynamo  # a compiled model must not have it in its graph
    def __call__(self, module: nn.Module, args: Any) -> None:
        """Tell."""
        self._listener.before_forward(module)

    def __reduce__(self) -> tuple[type[Detached], tuple[()]]:
        """As :class:`Detached`."""
        return Detached, ()


def ddp_in(model: object) -> DistributedDataParallel:
    """The only DDP that ``model`` is or has in it.

    Raises:
        ConfigError: there is none, or there are several, or it is no model at all.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{_kind(model)} was given as the model; call compress_ddp(model, method) with a DistributedDataParallel "
            "first, then a method"
        )
    found = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"the {_kind(model)} has {len(found)} models in DistributedDataParallel; call compress_ddp for each of them"
        )
    raise ConfigError(
        f"{_kind(model)} is not a DistributedDataParallel and contains none; give DistributedDataParallel(model) "
        "itself, not its .module, or use thinwire.synchronize(optimizer, model, ...) without DDP"
    )


def refuse_unfit(model: DistributedDataParallel) -> None:
    """Raise :class:`ConfigError` if gradients are of a kind, or handed over in a way, that a hook cannot exchange."""
    for name, module in model.module.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse and module.weight.requires_grad:
            raise ConfigError(
                f"{plain_name(name) or 'the model'} is an embedding with sparse=True, whose gradient has no fixed "
                "size; make it with sparse=False: its gradient is exchanged in full, or by the method with "
                "DensePolicy(embeddings=False)"
            )
    named = {plain_name(name): param for name, param in model.module.named_parameters() if param.requires_grad}
    for name, param in named.items():
        if not param.dtype.is_floating_point:
            raise ConfigError(f"parameter {name!r} is {param.dtype}; only gradients of floating point are exchanged")
    check_device(named)
    # Newer versions of torch have it.
    if vars(model).get("skip_all_reduce_unused_params"):
        raise ConfigError(
            "skip_all_reduce_unused_params=True hands over only some of the buckets, so that no step would end; leave "
            "it out"
        )


def _kind(given: object) -> str:
    if isinstance(given, torch.optim.Optimizer):
        return f"an optimizer ({type(given).__name__})"
    return f"the text {given!r}" if isinstance(given, str) else type(given).__name__
