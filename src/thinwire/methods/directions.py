"""Optimizers whose momentum is exchanged: what they keep in common, and the step that a mean makes."""

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from thinwire.arrays import blocks, empty_like, zeros
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Context
from thinwire.layout import Layout, State
from thinwire.memory.lion import check_betas

A = TypeVar("A")


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenAdam:
    """``m = mean of (beta1 m + (1 - beta1) g_i)``, step ``m / (sqrt(v) + eps)``, where v soon stays as it is.

    In the first ``freeze`` exchanges of a parameter ``v = beta2 v + (1 - beta2) g^2``, with the mean gradient g that
    m says: this is Adam. Then v is frozen, and what is left is momentum SGD with a fixed learning rate for each entry,
    which error feedback can follow (1-bit Adam, Tang et al. 2021). A parameter that joins later has such a beginning of
    its own. An entry whose gradient was 0 in all of it has no step: its v would divide by ``eps`` alone what one bit
    cannot say to be 0.

    Args:
        beta1: of the momentum.
        beta2: of the variance.
        eps: is added to the root of the variance.
        freeze: exchanges in which the variance is learnt, at least 1.
        corrects_bias: whether m and v are divided by ``1 - beta^t`` as in Adam; in the papers of compressed momenta
            they are not.

    Raises:
        ConfigError: a beta outside [0, 1), an ``eps`` that is not above 0, or ``freeze`` below 1.

    Example:
        >>> from thinwire.exchanges import Directed
        >>> Directed(direction=FrozenAdam(freeze=100)).workers_agree
        True
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    freeze: int = 100
    corrects_bias: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_adam(self.beta1, self.beta2, self.eps, self.freeze)

    def init(self, ctx: Context) -> State:
        """Momentum and variance of zeros, and of every parameter in how many exchanges it was."""
        return first_moments(ctx)

    def signal(self, x: Tensor, ctx: Context, state: State) -> tuple[Tensor, State]:
        """``beta1 m + (1 - beta1) g_i``."""
        return momentum_of(x, state["momentum"], self.beta1), state

    def apply(self, mean: Tensor, ctx: Context, state: State) -> tuple[Tensor, State]:
        """``m / (sqrt(v) + eps)``."""
        ages = ages_of(ctx.layout, state)
        variance = state["variance"]
        if min(ages, default=self.freeze) < self.freeze:
            places = spans(ctx.layout, [age < self.freeze for age in ages])
            variance = learnt(variance, mean, state["momentum"], places, (self.beta1, self.beta2))
        step = empty_like(mean)
        for age, start, stop in spans(ctx.layout, ages):
            first, second = self._corrections(age + 1)
            parts = (blocks(each[start:stop]) for each in (step, mean, variance))
            for out, m, v in zip(*parts, strict=True):
                precondition(out, m, v, self.eps, first, second)
        return step, {**state, **older(ctx.layout, state), "momentum": mean, "variance": variance}

    def _corrections(self, count: int) -> tuple[float, float]:
        """What m and the root of v are multiplied by, after so many exchanges."""
        if not self.corrects_bias:
            return 1.0, 1.0
        num_learnt = min(count, self.freeze)
        return 1.0 / (1.0 - self.beta1**count), 1.0 / math.sqrt(1.0 - self.beta2**num_learnt)


def check_adam(beta1: float, beta2: float, eps: float, freeze: int) -> None:
    """Raise :class:`ConfigError` unless the constants are some of Adam with a variance that is frozen."""
    check_betas(beta1, beta2)
    if not 0.0 < eps < math.inf:
        raise ConfigError(f"eps = {eps} was given; it must be above 0, or nothing is left to divide by")
    if freeze < 1:
        raise ConfigError(f"freeze = {freeze} was given; a variance is learnt in at least 1 exchange")


def first_moments(ctx: Context) -> State:
    """What Adam remembers before the first exchange."""
    ages = {f"age.{name}": torch.zeros((), dtype=torch.int64, device=ctx.device) for name in ctx.layout.names}
    return {"momentum": zeros(ctx.layout.numel, ctx.device), "variance": zeros(ctx.layout.numel, ctx.device), **ages}


def momentum_of(x: Tensor, momentum: Tensor, beta: float) -> Tensor:
    """``beta * momentum + (1 - beta) * x``, written over ``x``."""
    for own, common in zip(blocks(x), blocks(momentum), strict=True):
        own.mul_(1.0 - beta).add_(common * beta)
    return x


def learnt(
    variance: Tensor, momentum: Tensor, before: Tensor, places: Iterable[tuple[bool, int, int]],
    betas: tuple[float, float],
) -> Tensor:  # fmt: skip
    """The variance with the squared gradient in it that a momentum says by what it was before: a new vector.

    Args:
        variance: as it was.
        momentum: as it is now.
        before: as it was.
        places: whether something is learnt there, and where that begins and ends.
        betas: of momentum and variance.
    """
    following = empty_like(variance)
    for learns, start, stop in places:
        if not learns:
            following[start:stop] = variance[start:stop]
            continue
        parts = (blocks(each[start:stop]) for each in (following, momentum, before, variance))
        for out, m, was, v in zip(*parts, strict=True):
            gradient = torch.sub(m, was * betas[0]).mul_(1.0 / (1.0 - betas[0]))
            torch.mul(v, betas[1], out=out).add_(gradient.square_().mul_(1.0 - betas[1]))
    return following


def precondition(out: Tensor, m: Tensor, v: Tensor, eps: float, first: float = 1.0, second: float = 1.0) -> None:
    """``out = first m / (second sqrt(v) + eps)``, and 0 where v is 0."""
    scale = v.sqrt().mul_(second).add_(eps).masked_fill_(v == 0, math.inf)
    torch.mul(m, first, out=out).div_(scale)


def ages_of(layout: Layout, state: State) -> list[int]:
    """In how many exchanges each parameter was."""
    if not layout.names:
        return []
    found: list[int] = torch.stack([state[f"age.{name}"] for name in layout.names]).tolist()
    return found


def older(layout: Layout, state: State) -> State:
    """The ages after one exchange more."""
    return {f"age.{name}": state[f"age.{name}"] + 1 for name in layout.names}


def spans(layout: Layout, ages: Sequence[A]) -> list[tuple[A, int, int]]:
    """Runs of parameters that are alike in something, such as their age: it, and where they begin and end.

    Example:
        >>> layout = Layout(("a", "b", "c"), (torch.Size([2]), torch.Size([3]), torch.Size([1])))
        >>> spans(layout, [7, 7, 0])
        [(7, 0, 5), (0, 5, 6)]
    """
    found, start = [], 0
    for age, run in itertools.groupby(zip(ages, layout.sizes, strict=True), key=operator.itemgetter(0)):
        stop = start + sum(size for _, size in run)
        found.append((age, start, stop))
        start = stop
    return found
