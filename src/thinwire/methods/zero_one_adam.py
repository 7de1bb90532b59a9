"""Updates with a say in local steps, and the one that makes them Adam's."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from thinwire.arrays import blocks, copy_of, empty_like, zeros
from thinwire.config import check_types, register
from thinwire.exchanges import Aggregate
from thinwire.layout import State
from thinwire.methods.directions import check_adam
from thinwire.methods.schedules import DoublingGaps, Schedule, check_common
from thinwire.methods.updates import Update


@runtime_checkable
class DirectedUpdate(Update, Protocol):
    """An update that says along what the optimizer, which is plain SGD, makes its local steps.

    It is for local steps what :class:`thinwire.exchanges.Direction` is for means of gradients.
    """

    def direct(self, gradient: Tensor, lr: float, state: State) -> Tensor:
        """What the optimizer gets in place of the worker's own gradient (f32 ``[d]``, which may be written over).

        The state is changed in place.
        """
        ...

    def learns(self, step: int) -> bool:
        """Whether the workers' mean gradient of this step, counted from 1, is wanted: the same on all workers."""
        ...

    def learn(self, mean: Tensor, state: State) -> None:
        """Take the mean gradient of a step in, after what is exchanged at that step; the state is changed in place."""
        ...


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroOneAdam:
    """Local steps ``m / sqrt(v + eps)``; the sum of ``lr m`` is compressed, and its mean replaces m (0/1 Adam).

    Lu et al. 2022, Algorithm 1, at every step of each worker, with the learning rate lr of the optimizer:
    ``m_i = beta1 m_i + (1 - beta1) g_i``; ``x_i -= lr m_i / sqrt(v + eps)``; ``u_i += lr m_i``. After the steps of the
    method's schedule (T_u) workers exchange u, and with the mean that comes back, w, and the common point c:
    ``m_i = w / (sum of lr since the last exchange)``; ``c -= w / sqrt(v + eps)``; ``x_i = c``; ``u_i = 0``. After the
    steps of ``variance`` (T_v) they all-reduce their gradients as they are: ``v = beta2 v + (1 - beta2) (mean g)^2``.

    So v is common to all at every step, and m after an exchange. Where v is 0 there is no step: the first one moves
    nothing, and an entry that never had a gradient stays. The bias of m and v is not corrected. After steps with a
    learning rate of 0 alone, m stays each worker's own. The algorithm was written down from memory; which intervals,
    from the published code.

    Args:
        beta1: of the momentum.
        beta2: of the variance.
        eps: is added to the variance.
        variance: after which steps it is learnt, the same on all workers.
        freeze: the last step after which it may be; as long as training lasts if not given. In the published code local
            steps begin when the variance has come to its end.

    Raises:
        ConfigError: a beta outside of [0, 1), an ``eps`` that is not above 0, ``freeze`` below 1, or a schedule of each
            worker's own.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    variance: Schedule = DoublingGaps()
    freeze: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_adam(self.beta1, self.beta2, self.eps, 1 if self.freeze is None else self.freeze)
        check_common("variance", self.variance)

    def init(self, params: Tensor) -> State:
        """The common point, m, v and u of zeros, and no learning rate so far (f64)."""
        numel, device = params.numel(), params.device
        vectors = {name: zeros(numel, device) for name in ("momentum", "variance", "accumulated")}
        return {"reference": copy_of(params), **vectors, "rates": torch.zeros((), dtype=torch.float64, device=device)}

    def direct(self, gradient: Tensor, lr: float, state: State) -> Tensor:
        """``m / sqrt(v + eps)``, written over the gradient; m and u go on."""
        state["rates"] += lr
        vectors = (gradient, state["momentum"], state["variance"], state["accumulated"])
        for out, m, v, u in zip(*map(blocks, vectors), strict=True):
            m.mul_(self.beta1).add_(out.mul_(1.0 - self.beta1))
            u.add_(m * lr)
            self._precondition(out, m, v)
        return gradient

    def learns(self, step: int) -> bool:
        """As the schedule has it, up to the last step."""
        return (self.freeze is None or step <= self.freeze) and self.variance.due(step, 0)

    def learn(self, mean: Tensor, state: State) -> None:
        """``v = beta2 v + (1 - beta2) g^2``."""
        for v, g in zip(blocks(state["variance"]), blocks(mean), strict=True):
            v.mul_(self.beta2).add_((g * g).mul_(1.0 - self.beta2))

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """u; the parameters are read, since they tell where something is not finite."""
        return read(None).copy_(state["accumulated"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """Move the common point, which all go on from, and let the momentum be what the mean says."""
        mean, reference, rates = aggregate.mean, state["reference"], state["rates"]
        if float(rates) > 0.0:
            torch.div(mean, rates.to(torch.float32), out=state["momentum"])
        for m, v, point in zip(*map(blocks, (mean, state["variance"], reference)), strict=True):
            step = empty_like(m)
            self._precondition(step, m, v)
            point.sub_(step)
        state["accumulated"].zero_()
        rates.zero_()
        return reference

    def _precondition(self, out: Tensor, m: Tensor, v: Tensor) -> None:
        """``m / sqrt(v + eps)``, and 0 where v is 0."""
        torch.div(m, (v + self.eps).sqrt_().masked_fill_(v == 0, math.inf), out=out)
