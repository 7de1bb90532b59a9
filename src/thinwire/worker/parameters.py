"""The parameters that a worker trains: whole tensors, or the local shards of sharded ones."""

import sys
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.kernels.flat.flatten import flatten_finite, flatten_unread
from thinwire.kernels.flat.sixteen import FORMATS
from thinwire.kernels.flat.unflatten import can_unflatten, unflatten
from thinwire.layout import views_like
from thinwire.staging import Verdict

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
"""What torch.compile and others put before the names of what they wrap, wherever that is."""

_OUTERMOST = "module."
"""What DistributedDataParallel puts there. Further in, it may be the name of a layer."""


def trained_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's parameters that need gradients, by their name in the model, in the model's order.

    Wrappers that only run the model otherwise leave no mark in the names, so that a state that was saved with
    ``torch.compile`` loads without.

    Raises:
        ConfigError: parameters of another model, none that needs a gradient, or one of a kind that is not trained.
    """
    found = held_parameters(model, optimizer)
    named: dict[str, Tensor] = {name: param for name, param in found.items() if param.requires_grad}
    if not named:
        raise ConfigError("none of the optimizer's parameters needs a gradient; there is nothing to train")
    for name, param in named.items():
        if param.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ConfigError(
                f"parameter {name!r} is {param.dtype}; models of float32, bfloat16 or float16 are trained"
            )
    check_device(named)
    return named


def check_device(named: Mapping[str, Tensor]) -> None:
    """Raise :class:`ConfigError` unless all parameters lie on one device that computes what an exchange does."""
    places: dict[torch.device, str] = {}
    for name, param in named.items():
        places.setdefault(param.device, name)
    for device, name in places.items():
        if device.type == "meta":
            raise ConfigError(
                f"parameter {name!r} is on the meta device, so it has no numbers yet; materialise the model before, "
                "for example by model.to_empty(device=...)"
            )
        if device.type == "mps":
            raise ConfigError(
                f"parameter {name!r} is on {device}, which has no float64, and scales are added up in it; train on the "
                "CPU or on CUDA"
            )
    if len(places) > 1:
        listed = ", ".join(f"{name!r} on {device}" for device, name in places.items())
        raise ConfigError(
            f"the parameters lie on several devices ({listed}); a process exchanges a model that lies on one: call "
            "model.to(device), or give each part an optimizer and a handle of its own"
        )


def model_device(params: Iterable[Tensor]) -> torch.device:
    """Where they lie: the CPU if there are none.

    Example:
        >>> model_device(torch.nn.Linear(2, 1).parameters())
        device(type='cpu')
    """
    return next((local_part(param).device for param in params), CPU)


def held_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All parameters of the optimizer, frozen ones too, by their name in the model, in the model's order.

    Raises:
        ConfigError: parameters of another model, or two of one name.
    """
    optimized = {id(param) for group in optimizer.param_groups for param in group["params"]}
    optimized_names = [(plain_name(name), param) for name, param in model.named_parameters() if id(param) in optimized]
    found: dict[str, Tensor] = dict(optimized_names)
    if len(found) < len(optimized_names):
        twice = next(name for name in found if [each for each, _ in optimized_names].count(name) > 1)
        raise ConfigError(
            f"two parameters of the model are called {twice!r} once the marks of wrappers are taken from their names; "
            "give the model without the wrapper"
        )
    if len(found) != len(optimized):
        raise ConfigError(
            f"{len(optimized) - len(found)} of the optimizer's {len(optimized)} parameters are not parameters of the "
            "model; build the optimizer from model.parameters() of the same model"
        )
    return found


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters of a model, frozen ones too, without the marks of wrappers in their names, in its order."""
    return {plain_name(name): param for name, param in model.named_parameters()}


def plain_name(name: str) -> str:
    """A parameter's name without the marks of wrappers, among them the ``module.`` of DDP.

    Example:
        >>> plain_name("_orig_mod.layers.0._checkpoint_wrapped_module.weight"), plain_name("module._orig_mod.bias")
        ('layers.0.weight', 'bias')
    """
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    while name.startswith(_OUTERMOST):
        name = name.removeprefix(_OUTERMOST)
    return name


def local_part(tensor: Tensor) -> Tensor:
    """The shard that lives here, sharing its memory; a tensor that is not sharded as it is."""
    # Whoever has a sharded tensor has imported its module; for all others that would take a second.
    module = sys.modules.get("torch.distributed.tensor")
    if module is not None and isinstance(tensor, module.DTensor):
        with torch.no_grad():
            local: Tensor = tensor.to_local()
            return local
    return tensor


def gradients(params: Sequence[Tensor]) -> list[Tensor]:
    """Every parameter's gradient, of a sharded one the local part; one that got none is given zeros."""
    for param in params:
        if param.grad is None:
            param.grad = torch.zeros_like(param)
        elif param.grad.layout != torch.strided:  # that of an embedding with sparse=True
            param.grad = param.grad.to_dense()
    return [local_part(param.grad) for param in params if param.grad is not None]


