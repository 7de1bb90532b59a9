"""Which body of an operation runs where its tensors lie: Numba's on the CPU, elsewhere the device's own or torch's.

An operation ``f`` of a file ``g.py`` has a twin ``f_torch`` in torch operations, which runs on any device. A kernel for
a device of another kind is a function ``f`` in a file ``g_<suffix>.py`` beside it, with the suffix of :data:`SUFFIXES`;
it is found by its name, and nothing else has to be told of it. It gives the bits of the twin.
"""

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Body = TypeVar("Body", bound=Callable[..., Any])

SUFFIXES = {"cuda": "triton"}
"""How the files with the kernels of a kind of device end: after the package that they are written in."""

OLDEST = {"triton": (3, 4)}
"""The first version of each package that was seen to compile every kernel."""


def body_for(twin: Body, device: torch.device) -> Body:
    """The kernel of the operation whose twin in torch is given, for a device other than the CPU; else the twin itself.

    Args:
        twin: a function whose name ends in ``_torch``.
        device: where the operation's tensors lie.

    Example:
        >>> from thinwire.kernels.flat.finite import is_finite_torch
        >>> body_for(is_finite_torch, torch.device("meta")) is is_finite_torch
        True
    """
    return cast(Body, _body(twin, device.type))


@functools.cache
def _body(twin: Callable[..., Any], kind: str) -> Callable[..., Any]:
    suffix = SUFFIXES.get(kind)
    name = f"{twin.__module__.removesuffix('_torch')}_{suffix}"
    if suffix is None or importlib.util.find_spec(name) is None or not _is_installed(suffix, kind):
        return twin
    body: Callable[..., Any] | None = getattr(importlib.import_module(name), twin.__name__.removesuffix("_torch"), None)
    return twin if body is None else body


@functools.cache
def _is_installed(package: str, kind: str) -> bool:
    """Whether kernels can be had; told once if not."""
    oldest = ".".join(map(str, OLDEST[package]))
    if importlib.util.find_spec(package) is None:
        problem, remedy = "is not installed", f"pip install '{package}>={oldest}'"
    else:
        version: str = importlib.import_module(package).__version__
        # What follows the second number may be letters.
        if tuple(map(int, version.split(".")[:2])) >= OLDEST[package]:
            return True
        problem = f"is of version {version}, and the kernels need {oldest}"
        remedy = f"install a torch that comes with {package} {oldest} or later"
    warnings.warn(
        f"{package} {problem}, so that exchanges on {kind} run in torch's operations, which is right and slow; "
        f"{remedy}",
        stacklevel=2,
    )
    return False
