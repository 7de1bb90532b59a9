"""The exchanges of a worker: of gradients before the optimizer's own step, or of models after it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.methods import DirectedUpdate, GradientAveraging, ModelAveraging
from thinwire.steps import Steps
from thinwire.worker.agreement import Agreement
from thinwire.worker.channel import Channel, Outcome, Pending
from thinwire.worker.directed_steps import DirectedSteps
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.exchanged import Exchanged
from thinwire.worker.parameters import gradients, restore_gradients
from thinwire.worker.refusals import numerics_error
from thinwire.worker.sharing import Sharing
from thinwire.worker.side_by_side import side_by_side


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """An exchange that is over and does not count yet.

    Args:
        channel: of the fragment.
        place: of the channel among all.
        outcome: what came back, and what the memory will hold.
        tracked: the same of tracked gradients, if there are any.
    """

    channel: Channel
    place: int
    outcome: Outcome
    tracked: Outcome | None = None

    @property
    def is_finite(self) -> bool:
        """Whether what came back is."""
        return self.outcome.aggregate.finite and (self.tracked is None or self.tracked.aggregate.finite)


@dataclass(slots=True, eq=False)
class GradientMeans:
    """Lets the optimizer step by the mean of gradients.

    Args:
        method: what is exchanged and how.
        exchanged: the parameters.
        agreement: with the other workers on what these are.
        runner: of the exchanges.
    """

    method: GradientAveraging
    exchanged: Exchanged
    agreement: Agreement
    runner: ExchangeRunner
    sharing: Sharing = field(init=False, default_factory=Sharing)
    """With workers on the same model."""
    _filled: list[Tensor] = field(init=False, default_factory=list)
    """Parameters that had no gradient before an exchange that does not count yet."""

    @torch.no_grad()
    def average(self, skips: bool) -> Steps[bool]:
        """Exchange the gradients; whether the optimizer is to step. See :meth:`thinwire.worker.Worker.before_step`."""
        proposal = yield from self.propose(skips)
        return proposal.is_finite and self.accept(proposal)

    @torch.no_grad()
    def propose(self, skips: bool) -> Steps[Proposal]:
        """Exchange the gradients; nothing of it is remembered before :meth:`accept`.

        Args:
            skips: whether a mean that is not finite is returned, and no error: none is to step then.
        """
        agreement, exchanged, runner = self.agreement, self.exchanged, self.runner
        self._empty()
        used = agreement.trained.with_gradients(agreement.used, counts_all=exchanged.is_bound)
        own = self.sharing.own_gradients()
        if (yield from agreement.begin(runner.seed, runner.size)):
            restore_gradients(own)  # meanwhile workers beside this one have put theirs there
        while True:
            (channel,) = exchanged.channels
            has_news = agreement.has_news(used)
            self._filled = [param for param in exchanged.params if param.grad is None]
            x, finite = channel.marked() if has_news else exchanged.gather_gradient(channel, self.method)
            outcome = yield from runner.run(channel, x, finite, runner.num_exchanges, runner.num_exchanges)
            proposal = Proposal(channel, 0, outcome)
            if proposal.is_finite:
                return proposal
            self._empty()
            restore_gradients(own)
            concluded = yield from agreement.tell(has_news, finite, used, runner.num_exchanges)
            if concluded.first_nonfinite or not concluded.is_new:
                if skips:
                    return proposal
                raise numerics_error(channel, outcome, concluded.first_nonfinite, "gradient", runner.num_steps + 1)

    @torch.no_grad()
    def accept(self, proposal: Proposal) -> bool:
        """An exchange counts, and its mean takes the place of the gradients; whether the optimizer is to step."""
        channel, outcome, runner = proposal.channel, proposal.outcome, self.runner
        is_first = self.sharing.num_steps == runner.num_steps  # else a worker beside this one has done it
        if not self.agreement.is_idle:
            runner.accept(channel, outcome, runner.num_steps + 1)
            runner.count(outcome)
        if is_first and not self.agreement.is_idle:
            # Not those of before: workers beside this one have cleared them and made their own.
            channel.write_result(outcome.aggregate, gradients(self.exchanged.params))
        self._filled = []
        self.sharing.num_steps += is_first
        runner.num_steps += 1
        return is_first

    def _empty(self) -> None:
        """What had no gradient has none again."""
        for param in self._filled:
            param.grad = None
        self._filled = []


@dataclass(slots=True, eq=False)
class ModelMeans:
    """Averages models, fragment by fragment, when the schedule says so.

    Args:
        method: what is exchanged, when and how.
        exchanged: the parameters.
        agreement: with the other workers on what these are.
        runner: of the exchanges.
    """

    method: ModelAveraging
    exchanged: Exchanged
    agreement: Agreement
    runner: ExchangeRunner
    _directed: DirectedSteps | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        update = self.method.update
        if isinstance(update, DirectedUpdate):
            self._directed = DirectedSteps(update, self.exchanged, self.agreement, self.runner)

    @torch.no_grad()
    def direct(self, skips: bool) -> None:
        """Before a local step: put what the optimizer is to step along in the place of the worker's own gradient.

        Args:
            skips: whether gradients that are not finite are no error: then there is to be no step by them, and nothing
                goes on.
        """
        if self._directed is not None:
            self._directed.direct(skips)
        elif self.exchanged.tracker is not None:
            self.exchanged.tracker.direct(gradients(self.exchanged.params), skips)

    @torch.no_grad()
    def average(self) -> Steps[None]:
        """After a local step: apply what is due, and exchange the next fragment if it is its time."""
        if self.is_due():
            yield from self._average_next(self.method.delay)
        if self._directed is not None:
            yield from self._directed.learn()

    def is_due(self) -> bool:
        """After a local step: apply what is due; whether a fragment is to be exchanged."""
        num_steps = self.runner.num_steps
        self.exchanged.stands = False
        for channel in self.exchanged.channels:
            if channel.pending is not None and channel.pending.due <= num_steps:
                self.exchanged.end_wait(channel)
        return self.method.schedule.due(num_steps, self.runner.rank)

    @torch.no_grad()
    def finish(self) -> Steps[None]:
        """Exchange every fragment that has local steps which the other workers have not got."""
        self.exchanged.end_waits()
        while self.exchanged.num_unshared_steps(self.runner.num_steps):
            yield from self._average_next(delay=0)

    def _average_next(self, delay: int) -> Steps[None]:
        self.accept((yield from self.propose(forgets=True)), delay)

    @torch.no_grad()
    def propose(self, *, forgets: bool = False) -> Steps[Proposal]:
        """Exchange the fragment whose turn it is; nothing of it is remembered before :meth:`accept`.

        Args:
            forgets: whether :meth:`accept` comes before anything else, so that the memory can be made then.
        """
        agreement, exchanged, runner = self.agreement, self.exchanged, self.runner
        yield from agreement.begin(runner.seed, runner.size)
        used = list(agreement.trained.named)
        while True:
            turn, place = divmod(runner.num_exchanges, len(exchanged.channels))
            channel = exchanged.channels[place]
            exchanged.end_wait(channel)  # for its turn before
            has_news = agreement.has_news(used)
            x, finite = channel.marked() if has_news else channel.gather_signal(self.method.compressor_at(turn))
            is_streamed = x.difference is not None
            program = runner.run(channel, x, finite, runner.num_exchanges, turn, forgets=is_streamed and forgets)
            tracked: Outcome | None = None
            if exchanged.tracker is None:
                outcome = yield from program
            else:
                outcome, tracked = yield from side_by_side(program, exchanged.tracker.exchange(turn))
            proposal = Proposal(channel, place, outcome, tracked)
            if proposal.is_finite:
                return proposal
            concluded = yield from agreement.tell(has_news, finite, used, runner.num_exchanges)
            if concluded.first_nonfinite or not concluded.is_new:
                what = "model"
                if tracked is not None and outcome.aggregate.finite:
                    outcome, what = tracked, "tracked gradient"
                raise numerics_error(channel, outcome, concluded.first_nonfinite, what, runner.num_steps)

    @torch.no_grad()
    def accept(self, proposal: Proposal, delay: int) -> None:
        """An exchange counts; what came back is applied now, or after so many local steps."""
        channel, outcome, runner = proposal.channel, proposal.outcome, self.runner
        if outcome.memory is None:
            outcome = channel.following_signal(outcome)
        runner.accept(channel, outcome, runner.num_steps)
        runner.count(outcome)
        if self.exchanged.tracker is not None and proposal.tracked is not None:
            self.exchanged.tracker.accept(proposal.tracked)
            runner.count(proposal.tracked)
        self.exchanged.exchanged_at[proposal.place] = runner.num_steps
        if delay:
            channel.pending = Pending(outcome.aggregate, runner.num_steps + delay)
        else:
            self.exchanged.apply(channel, outcome.aggregate)
        self.agreement.let_go(runner.num_exchanges)