def check_in_place(params: Sequence[Tensor], addresses: Sequence[int]) -> None:
    """Raise :class:`ConfigError` if a parameter's memory is not where it was."""
    for param, address in zip(params, addresses, strict=True):
        if local_part(param).data_ptr() != address:
            raise ConfigError(
                "a parameter's memory was replaced since this worker was made (model.to(...), or sharding it); make "
                "the worker after that"
            )


def largest_lr(optimizer: torch.optim.Optimizer) -> float:
    """The largest learning rate of any parameter group."""
    return max((float(group.get("lr", 0.0)) for group in optimizer.param_groups), default=0.0)


def restore_gradients(own: Sequence[tuple[Tensor, Tensor | None]]) -> None:
    """Put gradients where they were."""
    for param, grad in own:
        param.grad = None if grad is None else grad.clone()


def clip_own(params: Sequence[Tensor], grads: Sequence[Tensor], longest: float) -> None:
    """Shorten a worker's own gradient to the norm ``longest``, if it is longer and finite."""
    norm = torch.nn.utils.get_total_norm(list(grads))
    # No branch, since a device would be waited for: with a norm of 0 all is multiplied by 1.
    norm = torch.where(torch.isfinite(norm), norm, torch.zeros_like(norm))
    torch.nn.utils.clip_grads_with_norm_(list(params), longest, norm)


def flatten_any(tensors: Sequence[Tensor], out: Tensor, minuend: Tensor | None = None) -> bool | Verdict:
    """:func:`flatten_finite` of tensors of any floating-point format; whatever they are, the vector is float32.

    Whether all is finite is a verdict that need not be known yet, if the tensors are not on the CPU.

    Example:
        >>> out = torch.empty(3)
        >>> flatten_any([torch.ones(2, dtype=torch.bfloat16), torch.zeros(1)], out), out.tolist()
        (True, [1.0, 1.0, 0.0])
    """
    if not {tensor.dtype for tensor in tensors} <= FORMATS.keys():  # a hook is handed gradients of float64, too
        tensors = [tensor if tensor.dtype in FORMATS else tensor.detach().float() for tensor in tensors]
    if out.is_cpu:
        return flatten_finite(tensors, out, minuend)
    return Verdict.on(flatten_unread(tensors, out, minuend), out.numel())


def unflatten_any(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """:func:`unflatten` onto tensors of any format and strides, which are marked as written in place.

    Example:
        >>> half, full = torch.ones(1, dtype=torch.bfloat16), torch.ones(1)
        >>> unflatten_any(torch.tensor([2.0, 3.0]), [half, full])
        >>> half.item(), full.item(), full._version
        (2.0, 3.0, 1)
    """
    if can_unflatten(tensors):
        unflatten(flat, tensors)
        torch.autograd.graph.increment_version(list(tensors))
    else:
        with torch.no_grad():
            torch._foreach_copy_(list(tensors), views_like(flat, tensors))
