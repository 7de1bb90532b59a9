"""How the kernels' results are compared with the CPU's, and how a suite on the host calls kernels of another device.

The suites make their vectors on the host, and the loops on the CPU and the twins take them there. The kernels are
called by way of :func:`on_device`: where CUDA is, on copies there; in Triton's interpreter, on other copies here.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("there is no CUDA device, and Triton's interpreter was not chosen", allow_module_level=True)

PLACE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
"""Where the kernels run."""

LONG = [1 << 20, 30_000_000] if PLACE.type == "cuda" else [5000]
"""Lengths of which a suite has few cases: in the interpreter each entry takes its time."""

_WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}
_OF_HOST = ("offsets", "counts")
"""Arguments that lie on the CPU, whatever the device."""


def same_bits(one: Tensor, other: Tensor) -> bool:
    """By bits, and of one format and shape; NaN is NaN whatever its bits."""
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    if not one.is_floating_point():
        return torch.equal(one, other)
    both, whole = one.isnan() & other.isnan(), _WHOLE[one.dtype]
    return torch.equal(
        one.contiguous().view(whole).masked_fill(both, 0), other.contiguous().view(whole).masked_fill(both, 0)
    )


def on_device(*modules: ModuleType) -> Any:
    """The functions of these modules by their names, to be called with the host's tensors."""
    return _OnDevice(modules)


class _OnDevice:
    def __init__(self, modules: tuple[ModuleType, ...]) -> None:
        self._modules = modules

    def __getattr__(self, name: str) -> Callable[..., Any]:
        (body,) = [getattr(module, name) for module in self._modules if name in vars(module)]
        return functools.partial(_call, body)


def _call(body: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the function returns for copies of the arguments on its device; what it writes is written here as well."""
    bound, rooms = inspect.signature(body).bind(*args, **kwargs), _Rooms()
    for name, value in bound.arguments.items():
        if name == "device":
            bound.arguments[name] = PLACE
        elif name not in _OF_HOST:
            bound.arguments[name] = rooms.moved(value)
    result = body(*bound.args, **bound.kwargs)
    rooms.write_back()
    return rooms.returned(result)


class _Rooms:
    """Copies of the memory that tensors lie in, as a whole: addresses in it, gaps and what shares it stay as they are.

    A tensor that is handed over twice is one tensor there, too.
    """

    def __init__(self) -> None:
        self.copies: dict[int, tuple[Tensor, Tensor]] = {}
        self.given: list[tuple[Tensor, Tensor]] = []

    def moved(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(self.moved, value))
        if not isinstance(value, Tensor):
            return value
        for ours, theirs in self.given:
            if ours is value:
                return theirs
        storage = value.untyped_storage()
        if storage.data_ptr() not in self.copies:
            ours = torch.empty(0, dtype=torch.uint8).set_(storage)
            theirs = torch.empty(len(ours), dtype=torch.uint8, device=PLACE).copy_(ours)
            self.copies[storage.data_ptr()] = ours, theirs
        room = self.copies[storage.data_ptr()][1].untyped_storage()
        made = torch.empty(0, dtype=value.dtype, device=PLACE)
        made.set_(room, value.storage_offset(), value.shape, value.stride())
        self.given.append((value, made))
        return made

    def write_back(self) -> None:
        for ours, theirs in self.copies.values():
            ours.copy_(theirs)

    def returned(self, value: Any) -> Any:
        """The same on the host; of what was handed over, the very tensor."""
        if isinstance(value, Tensor):
            return next((ours for ours, theirs in self.given if theirs is value), value.cpu())
        if isinstance(value, list | tuple):
            return type(value)(map(self.returned, value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in dataclasses.fields(value)]
            return dataclasses.replace(value, **{name: self.returned(getattr(value, name)) for name in names})
        return value
