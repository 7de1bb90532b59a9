"""The exchanges of a step under the hook of DDP, bucket by bucket, and what they leave in the memories."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.dense_watch import DenseWatch
from thinwire.distributed.guard import GuardedReplicas
from thinwire.distributed.settling import Held, Settling
from thinwire.errors import NumericsError
from thinwire.payloads import Sparse
from thinwire.steps import Steps
from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.parameters import local_part
from thinwire.worker.refusals import first_nonfinite_parameter
from thinwire.worker.step_times import StepClock, during


class GradScaler(Protocol):
    """What is asked of ``torch.amp.GradScaler``."""

    def get_scale(self) -> float:
        """The factor that the loss is multiplied by."""
        ...


def enabled(scaler: GradScaler | None) -> GradScaler | None:
    """No scaler if it does nothing: it would skip no step."""
    return None if isinstance(scaler, torch.amp.GradScaler) and not scaler.is_enabled() else scaler


@dataclass(slots=True)
class StepScale:
    """What gradients were multiplied by, asked once a step: the scaler of a model on a device waits for that device."""

    scaler: GradScaler | None
    _found: float | None = field(init=False, default=None)

    def of_step(self) -> float:
        """The factor; 1 without a scaler."""
        if self._found is None:
            self._found = self.scaler.get_scale() if self.scaler else 1.0
        return self._found

    def end(self) -> None:
        """The step is over: its factor counts no more."""
        self._found = None


@dataclass(frozen=True, slots=True, eq=False)
class ExchangedBucket:
    """A bucket that has its mean: what came of it, when it began, and whether later ones are alike."""

    held: list[Held]
    begun_s: float
    counts: bool


class BucketExchange:
    """Programs that exchange a bucket each; all of a step's exchanges may count, or none does.

    Args:
        buckets: the memories.
        runner: of the exchanges.
        scaler: of the loss; without one a gradient that is not finite is an error.
        guard: compares the replicas, if it is wanted.
        clock: what the time of exchanges is measured by, if it is.
    """

    def __init__(
        self, buckets: BucketChannels, runner: ExchangeRunner, scaler: GradScaler | None,
        guard: GuardedReplicas | None, clock: StepClock | None,
    ) -> None:  # fmt: skip
        self.settling = Settling()
        self.watch: DenseWatch | None = None
        self._buckets = buckets
        self._runner = runner
        self._scale = StepScale(scaler)
        self._guard = guard
        self._clock = clock
        self._held: list[Held] = []
        self._kept: list[Held] = []

    @torch.no_grad()
    def program(
        self, named: Mapping[str, Tensor], params: Mapping[str, Tensor], *, keeps: bool
    ) -> Steps[ExchangedBucket]:
        """The exchange of a bucket's gradients, by the names of its parameters; the mean is written over them.

        If it ``keeps`` them, it is not where the mean is of few entries: these gradients stay in the bucket until it is
        known whether the exchange counts, and :meth:`write_kept` writes their means.
        """
        begun_s = self.watch.begin() if self.watch else 0.0
        if self._clock:
            self._clock.switch("apply")
        scale = self._scale.of_step()
        num_steps = self._runner.num_steps
        exchanged, counts = [], True
        for channel in self._buckets.of(named):
            ordered = [named[name] for name in channel.layout.names]
            channel.params = [local_part(params[name]) for name in channel.layout.names]
            x, finite = channel.gather(ordered, scale)
            counts &= channel.method.compressor_at(num_steps) is channel.method.compressor
            outcome = yield from self._runner.run(channel, x, finite, num_steps, num_steps, forgets=keeps)
            held = Held(channel, outcome, ordered, scale)
            is_few = outcome.aggregate.finite and isinstance(outcome.aggregate.result, Sparse)
            if outcome.memory is not None or not is_few:
                held.write_over()
            exchanged.append(held)
        return ExchangedBucket(exchanged, begun_s, counts)

    @torch.no_grad()
    def finish(self, buffer: Tensor, is_last: bool, handed_s: float, exchanged: ExchangedBucket) -> Tensor:
        """What is left to do once the exchanges of all buckets before this one are over too.

        Raises:
            NumericsError: without a scaler, at the last bucket, on every process.
            DivergenceError: the guard has found that the replicas differ.
        """
        self._held += exchanged.held
        if is_last:
            self._scale.end()
            self._end_exchanges()
        if self._clock:
            self._clock.switch("compute")
            if is_last:
                self._clock.end_step()
        if self.watch:
            self.watch.end(
                handed_s,
                exchanged.begun_s,
                min(buffer.nbytes, 2 * buffer.numel()),
                is_last=is_last,
                counts=exchanged.counts,
            )
        return buffer

    def _end_exchanges(self) -> None:
        """The means are common, so all workers decide alike."""
        everything, self._held = self._held, []
        if self._guard:  # parameters do not change before the last bucket is back
            self._guard.after_step(self._runner.num_steps)
        spoilt = next((held for held in everything if not held.outcome.aggregate.finite), None)
        self._kept = [held for held in everything if held.own is not None]
        if spoilt is None:
            for held in everything:
                self._runner.count(held.outcome)
            self.settling.hold(everything)
        elif self._scale.scaler is None:
            raise _numerics_error(spoilt.channel, spoilt.outcome, self._runner.num_steps + 1)

    @torch.no_grad()
    def write_kept(self, grads: Mapping[str, Tensor | None]) -> None:
        """To gradients by name, where those in the bucket were kept; None stands for one that DDP has left alone."""
        kept, self._kept = self._kept, []
        with during(self._clock, "apply"):
            for held in kept:
                held.write_to(grads)

    @torch.no_grad()
    def complete(self) -> None:
        """DDP's buckets may be written to from now on, though it is not known yet which exchanges count."""
        self.settling.complete()

    @torch.no_grad()
    def settle(self) -> None:
        """It is known what became of the last gradients."""
        with during(self._clock, "compress"):
            self.settling.settle(self._runner)

    def forget(self) -> None:
        """The exchanges of this step, or those that wait, are as if they had not been."""
        self._scale.end()
        self.settling.clear()
        self._held, self._kept = [], []


def _numerics_error(channel: Channel, outcome: Outcome, step: int) -> NumericsError:
    name = first_nonfinite_parameter(channel, outcome)
    return NumericsError(
        f"NaN or inf in the gradient of at least one worker, in {name!r}, found at step {step}; no memory "
        "has taken anything of it. Lower the learning rate, clip gradients, or look for bad input data; a GradScaler "
        "that is to skip such steps must be given to compress_ddp as scaler="
    )
