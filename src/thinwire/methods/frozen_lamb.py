"""LAMB whose momentum is exchanged, with ratios of layers that soon follow what the momentum says."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import CPU, blocks, empty_like, to_device
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Context
from thinwire.kernels.reduce.segment_sums import segment_max, segment_sums
from thinwire.layout import Layout, Segments, State
from thinwire.methods.directions import (
    ages_of,
    check_adam,
    first_moments,
    learnt,
    momentum_of,
    older,
    precondition,
    spans,
)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenLamb:
    """``u = m / (sqrt(v) + eps)``, step ``c u`` with a ratio c for each tensor (1-bit LAMB, Li et al. 2021).

    In the first ``freeze`` exchanges of a parameter this is LAMB: v is learnt, c is ``||x|| / ||u||`` within
    ``least_ratio`` and ``most_ratio`` (1 where either norm is 0), and its running mean C is kept. Then v and C are
    frozen, and a fresh variance w goes on from v with the gradients that the compressed momentum says. The ratio is
    ``c = f C``, where f is the largest ``(sqrt(v) + eps) / (sqrt(w) + eps)`` of the tensor, within ``least_factor`` and
    ``most_factor``, which changes by at most ``change`` of itself from step to step.

    Args:
        beta1: of the momentum.
        beta2: of the variances.
        eps: is added to the roots of variances.
        freeze: exchanges in which the variance is learnt, at least 1.
        ratio_beta: of the running mean of ratios; ``1 / (1 - ratio_beta)`` should be no more than ``freeze``.
        least_ratio: below which no ratio is.
        most_ratio: above which none is.
        least_factor: below which no factor is.
        most_factor: above which none is.
        change: of a factor, in a step, as a share of it.

    Raises:
        ConfigError: constants out of range.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    freeze: int = 100
    ratio_beta: float = 0.9
    least_ratio: float = 0.01
    most_ratio: float = 10.0
    least_factor: float = 0.5
    most_factor: float = 4.0
    change: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        check_adam(self.beta1, self.beta2, self.eps, self.freeze)
        if not 0.0 <= self.ratio_beta < 1.0 or not 0.0 <= self.change < 1.0:
            raise ConfigError(
                f"ratio_beta = {self.ratio_beta}, change = {self.change} were given; both are 0 or more and below 1"
            )
        if not 0.0 < self.least_ratio <= self.most_ratio or not 0.0 < self.least_factor <= self.most_factor:
            raise ConfigError(
                f"ratios from {self.least_ratio} to {self.most_ratio} and factors from {self.least_factor} to "
                f"{self.most_factor} were given; the least is above 0, and at most the largest"
            )

    def init(self, ctx: Context) -> State:
        """Adam's, with a fresh variance, and of every parameter its mean ratio and its factor."""
        moments, names = first_moments(ctx), ctx.layout.names
        ratios = {f"ratio.{name}": torch.zeros((), dtype=torch.float32, device=ctx.device) for name in names}
        factors = {f"factor.{name}": torch.ones((), dtype=torch.float32, device=ctx.device) for name in names}
        return {**moments, "fresh": moments["variance"].clone(), **ratios, **factors}

    def signal(self, x: Tensor, ctx: Context, state: State) -> tuple[Tensor, State]:
        """``beta1 m + (1 - beta1) g_i``; the norms of the parameters are taken before anyone steps."""
        if len(ctx.params) != len(ctx.layout.names):
            raise ConfigError("LAMB takes the norms of parameters, and this exchange is of none; use it in training")
        norms = _norms(ctx.layout.flatten(ctx.params), ctx.layout)
        return momentum_of(x, state["momentum"], self.beta1), {**state, _NORMS: norms}

    def apply(self, mean: Tensor, ctx: Context, state: State) -> tuple[Tensor, State]:
        """``c m / (sqrt(v) + eps)``."""
        layout, momentum, variance, fresh = ctx.layout, state["momentum"], state["variance"], state["fresh"]
        young = [age < self.freeze for age in ages_of(layout, state)]
        betas = self.beta1, self.beta2
        if any(young):
            variance = learnt(variance, mean, momentum, spans(layout, young), betas)
        fresh = learnt(fresh, mean, momentum, [(True, 0, mean.numel())], betas)
        step = empty_like(mean)
        for out, m, v in zip(blocks(step), blocks(mean), blocks(variance), strict=True):
            precondition(out, m, v, self.eps)
        ratios, factors = _stacked("ratio", layout, state), _stacked("factor", layout, state)
        is_young = to_device(torch.tensor(young, dtype=torch.bool, device=CPU), mean.device)
        now = self._ratios(state[_NORMS], _norms(step, layout))
        ratios = torch.where(is_young, ratios * self.ratio_beta + now * (1.0 - self.ratio_beta), ratios)
        if not all(young):
            factors = torch.where(is_young, factors, self._factors(variance, fresh, factors, layout))
        scales = torch.where(is_young, now, ratios * factors).to(torch.float32)
        for view, scale in zip(layout.views(step), scales.unbind(), strict=True):
            view.mul_(scale)
        kept = {name: tensor for name, tensor in state.items() if name != _NORMS}
        vectors = {"momentum": mean, "variance": variance, "fresh": fresh}
        each = _apart("ratio", ratios, layout) | _apart("factor", factors, layout)
        return step, {**kept, **older(layout, state), **vectors, **each}

    def _ratios(self, params: Tensor, steps: Tensor) -> Tensor:
        """``||x|| / ||u||``; 1 where either is 0."""
        counts = (params > 0) & (steps > 0)
        found = params / torch.where(counts, steps, torch.ones_like(steps))
        return torch.where(counts, found.clamp(self.least_ratio, self.most_ratio), torch.ones_like(found))

    def _factors(self, variance: Tensor, fresh: Tensor, before: Tensor, layout: Layout) -> Tensor:
        quotient = empty_like(variance)
        for out, v, w in zip(blocks(quotient), blocks(variance), blocks(fresh), strict=True):
            torch.add(v.sqrt(), self.eps, out=out).div_(w.sqrt().add_(self.eps))
        found = segment_max(quotient, _offsets(layout)).to(torch.float64)
        found = found.clamp(self.least_factor, self.most_factor)
        return torch.minimum(torch.maximum(found, before * (1.0 - self.change)), before * (1.0 + self.change))


_NORMS = "norms"
"""Of the parameters: known between the signal and what becomes of its mean."""


def _offsets(layout: Layout) -> Tensor:
    return Segments.of_sizes(layout.sizes).offsets()


def _norms(x: Tensor, layout: Layout) -> Tensor:
    """Of each tensor, f64."""
    return segment_sums(x, _offsets(layout), 2).sqrt()


def _stacked(kind: str, layout: Layout, state: State) -> Tensor:
    """A number of every parameter, f64."""
    return torch.stack([state[f"{kind}.{name}"] for name in layout.names]).to(torch.float64)


def _apart(kind: str, numbers: Tensor, layout: Layout) -> State:
    each: Sequence[Tensor] = numbers.to(torch.float32).unbind()
    return {f"{kind}.{name}": number.clone() for name, number in zip(layout.names, each, strict=True)}
