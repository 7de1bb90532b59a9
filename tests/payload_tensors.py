"""The tensors that a payload holds."""

from dataclasses import fields
from typing import Any

from torch import Tensor

from thinwire.payloads import Payload


def parts_of(payload: Any) -> tuple[Any, ...]:
    """The values of its fields, in order."""
    return tuple(getattr(payload, field.name) for field in fields(payload))


def tensors_in(value: Any) -> list[Tensor]:
    """Those of a payload and of payloads inside, in order."""
    if isinstance(value, Tensor):
        return [value]
    inside = value if isinstance(value, tuple) else parts_of(value) if isinstance(value, Payload) else ()
    return [tensor for part in inside for tensor in tensors_in(part)]
