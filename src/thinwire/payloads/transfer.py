"""Payloads on another device, and from there to the host."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thinwire import arrays
from thinwire.arrays import CPU
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
    kind: type = type(value)
    for name in _parts(kind):
        part = getattr(value, name)
        for each in part if isinstance(part, tuple) else (part,):
            if not isinstance(each, Tensor):
                _find(each, found)
            elif not each.is_cpu:
                found.append(each)


@functools.cache
def _parts(kind: type) -> tuple[str, ...]:
    """The fields of a class of payloads that may hold tensors. Every message asks, so it is found out once."""
    if not dataclasses.is_dataclass(kind):
        return ()
    hints = typing.get_type_hints(kind)
    return tuple(field.name for field in dataclasses.fields(kind) if not _is_plain(hints[field.name]))


def _is_plain(hint: Any) -> bool:
    """Whether no tensor of a device is in what has this type: a cut's numbers lie on the CPU."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return all(map(_is_plain, typing.get_args(hint)))
    return typing.get_origin(hint) is typing.Literal or hint in (bool, int, float, str, Segments, type(None))


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
