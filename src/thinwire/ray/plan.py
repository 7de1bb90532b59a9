"""What a server of asynchronous training is to do, and which model it begins with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.methods import Method


@dataclass(frozen=True, slots=True)
class Plan:
    """What a server is to do.

    Args:
        method: with an asynchronous server.
        num_workers: that there are at the beginning.
        until: after how many messages in all workers are told to pause.
        folder: of the checkpoint; None: there is none.
        save_every: after how many messages it is written.
        run: names this training.
        resumes: whether it begins with the model of another one, whose checkpoint is in the folder.
    """

    method: Method
    num_workers: int
    until: float
    folder: str | None
    save_every: int
    run: str
    resumes: bool = False


def check_plan(plan: Plan) -> None:
    """Raise :class:`ConfigError` for numbers that make no sense."""
    for name, value in (("num_workers", plan.num_workers), ("save_every", plan.save_every), ("until", plan.until)):
        if not (isinstance(value, int) or value == math.inf) or value < 1:
            raise ConfigError(f"{name}={value} was given; it must be a whole number from 1 on")


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def begin_with(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Let a model hold these tensors.

    Raises:
        ConfigError: they are those of another model.
    """
    named = named_tensors(model)
    if {name: each.shape for name, each in named.items()} != {name: each.shape for name, each in tensors.items()}:
        raise ConfigError("the folder has another model than build_model makes: names or shapes of tensors differ")
    for name, value in tensors.items():
        named[name].copy_(value)
