"""The bounds that a run's memories and local models are proven to keep, and where one of them was broken."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from thinwire.arrays import CPU
from thinwire.compressors import Identity, segment_traits
from thinwire.exchanges import Directed
from thinwire.experiments.learning_rates import Rates, make_rates
from thinwire.experiments.optimizers import make_optimizer
from thinwire.experiments.records import Record
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.theorems import max_gap
from thinwire.layout import Layout
from thinwire.memory import ErrorFeedback
from thinwire.methods import (
    Elastic,
    GradientAveraging,
    Method,
    ModelAveraging,
    NeighbourUpdate,
    check_method,
    parse_method,
)
from thinwire.theory import decaying_memory_bound, least_shift, local_memory_bound

_ROUNDING = 1.0 + 1e-6
_FALSE_ALARMS = 1e-6
"""How often a kept promise is called broken, over a whole run of any length."""
_STAKES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds at one evaluation, root mean squares over workers like what they bound; NaN where nothing is proven.

    Args:
        memory: of the residuals' norms.
        drift: of the distances of local models from the shared one.
        virtual: of the distance of the workers' mean from the virtual sequence.
    """

    memory: float = math.nan
    drift: float = math.nan
    virtual: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBounds:
    """What is known of a run beforehand; only the size of gradients is measured.

    Args:
        gamma: contraction of the compressor; NaN where no bound of a memory follows from one.
        gap: H, the most local steps between two exchanges.
        rates: of the steps.
        lr: the first learning rate.
        reach: how far a step goes in terms of learning rate and G, ``1 / (1 - momentum)``; NaN where that is unknown.
        of_gradients: whether the memory holds gradients, which no learning rate has scaled.
    """

    gamma: float
    gap: int
    rates: Rates
    lr: float
    reach: float
    of_gradients: bool

    @staticmethod
    def of(comparison: Comparison, run: Run, layout: Layout) -> "RunBounds":
        """Those of a run of a comparison.

        Raises:
            ConfigError: the method does not fit the model.
        """
        method = parse_method(run.variant)
        return RunBounds(
            gamma=_gamma(method, layout), gap=max_gap(method), rates=make_rates(comparison.lr_schedule, run.steps),
            lr=run.setting.lr, reach=_reach(method, run.setting.optimizer),
            of_gradients=isinstance(method, GradientAveraging),
        )  # fmt: skip

    @property
    def shift(self) -> float:
        """The a for which learning rates are in proportion to ``1 / (a + t)``; infinite if they do not fall so."""
        return self.rates.shift(self.lr)

    @property
    def needed_shift(self) -> float:
        """The least that the memory's bound asks for; NaN where there is none, 0 where rates play no part in it."""
        if math.isnan(self.gamma):
            return math.nan
        return 0.0 if self.of_gradients else least_shift(self.gamma, self.gap)

    def at(self, step: int, first_gradient_norm: float, gradient_norm: float) -> Limits:
        """What holds after ``step`` steps; see :class:`thinwire.experiments.health.Health` for the two norms.

        With a shift below :attr:`needed_shift` nothing is proven for the memory. The bound is then what the least
        shift would give, for the same learning rate and gradients no larger than at the start, which the theorem
        supposes and such a shift may break.
        """
        if step == 0 or not gradient_norm > 0.0:
            return Limits()
        if self.of_gradients:
            if math.isnan(self.gamma):
                return Limits()
            square = local_memory_bound(gamma=self.gamma, max_gap=1, lr=1.0, gradient_norm=gradient_norm)
            return Limits(memory=math.sqrt(square), virtual=math.sqrt(square) * self.rates.at(self.lr, step - 1))
        falls = math.isfinite(self.shift)
        begun = self.rates.at(self.lr, max(0, step - self.gap + 1)) if falls else self.lr
        drift = begun * self.gap * gradient_norm * self.reach if self.gap > 1 else math.nan
        if math.isnan(self.gamma) or math.isnan(self.reach):
            return Limits(drift=drift)
        least = least_shift(self.gamma, self.gap)
        norm = self.reach * (first_gradient_norm if self.shift < least else gradient_norm)
        if falls:
            square = decaying_memory_bound(
                gamma=self.gamma, max_gap=self.gap, shift=max(self.shift, least), lr=begun, gradient_norm=norm
            )
        else:
            square = local_memory_bound(gamma=self.gamma, max_gap=self.gap, lr=begun, gradient_norm=norm)
        return Limits(memory=math.sqrt(square), drift=drift, virtual=math.sqrt(square))


def broken_bound(records: Sequence[Record], bounds: RunBounds, promised_error: float) -> str:
    """The first evaluation of a run at which a bound is broken that its settings rest on, in words; else nothing.

    Args:
        records: of the run, by step.
        bounds: of the run.
        promised_error: :attr:`thinwire.compressors.Traits.error` of the method's compressor.
    """
    return _broken_memory(records, bounds) or _broken_promise(records, promised_error)


