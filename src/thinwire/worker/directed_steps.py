"""Local steps along what an update says."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.arrays import copy_of, empty, zeros
from thinwire.methods import DirectedUpdate, GradientAveraging
from thinwire.steps import Steps
from thinwire.worker.agreement import Agreement
from thinwire.worker.channel import Channel
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.exchanged import Exchanged
from thinwire.worker.parameters import flatten_any, gradients, unflatten_any
from thinwire.worker.refusals import numerics_error

_EXACT = GradientAveraging()
"""An exact mean of vectors, of which nothing is remembered."""


@dataclass(slots=True, eq=False)
class DirectedSteps:
    """Puts an update's directions in the place of a worker's gradients, and lets it learn from mean gradients.

    A parameter that got no gradient counts as one with a zero gradient.

    Args:
        update: what directs.
        exchanged: the parameters, in one channel.
        agreement: with the other workers on what these are.
        runner: of the exchanges.
    """

    update: DirectedUpdate
    exchanged: Exchanged
    agreement: Agreement
    runner: ExchangeRunner
    _own: Tensor | None = field(init=False, default=None)
    """This worker's gradient of a step after which the mean of all is wanted, until then."""

    @torch.no_grad()
    def direct(self, skips: bool) -> None:
        """Before a local step.

        Args:
            skips: whether the optimizer makes no step where the gradient is not finite: then nothing goes on, and the
                worker has a zero gradient in a mean.
        """
        (channel,), grads = self.exchanged.channels, gradients(self.exchanged.params)
        gradient = empty(channel.layout.numel, channel.device)
        counts = bool(flatten_any(grads, gradient)) or not skips
        if self.update.learns(self.runner.num_steps + 1):
            self._own = copy_of(gradient) if counts else zeros(gradient.numel(), channel.device)
        if counts:
            unflatten_any(self.update.direct(gradient, self.runner.lr, channel.update), grads)

    @torch.no_grad()
    def learn(self) -> Steps[None]:
        """After a local step and its exchange: all-reduce gradients, if the update wants their mean.

        Raises:
            NumericsError: NaN or inf in the gradient of some worker: on every worker.
        """
        own, self._own = self._own, None
        if own is None:
            return
        (channel,), runner = self.exchanged.channels, self.runner
        yield from self.agreement.begin(runner.seed, runner.size)
        key = self.exchanged.key.fold("gradient")
        exact = Channel(_EXACT, channel.layout, [], runner.rank, runner.size, key, channel.device)
        exact.sums_stay = channel.sums_stay
        x, finite = exact.gather([own])
        outcome = yield from exact.run(x, _EXACT.compressor, finite, runner.num_steps)
        if not outcome.aggregate.finite:
            raise numerics_error(exact, outcome, "", "gradient", runner.num_steps)
        runner.count(outcome)
        self.update.learn(outcome.aggregate.mean, channel.update)
