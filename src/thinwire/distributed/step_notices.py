"""Hears of every step that an optimizer of the process makes."""

import inspect
import warnings
import weakref
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class HearsOfSteps(Protocol):
    """What is told of steps."""

    def optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer, which need not be of this model, has made a step."""
        ...


class StepNotices:
    """Tells of the steps of all optimizers, so that a script need not say which one trains a model.

    Args:
        listener: is told after each step; it is not kept alive.
    """

    def __init__(self, listener: HearsOfSteps) -> None:
        self._listener = weakref.ref(listener)
        self._handle = register_optimizer_step_post_hook(self._tell)
        weakref.finalize(listener, self._handle.remove)

    def _tell(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> None:
        listener = self._listener()
        if listener is not None:
            listener.optimizer_stepped(optimizer)

    def close(self) -> None:
        """Tell of no more."""
        self._handle.remove()


def warn_of_scaler(entrance: str, call: str) -> None:
    """Warn if a ``GradScaler`` makes the present step, of which the handle has not been told.

    Args:
        entrance: what made the handle.
        call: how it is told.
    """
    if _is_step_of_scaler():
        warnings.warn(
            f"a GradScaler makes this model's steps, and {entrance} was not given it: the memory is in units of a "
            f"scale that changes, and a step that the scaler would skip is an error. Give it: {call}",
            stacklevel=3,
        )


def _is_step_of_scaler() -> bool:
    """Whether a ``GradScaler`` that is enabled makes the present step.

    It leaves no mark on an optimizer that it steps, so it is looked for among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is torch.amp.GradScaler.step.__code__:
            return bool(frame.f_locals["self"].is_enabled())
        frame = frame.f_back
    return False