def _broken_memory(records: Sequence[Record], bounds: RunBounds) -> str:
    for record in records:
        norm, limit = record["memory_norm"], record["memory_bound"]
        if norm is not None and limit is not None and norm > _ROUNDING * limit:
            return (
                f"the memory of {record['method']} has norm {norm:.3g} at step {record['step']:,}, above its bound of "
                f"{limit:.3g} (seed {record['seed']}; gradients of norm {record['first_gradient_norm']:.3g} at the "
                f"start, {record['largest_gradient_norm']:.3g} lately): {_advice(bounds)}"
            )
    return ""


def _broken_promise(records: Sequence[Record], promised_error: float) -> str:
    errors = [record["relative_error"] for record in records if record["relative_error"] is not None]
    if not math.isfinite(promised_error) or not exceeds(errors, _ROUNDING * promised_error + 1e-9):
        return ""
    first, last = records[0], records[-1]
    return (
        f"the messages of {first['method']} lose {fmean(errors):.3g} of what was to be sent (squared norms, mean over "
        f"{len(errors)} exchanges up to step {last['step']:,}, seed {first['seed']}), where its compressor "
        f"promises at most {promised_error:.3g}: correct its traits, or what error feedback rests on does not hold"
    )


def exceeds(values: Sequence[float], promise: float) -> bool:
    """Whether values of 0 or more have a mean above a promise for certain, not by chance.

    ``W_n = mean over c of prod_i (1 + c (e_i / promise - 1))`` is what a gambler owns who bets a share c of it on each
    value before it is known, for four c; here its largest product has to reach four times as much. As long as each
    value's mean, given those before, is at most the promise, all bets lose on average, and W ever reaches ``1 / a``
    with probability a at most (Ville's inequality; Waudby-Smith and Ramdas 2024, "Estimating means of bounded random
    variables by betting"). This holds for every distribution and however often one looks. Neither is true of a number
    of standard errors: what random selection keeps is mostly next to nothing and now and then nearly all, so that the
    mean and the spread of few values are both too small.

    Args:
        values: in the order in which they came.
        promise: above 0.

    Example:
        >>> few, many = [1.0] * 19 + [0.0], [0.99] * 1_000
        >>> exceeds(few, 0.95), exceeds(many, 0.95), exceeds([0.9] * 9, 0.1)
        (False, True, True)
    """
    owned = [0.0] * len(_STAKES)
    for value in values:
        for place, stake in enumerate(_STAKES):
            factor = 1.0 + stake * (value / promise - 1.0)
            owned[place] += math.log(factor) if factor > 0.0 else -math.inf
        if max(owned) > math.log(len(_STAKES) / _FALSE_ALARMS):
            return True
    return False


def _advice(bounds: RunBounds) -> str:
    if bounds.shift < bounds.needed_shift:
        return (
            "the first steps are too large, and learning rates fall faster than the memory empties. Their shift is "
            f"{bounds.shift:.4g}, and the theorem needs {bounds.needed_shift:.4g} (4 H / gamma; Basu et al. "
            "2019, Theorem 2): give a larger one, such as "
            f"--lr-schedule inverse:shift={math.ceil(bounds.needed_shift)}, or a larger density"
        )
    return (
        "gradients grow between samples, or the compressor keeps less than its traits promise. Take a smaller learning "
        "rate, a larger density, or correct the traits"
    )


def promised_error(method: Method, layout: Layout) -> float:
    """The most of a vector's squared norm that the method's messages may lose; infinite where nothing is known."""
    if isinstance(method.compressor, Identity):
        return 0.0
    return segment_traits(method.compressor, check_method(method, layout)).error


def _gamma(method: Method, layout: Layout) -> float:
    """NaN for methods whose memory has no bound here."""
    if not isinstance(method.memory, ErrorFeedback) or isinstance(method.compressor, Identity):
        return math.nan
    if isinstance(method, ModelAveraging) and (
        method.fragments > 1 or method.delay or method.trigger or isinstance(method.update, NeighbourUpdate | Elastic)
    ):
        return math.nan
    if isinstance(method.exchange, Directed):
        return math.nan  # what is sent is no gradient, and its norm has no bound by theirs
    segments = check_method(method, layout)
    gamma = min(segment_traits(each, segments).gamma for each in method.all_compressors())
    return gamma if 0.0 < gamma <= 1.0 else math.nan


def _reach(method: Method, optimizer: str) -> float:
    """Of plain SGD, also with momentum; whatever else scales or adds to a gradient has no such bound."""
    if isinstance(method, ModelAveraging) and isinstance(method.update, NeighbourUpdate | Elastic):
        return math.nan
    made = make_optimizer(optimizer, torch.nn.ParameterList([torch.zeros(1, dtype=torch.float32, device=CPU)]), lr=1.0)
    group = made.param_groups[0]
    if type(made) is not torch.optim.SGD or group["weight_decay"]:
        return math.nan
    return 1.0 / (1.0 - float(group["momentum"])) if group["momentum"] < 1.0 else math.nan
