"""What a worker cannot do, and what it says when numbers are not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor

from thinwire.errors import ConfigError, NumericsError
from thinwire.methods import GradientAveraging, Method, needs_gradients
from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.parameters import local_part


def check_gradients(method: Method, optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> None:
    """Refuse what gradients cannot be averaged, or tracked, for."""
    if not needs_gradients(method):
        return
    clip_norm = method.clip_norm if isinstance(method, GradientAveraging) else None
    if clip_norm is not None and any(local_part(param) is not param for param in named.values()):
        raise ConfigError(
            "clip_norm clips the norm of a whole gradient, and of sharded parameters a worker has only its shard; "
            "leave it out"
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ConfigError(
            "SparseAdam takes sparse gradients only, and a mean of gradients, or a tracked one, is dense; take "
            "torch.optim.Adam or SGD, or a method that averages models, such as local-sgd:every=8"
        )


def numerics_error(channel: Channel, outcome: Outcome, first_nonfinite: str, what: str, step: int) -> NumericsError:
    """For an exchange whose result is not finite, which names where."""
    name = first_nonfinite or first_nonfinite_parameter(channel, outcome)
    return NumericsError(
        f"NaN or inf in the {what} of at least one worker, in {name!r}, found at step {step}; the "
        "exchange was not applied. Lower the learning rate, clip gradients, or look for bad input data"
    )


def first_nonfinite_parameter(channel: Channel, outcome: Outcome) -> str:
    """The first parameter in whose part a result is not finite."""
    views = channel.layout.unflatten(outcome.aggregate.mean)
    return next(name for name, view in views.items() if not torch.isfinite(view).all())


def find_nonfinite(method: Method, named: Mapping[str, Tensor]) -> str:
    """The first parameter that (under gradient averaging: whose gradient) is not finite; the first one if none is."""
    for name, param in named.items():
        tensor = param.grad if isinstance(method, GradientAveraging) else param
        if tensor is not None and not torch.isfinite(local_part(tensor.detach())).all():
            return name
    return next(iter(named))
