"""Whether local steps and what follows them go together."""

import functools
import warnings

import torch

from thinwire.errors import ConfigError
from thinwire.methods import DirectedUpdate, Elastic, Every, Method, ModelAveraging
from thinwire.theory import elastic_limit, local_step_limit

_LEAST_SHARE = 0.5


def check_local_steps(method: Method, optimizer: torch.optim.Optimizer, size: int) -> None:
    """Refuse a second optimizer; warn where an elastic pull leaves little of the rates that the momentum bears alone.

    A rate that is too large for a loss cannot be known beforehand, since its curvature is not; but how much larger it
    may be without the pull can (:func:`thinwire.theory.elastic_limit`).

    Raises:
        ConfigError: an update that directs the local steps, and an optimizer that is not SGD with one learning rate and
            nothing else.

    Warns:
        UserWarning: local steps with the pull are stable up to less than half of the rate up to which they are
            without.
    """
    _check_directed(method, optimizer)
    if not isinstance(method, ModelAveraging) or not isinstance(method.update, Elastic):
        return
    update, local_steps = method.update, method.schedule.steps if isinstance(method.schedule, Every) else 1
    alpha = update.beta / size if update.alpha is None else update.alpha
    for group in optimizer.param_groups:
        momentum, nesterov = float(group.get("momentum", 0.0)), bool(group.get("nesterov", False))
        if not 0.0 < momentum < 1.0:
            continue
        alone = local_step_limit(momentum=momentum, nesterov=nesterov)
        tied = _limit(alpha, update.beta, momentum, nesterov, local_steps)
        if tied < _LEAST_SHARE * alone:
            warnings.warn(
                f"with momentum {momentum:g} in {local_steps} local steps the pull of {update} on {size} workers is "
                f"stable only while learning rate times curvature is below {tied:.3g}; without it that is {alone:.3g}. "
                "Take Nesterov's momentum, as the paper does, a smaller beta or alpha, or a smaller rate",
                stacklevel=4,
            )
            return


@functools.lru_cache(maxsize=16)
def _limit(alpha: float, beta: float, momentum: float, nesterov: bool, local_steps: int) -> float:
    return elastic_limit(alpha=alpha, beta=beta, momentum=momentum, nesterov=nesterov, local_steps=local_steps)


def _check_directed(method: Method, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that would make something else of a direction than a step along it."""
    if not isinstance(method, ModelAveraging) or not isinstance(method.update, DirectedUpdate):
        return
    groups = optimizer.param_groups
    is_plain = isinstance(optimizer, torch.optim.SGD) and len({float(group["lr"]) for group in groups}) <= 1
    if not is_plain or any(group["momentum"] or group["weight_decay"] or group["maximize"] for group in groups):
        raise ConfigError(
            f"{method} is an optimizer's rule itself, and what {type(optimizer).__name__} adds "
            "to it would be lost at the next exchange; take torch.optim.SGD with one learning rate for all parameters, "
            "without momentum and weight_decay"
        )
