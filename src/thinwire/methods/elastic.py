"""A centre that workers are tied to by a spring."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.arrays import blocks, copy_of
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.layout import State


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """``x_i += alpha (c - x_i)``; ``c += beta (mean x - c)``, both from the old centre c (Zhang et al. 2015, EASGD).

    Workers keep models of their own: they are drawn to the centre, not replaced by it. With ``alpha = beta / P``,
    the default, what the workers give the centre takes up: ``c + sum_i x_i`` is preserved. The centre is the model
    that is evaluated.

    The paper takes the gradient at the x_i before the pull; here the local steps are made before it. That order is
    stable on a quadratic of any curvature h with ``0 <= lr h <= 2`` as long as ``alpha + beta <= 2``, and on none
    beyond (:func:`thinwire.theory.elastic_is_stable`); the paper's needs a smaller alpha the larger ``lr h`` is
    (:func:`thinwire.theory.easgd_alpha_limit`). With momentum in the local steps ``lr h`` must be smaller the larger
    alpha and beta are (:func:`thinwire.theory.elastic_limit`); a worker warns where little is left.

    Args:
        beta: how far the centre moves to the workers' mean; 0.9 in the paper.
        alpha: how far a worker moves to the centre; ``beta / P`` unless given.

    Raises:
        ConfigError: a rate that is not above 0, ``alpha + beta`` above 2 (without alpha: beta above 1, which one
            worker could not follow).

    Warns:
        UserWarning: a rate above 1, which jumps over what it moves to.
    """

    beta: float = 0.9
    alpha: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        alpha = self.beta if self.alpha is None else self.alpha
        if not self.beta > 0.0 or not alpha > 0.0:
            raise ConfigError(f"beta = {self.beta}, alpha = {self.alpha} were given; both must be above 0")
        if not alpha + self.beta <= 2.0:
            of_one = " (alpha = beta / P may be as large as beta)" if self.alpha is None else ""
            raise ConfigError(
                f"beta = {self.beta}, alpha = {self.alpha} were given{of_one}; where alpha + beta is above 2, workers "
                "and centre move apart whatever the learning rate. Give smaller rates"
            )
        if alpha > 1.0 or self.beta > 1.0:
            warnings.warn(
                f"beta = {self.beta}, alpha = {self.alpha}: a rate above 1 jumps over its goal, and models swing back",
                stacklevel=3,
            )

    def init(self, params: Tensor) -> State:
        """The centre: a copy of the common initial parameters."""
        return {"reference": copy_of(params)}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """``c - x_i``."""
        return read(state["reference"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """Move the worker to the old centre, and the centre to the mean; return the worker's parameters."""
        centre = state["reference"]
        alpha = self.beta / aggregate.num_vectors if self.alpha is None else self.alpha
        params = local()
        # Not lerp, which rounds in another way from alpha = 0.5 on and would not keep c + sum x_i as well.
        for own, common in zip(blocks(params), blocks(centre), strict=True):
            own.add_(torch.sub(common, own), alpha=alpha)
        centre.sub_(aggregate.mean, alpha=self.beta)
        return params
