"""The tensors that a payload holds."""

from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from thinwire.payloads import Payload


def tensors_in(value: Any) -> list[Tensor]:
    """Those of a payload and of payloads inside, in order."""
    if isinstance(value, Tensor):
        return [value]
    inside = value if isinstance(value, tuple) else ()
    if is_dataclass(value) and isinstance(value, Payload):
        inside = tuple(getattr(value, field.name) for field in fields(value))
    return [tensor for part in inside for tensor in tensors_in(part)]
