"""The hooks by which a handle takes part in an optimizer's steps."""

from collections.abc import Callable
from typing import Any

import torch

from thinwire.distributed.closures import Changed
from thinwire.distributed.step_gradients import StepGradients
from thinwire.errors import ConfigError


class OptimizerHooks:
    """What a handle does before and after an optimizer's own step, until it is removed.

    Args:
        optimizer: the script's.
        before: is called with the arguments of the step.
        after: is called when gradients that were hidden for the step are there again.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, before: Callable[[tuple[Any, ...], dict[str, Any]], Changed],
        after: Callable[[], None],
    ) -> None:  # fmt: skip
        self.gradients = StepGradients(optimizer)
        self._begin, self._end = before, after
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    @property
    def are_there(self) -> bool:
        """Whether the optimizer has them."""
        return bool(self._handles)

    def remove(self) -> None:
        """Leave the optimizer as it was found."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            self.gradients.close()
        self._handles = []

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        return self._begin(args, kwargs)

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.gradients.show()
        self._end()


def check_unattached(optimizer: torch.optim.Optimizer) -> None:
    """Raise :class:`ConfigError` if a handle of any kind takes part in the optimizer's steps."""
    owners = [getattr(hook, "__self__", None) for hook in optimizer._optimizer_step_pre_hooks.values()]
    if any(isinstance(owner, OptimizerHooks) for owner in owners):
        raise ConfigError(
            "this optimizer is synchronized already; close the first handle. While an optimizer has a handle already, "
            "a second one would exchange at the same steps"
        )
