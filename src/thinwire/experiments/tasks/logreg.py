"""``logreg`` and ``logreg-convex``: logistic regression, with a regulariser and without, whose optimum is known."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.experiments.tasks.base import Evaluation, Metric, Split
from thinwire.experiments.tasks.models import held_out, watched
from thinwire.random import Key

_GRADIENT_NORM = 1e-10
_CHUNK = 1024  # rows; a chunk in f64 stays in the cache
_LEAST_SHARE = 8
_DATA = Key(0).fold("logreg", "data")


@dataclass(frozen=True, slots=True)
class Optimum:
    """The minimiser of an objective.

    Args:
        weights: f64 ``[d]``.
        value: the least value ``f*``.
        gradient_norm: Euclidean norm of the gradient at ``weights``.
    """

    weights: Tensor
    value: float
    gradient_norm: float


@dataclass(frozen=True, kw_only=True, eq=False)
class LogisticRegression:
    """A :class:`~thinwire.experiments.tasks.base.Task`: minimise one convex function, strongly so if regularised.

    ``f(w) = mean_i log(1 + exp(-y_i <x_i, w>)) + regularisation / 2 |w|^2``

    This is a problem of optimisation, not of generalisation: there is no held-out data, and both splits are
    evaluated as the same ``f`` over all ``n`` examples. The metric is the suboptimality ``f(w) - f*``,
    computed in f64; rounding may take it below zero, so it is never reported below 1e-16. That the model
    is f32 does not show: the optimum rounded to f32 is suboptimal by less than 1e-15.

    Args:
        signed_rows: f32 ``[n, d]``, the examples ``y_i x_i``.
        labels: int64 ``[n]``, the ``y_i``, -1 or 1.
        regularisation: the factor of the squared norm, 0 or more.
        batch_size: examples per worker and step.
        learning_rates: ascending.
    """

    signed_rows: Tensor
    labels: Tensor
    regularisation: float
    name: str = "logreg"
    batch_size: int = 8
    learning_rates: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)

    @property
    def metric(self) -> Metric:
        """Suboptimality, best shown on a log axis."""
        return Metric("suboptimality", higher_is_better=False, logarithmic=True, best=0.0)

    @property
    def num_train(self) -> int:
        """Number of examples."""
        return len(self.signed_rows)

    def model(self, seed: int) -> nn.Module:
        """A linear map ``[b, d]`` to ``[b, 1]`` without bias; it starts at zero, whatever the seed."""
        # Made without storage at first: nothing is drawn, so the global random state needs no care.
        linear = nn.Linear(self.signed_rows.shape[1], 1, bias=False, device="meta").to_empty(device="cpu")
        nn.init.zeros_(linear.weight)
        return linear

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        """The objective with its mean taken over the examples at ``indices``."""
        margins = model(self.signed_rows.index_select(0, indices))
        (weights,) = model.parameters()
        return F.softplus(-margins).mean() + (self.regularisation / 2) * weights.square().sum()

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        """``f`` and ``f - f*`` in f64 over all examples, for either split."""
        held_out(split, validation=None, test=None)
        return watched(model, partial(self._evaluate, model))

    @cached_property
    def optimum(self) -> Optimum:
        """The exact optimum: found when first asked for, which takes some seconds, then kept.

        Newton's method in f64 from zero, until the norm of the gradient is at most 1e-10. The Hessian is
        summed in f32, which costs a little of the rate of convergence and nothing of the result, and it is
        kept as long as a step with it halves the gradient: one Hessian takes as long as fifteen steps.

        Raises:
            RuntimeError: the method did not converge; cannot happen for rows of norm 1 that no plane separates.
        """
        weights = torch.zeros(self.signed_rows.shape[1], dtype=torch.float64, device=CPU)
        value, gradient = self._value_and_gradient(weights)
        factor = None
        norm = float(gradient.norm())
        for _ in range(100):
            if norm <= _GRADIENT_NORM:
                return Optimum(weights, value, norm)
            if factor is None:
                factor = torch.linalg.cholesky(self._hessian(weights))
            candidate = weights - torch.cholesky_solve(gradient.unsqueeze(1), factor).squeeze(1)
            new_value, new_gradient = self._value_and_gradient(candidate)
            new_norm = float(new_gradient.norm())
            if new_norm > 0.5 * norm:
                factor = None
            weights, value, gradient, norm = candidate, new_value, new_gradient, new_norm
        raise RuntimeError(f"the optimum was not found: gradient norm {norm:.1e} after 100 steps.")

    def _evaluate(self, model: nn.Module) -> Evaluation:
        (weights,) = model.parameters()
        value = self._value(weights.detach().flatten().double())
        return Evaluation(loss=value, value=max(value - self.optimum.value, 1e-16))

    def _value(self, weights: Tensor) -> float:
        """``f`` at f64 ``weights``: the bits of :meth:`_value_and_gradient`, in half of its time."""
        total = sum(
            float(F.softplus(-(chunk.double() @ weights)).sum()) for chunk in torch.split(self.signed_rows, _CHUNK)
        )
        return total / self.num_train + self.regularisation / 2 * float(weights.square().sum())

    def _value_and_gradient(self, weights: Tensor) -> tuple[float, Tensor]:
        """``f`` and its gradient at f64 ``weights``."""
        total, gradient = 0.0, torch.zeros_like(weights)
        for chunk in torch.split(self.signed_rows, _CHUNK):
            rows = chunk.double()
            margins = rows @ weights
            total += float(F.softplus(-margins).sum())
            gradient -= torch.sigmoid(-margins) @ rows
        value = total / self.num_train + self.regularisation / 2 * float(weights.square().sum())
        return value, gradient / self.num_train + self.regularisation * weights

    def _hessian(self, weights: Tensor) -> Tensor:
        d = len(weights)
        hessian = torch.zeros(d, d, dtype=torch.float32, device=CPU)
        for chunk in torch.split(self.signed_rows, _CHUNK):
            probabilities = torch.sigmoid(chunk @ weights.float())
            curvature = (probabilities * (1 - probabilities)).sqrt()
            scaled = chunk * curvature.unsqueeze(1)
            hessian.addmm_(scaled.T, scaled)
        return hessian.double() / self.num_train + self.regularisation * torch.eye(d, dtype=torch.float64, device=CPU)


@lru_cache(maxsize=4)
def logreg(num_examples: int = 20_000, dimension: int = 2_000, regularised: bool = True) -> LogisticRegression:
    """A synthetic problem of the size and shape of the ``epsilon`` data set's, with regularisation ``1/n``.

    Without the regulariser (``logreg-convex``) the objective is convex, and no constant of strong convexity holds
    everywhere: it flattens as weights grow. Its minimum is attained, since the labels are not separable.

    Stated in full: feature ``j = 1 .. d`` of each row is normal with standard deviation ``j ** -0.5``, and
    each row is then scaled to norm 1. The true weights are standard normal, scaled so that the margins
    ``<x, w>`` have standard deviation 2; the label is 1 with probability ``1 / (1 + exp(-<x, w>))`` and -1
    otherwise. A fixed key draws all of it, so every run solves the same problem. The features' decay makes
    the problem ill-conditioned: the extreme eigenvalues of the Hessian at the optimum have a ratio of 275.

    The same object is returned for equal arguments, so its optimum is computed once per process. The default
    size takes 160 MB.

    Args:
        num_examples: ``n``, at least 1.
        dimension: ``d``, at least 1; without a regulariser the examples must be many times more.
        regularised: whether ``1/(2n) |w|^2`` is added.

    Raises:
        ConfigError: an argument below 1, or too few examples without a regulariser.

    Example:
        >>> task = logreg(200, 10)
        >>> task.evaluate(task.model(seed=0), "test").loss
        0.6931471805599453
    """
    if num_examples < 1 or dimension < 1:
        raise ConfigError(f"logreg has {num_examples} examples of {dimension} features; each is at least 1.")
    if not regularised and num_examples < _LEAST_SHARE * dimension:
        raise ConfigError(
            f"{num_examples} examples of {dimension} features without a regulariser were asked for; a plane "
            f"that separates them is likely, and then there is no optimum: give {_LEAST_SHARE} times as many examples "
            "as features"
        )
    random = np.random.Generator(np.random.Philox(key=_DATA.fold(num_examples, dimension).bits64()))
    rows = torch.from_numpy(random.standard_normal((num_examples, dimension), dtype=np.float32))
    rows *= torch.arange(1, dimension + 1, dtype=torch.float32, device=CPU).rsqrt()
    rows /= rows.norm(dim=1, keepdim=True)
    margins = rows @ torch.from_numpy(random.standard_normal(dimension, dtype=np.float32))
    margins *= 2 / math.sqrt(float(margins.square().mean()))
    positive = torch.from_numpy(random.random(num_examples, dtype=np.float32)) < torch.sigmoid(margins)
    labels = torch.where(positive, 1, -1)
    return LogisticRegression(
        signed_rows=rows.mul_(labels.unsqueeze(1)),
        labels=labels,
        regularisation=1 / num_examples if regularised else 0.0,
        name="logreg" if regularised else "logreg-convex",
    )
