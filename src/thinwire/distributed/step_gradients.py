"""The gradients of an optimizer's step, which a ``GradScaler`` may have scaled, and which no step may be made by."""

import torch
from torch import Tensor

_SCALES = "_step_supports_amp_scaling"
"""The attribute by which a GradScaler knows an optimizer that looks at ``found_inf`` and ``grad_scale`` itself."""

_ABSENT = object()


class StepGradients:
    """Those of all parameters of an optimizer.

    A ``GradScaler`` leaves it to the step, from now on, what becomes of gradients that are not finite: else it would
    skip the step, and with it the exchange that the other workers wait for.

    Args:
        optimizer: the script's.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._hidden: list[tuple[Tensor, Tensor | None]] = []
        self._knew_scales: object = getattr(optimizer, _SCALES, _ABSENT)
        setattr(optimizer, _SCALES, True)

    def take_scale(self) -> tuple[bool, bool]:
        """Whether a GradScaler makes this step, and whether it found inf or NaN here; gradients are unscaled then."""
        found: Tensor | None = getattr(self._optimizer, "found_inf", None)
        if found is None:
            return False, False
        scale: Tensor | None = getattr(self._optimizer, "grad_scale", None)
        if scale is not None:  # the script did not call unscale_
            torch._foreach_div_([grad for _, grad in self._all() if grad is not None], scale)
        # What we have done the optimizer need not do; the scaler deletes both after the step.
        setattr(self._optimizer, "grad_scale", None)  # noqa: B010
        setattr(self._optimizer, "found_inf", None)  # noqa: B010
        return True, bool(found)

    def clip(self, norm: float) -> None:
        """Shorten them to this norm if they are longer."""
        torch.nn.utils.clip_grad_norm_([param for param, grad in self._all() if grad is not None], norm)

    def hide(self) -> None:
        """An optimizer steps no parameter without gradient, so this step leaves parameters and its state alone."""
        self._hidden = self._all()
        for param, _ in self._hidden:
            param.grad = None

    def show(self) -> None:
        """What was hidden is there again."""
        for param, grad in self._hidden:
            param.grad = grad
        self._hidden = []

    def close(self) -> None:
        """Leave the optimizer as it was found."""
        if self._knew_scales is _ABSENT:
            delattr(self._optimizer, _SCALES)
        else:
            setattr(self._optimizer, _SCALES, self._knew_scales)

    def _all(self) -> list[tuple[Tensor, Tensor | None]]:
        return [(param, param.grad) for group in self._optimizer.param_groups for param in group["params"]]
