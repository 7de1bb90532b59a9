"""Payloads on another device, and from there to the host."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import CPU
from thinwire.payloads.base import Payload
from thinwire.staging import stage


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


def to_host(payload: Payload) -> Payload:
    """The same payload with every tensor on the CPU; all are on their way before the device is waited for, once.

    Example:
        >>> from thinwire.payloads import Dense
        >>> to_host(Dense(torch.ones(2))).to_dense()
        tensor([1., 1.])
    """
    found: list[Tensor] = []
    _find(payload, found)
    if not found:
        return payload
    arrived = dict(zip(map(id, found), stage(found).wait(), strict=True))
    host: Payload = _replaced(payload, arrived)
    return host


def device_of(payload: Payload) -> torch.device:
    """Where a payload's tensors lie: not on the CPU, if any of them does not.

    Example:
        >>> from thinwire.payloads import Dense
        >>> device_of(Dense(torch.ones(2)))
        device(type='cpu')
    """
    found: list[Tensor] = []
    _find(payload, found)
    return found[0].device if found else CPU


def _find(value: object, found: list[Tensor]) -> None:
    """The tensors that are not on the CPU, in a payload and those inside it."""
    if isinstance(value, Tensor):
        if not value.is_cpu:
            found.append(value)
    elif isinstance(value, tuple):
        for part in value:
            _find(part, found)
    elif dataclasses.is_dataclass(value):  # to ask whether it is a Payload takes longer than all the rest
        for field in dataclasses.fields(value):
            _find(getattr(value, field.name), found)


def _replaced(value: Any, arrived: Mapping[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return arrived.get(id(value), value)
    if isinstance(value, tuple):
        return tuple([_replaced(part, arrived) for part in value])
    if not isinstance(value, Payload):
        return value
    fields: Any = value
    names = [field.name for field in dataclasses.fields(fields)]
    return dataclasses.replace(fields, **{name: _replaced(getattr(value, name), arrived) for name in names})


def _moved(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor):
        return arrays.to_device(value, device)
    if isinstance(value, tuple):
        return tuple([_moved(part, device) for part in value])
    return to_device(value, device) if isinstance(value, Payload) else value
