"""Payloads on another device."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from thinwire import arrays
from thinwire.payloads.base import Payload


def to_device(payload: Payload, device: torch.device) -> Payload:
    """The same payload with every tensor on ``device``, those of payloads inside too; what is there is not copied.

    A copy to a CUDA device goes on when this returns: what is then done on the same stream comes after it.

    Example:
        >>> from thinwire.payloads import Dense
        >>> to_device(Dense(torch.ones(2)), torch.device("meta")).values.device
        device(type='meta')
    """
    value: Any = payload
    names = [field.name for field in dataclasses.fields(value)]
    moved: Payload = dataclasses.replace(value, **{name: _moved(getattr(value, name), device) for name in names})
    return moved


def _moved(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor):
        return arrays.to_device(value, device)
    if isinstance(value, tuple):
        return tuple([_moved(part, device) for part in value])
    return to_device(value, device) if isinstance(value, Payload) else value
