"""The state of an optimizer as tensors and numbers by parameter name, where all workers have it in common."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.worker.parameters import held_parameters, local_part

Numbers: TypeAlias = dict[str, dict[str, float | int | bool | None]]
"""By parameter name, then by the optimizer's name for each."""


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Numbers]:
    """What an optimizer keeps of each parameter: tensors as ``key.parameter``, and numbers.

    Raises:
        ConfigError: it keeps something else.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> tensors, numbers = optimizer_state(model, optimizer)
        >>> sorted(tensors), numbers
        (['momentum_buffer.bias', 'momentum_buffer.weight'], {})
    """
    tensors: dict[str, Tensor] = {}
    numbers: Numbers = {}
    for name, param in held_parameters(model, optimizer).items():
        for key, value in optimizer.state.get(param, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{key}.{name}"] = local_part(value.detach())
            elif value is None or isinstance(value, bool | int | float):
                numbers.setdefault(name, {})[str(key)] = value
            else:
                raise ConfigError(
                    f"{type(optimizer).__name__} keeps {key!r} of {name!r}, a {type(value).__name__}; what all workers "
                    "have in common are tensors and numbers. Take another optimizer, or a method that averages models"
                )
    return tensors, numbers


def fill_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Numbers
) -> None:
    """Let an optimizer keep what :func:`optimizer_state` gave; its groups, with their learning rates, stay.

    Raises:
        ConfigError: it is of other parameters.
    """
    held = held_parameters(model, optimizer)
    found: dict[str, dict[str, Any]] = {name: dict(each) for name, each in numbers.items()}
    for label, tensor in tensors.items():
        key, _, name = label.partition(".")
        found.setdefault(name, {})[key] = tensor.clone()  # an optimizer keeps what it is given
    if strange := found.keys() - held.keys():
        raise ConfigError(f"an optimizer's state of {min(strange)!r} was given, and this one has no such parameter")
    groups = optimizer.state_dict()["param_groups"]
    numbered = [param for group in optimizer.param_groups for param in group["params"]]
    names = {id(param): name for name, param in held.items()}
    places = [place for group in groups for place in group["params"]]
    states = {
        place: found[names[id(param)]]
        for place, param in zip(places, numbered, strict=True)
        if names.get(id(param)) in found
    }
    # It brings each to where it belongs, in the format that the optimizer wants.
    optimizer.load_state_dict({"state": states, "param_groups": groups})
