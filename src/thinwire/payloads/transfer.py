"""Payloads on another device, and from there to the host."""

import dataclasses
import functools
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import CPU
from thinwire.config import field_types
from thinwire.layout import Segments
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
    moved: Payload = _replaced(payload, lambda tensor: arrays.to_device(tensor, device))
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
    host: Payload = _replaced(payload, lambda tensor: arrived.get(id(tensor), tensor))
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
    else:
        kind: type = type(value)
        for name in _parts(kind):
            _find(getattr(value, name), found)


def _replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with other tensors, in payloads inside too."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple([_replaced(part, change) for part in value])
    kind: type = type(value)
    return dataclasses.replace(value, **{name: _replaced(getattr(value, name), change) for name in _parts(kind)})


@functools.cache
def _parts(kind: type) -> tuple[str, ...]:
    """The fields of a class of payloads that may hold tensors. Every message asks, so it is found out once."""
    return tuple(name for name, hint in field_types(kind).items() if not _is_plain(hint))


def _is_plain(hint: Any) -> bool:
    """Whether no tensor of a device is in what has this type: a cut's numbers lie on the CPU."""
    if get_origin(hint) in (Union, UnionType):
        return all(map(_is_plain, get_args(hint)))
    return get_origin(hint) is Literal or hint in (bool, int, float, str, Segments, NoneType)
