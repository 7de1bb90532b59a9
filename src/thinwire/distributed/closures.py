"""The closure of an optimizer whose gradients are exchanged."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from thinwire.errors import ConfigError
from thinwire.methods import Method, needs_gradients


@dataclass(slots=True)
class Once:
    """Stands for a closure that was called before; gradients are exchanged once a step."""

    loss: object
    optimizer: str
    was_called: bool = False

    def __call__(self) -> object:
        """The loss that the closure returned."""
        if self.was_called:
            raise ConfigError(
                f"{self.optimizer} calls its closure more than once a step, and each call would need an exchange; "
                "take a method that averages models, such as local-sgd:every=8, or another optimizer"
            )
        self.was_called = True
        return self.loss


Changed: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]] | None
"""Other arguments for the optimizer's own step."""


def closure_called(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
    """The arguments of a step whose closure, if it has one, was called: it makes the gradients that are exchanged."""
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        return None
    with torch.enable_grad():
        loss = closure()
    return (args[0], Once(loss, type(optimizer).__name__)), {}


def check_closures(optimizer: torch.optim.Optimizer, method: Method) -> None:
    """Raise :class:`ConfigError` for an optimizer that needs several gradients a step, where they are exchanged."""
    if isinstance(optimizer, torch.optim.LBFGS) and needs_gradients(method):
        raise ConfigError(
            "LBFGS evaluates the loss several times a step, and each would need an exchange; take a method that "
            "averages models of own steps, such as local-sgd:every=8, or another optimizer"
        )
