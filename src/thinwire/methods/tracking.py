"""Gradient tracking: what a worker under gossip steps by is a gradient of all, not its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.kernels.reduce.compensated import add_compensated
from thinwire.layout import State


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """``V_i = M_i + P_i`` takes the gradient's place: M is a running mean of own gradients, P what gossip has moved.

    ``M = momentum M + (1 - momentum) g`` and ``P_i += gamma (sum_j w_ij G_j - G_i)``, where ``G_i`` is what the
    neighbours know of ``V_i``: it grows by ``C(V_i - G_i)`` once a step, sent together with the model's message. It is
    MoTEF (Islamov, Gao, Stich 2024), whose lambda is ``1 - momentum``, and without momentum BEER (Zhao, Li, Li,
    Richtarik, Chi 2022). They write ``V += gamma (G W - G) + M' - M``, which has the same sum: here no differences of
    gradients are added up, so that rounding leaves nothing of them behind.

    The mean of V over the workers is that of M at every step, whatever the compressor, since the P add up to 0. Near a
    common optimum P_i is what the worker's own gradient is short of the mean: workers with different data stand still
    there, where those that step by their own gradients stay apart by as much as a step moves them.

    The first gradient that is not zero begins M, and G begins at 0, as in the published code of both; the first V is
    sent as well, which they leave out.

    Args:
        momentum: factor on the running mean, in [0, 1).

    Raises:
        ConfigError: ``momentum`` out of range.

    Example:
        >>> tracking = Tracking(momentum=0.5)
        >>> state = tracking.init(1, torch.device("cpu"))
        >>> tracking.take_gradient(torch.tensor([4.0]), state)
        >>> tracking.move(torch.tensor([1.0]), state)
        >>> tracking.take_gradient(torch.tensor([8.0]), state)
        >>> tracking.tracked(state)
        tensor([7.])
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(
                f"momentum = {self.momentum} was given; the share of the mean that stays is 0 or more, below 1 "
                "(the paper's lambda is 1 - momentum)"
            )

    def init(self, numel: int, device: torch.device) -> State:
        """M, and P with what rounding took from it: zeros, f32 ``[numel]``."""
        return {name: zeros(numel, device) for name in ("mean_gradient", "moved", "moved_rounding")}

    def take_gradient(self, gradient: Tensor, state: State) -> None:
        """Let M take up this step's own gradient, f32 ``[numel]``, which is not modified."""
        mean = state["mean_gradient"]
        if not self.momentum:
            mean.copy_(gradient)
            return
        # Without a question to the device: whether there is a mean yet is a number that it multiplies with.
        weight = mean.any().to(torch.float32).mul_(-self.momentum).add_(1.0)
        mean.lerp_(gradient, weight)

    def tracked(self, state: State) -> Tensor:
        """V, a new f32 ``[numel]``."""
        return (state["mean_gradient"] + state["moved_rounding"]).add_(state["moved"])

    def move(self, by: Tensor, state: State) -> None:
        """Let P grow by a step of gossip, f32 or f64 ``[numel]``."""
        add_compensated(state["moved"], state["moved_rounding"], by)
