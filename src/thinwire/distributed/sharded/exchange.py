"""The exchanges of a backward pass over shards, layer by layer, and what they leave in the memories."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.distributed.bucket_exchange import GradScaler, StepScale
from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.settling import Held, Settling
from thinwire.errors import ConfigError, NumericsError
from thinwire.steps import Steps, tell
from thinwire.worker.channel import Channel
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.refusals import first_nonfinite_parameter

_AGAIN = 1 << 32
"""Added to the number of an exchange for each that its layer has had in this backward pass."""


@dataclass(slots=True)
class ShardExchange:
    """Programs that exchange a layer's gradients each; all of a backward pass's exchanges may count, or none does.

    Args:
        buckets: the memories.
        runner: of the exchanges.
        scaler: of the loss; without one a gradient that is not finite is an error.
    """

    buckets: BucketChannels
    runner: ExchangeRunner
    scaler: GradScaler | None
    settling: Settling = field(init=False, default_factory=Settling)
    _scale: StepScale = field(init=False)
    # The last exchange of each channel in this backward pass, and how many it has had.
    _held: dict[tuple[str, ...], tuple[Held, int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._scale = StepScale(self.scaler)

    @torch.no_grad()
    def program(self, named: Mapping[str, Tensor], *, is_partial: bool) -> Steps[list[Held]]:
        """The exchange of gradients by name; the mean is written over them.

        Args:
            named: the local parts.
            is_partial: whether the layer has parameters without a gradient. Then it is asked first whether the replicas
                have the same ones, since shards of equal length would mix without a word.
        """
        if is_partial:
            yield from _check_alike(sorted(named))
        scale = self._scale.of_step()
        found = []
        for channel in self.buckets.of(named):
            ordered = [named[name] for name in channel.layout.names]
            x, finite = channel.gather(ordered, scale)
            earlier, count = self._earlier(channel)
            number, turn = self.runner.num_steps + count * _AGAIN, self.runner.num_steps
            present = channel.memory, channel.exchange
            if earlier is not None and earlier.outcome.aggregate.finite:
                # What this backward pass has left so far is where it goes on; it counts with all the rest, or not.
                assert earlier.outcome.memory is not None
                channel.memory, channel.exchange = earlier.outcome.memory, earlier.outcome.aggregate.state
            try:
                outcome = yield from self.runner.run(channel, x, finite, number, turn)
            finally:
                channel.memory, channel.exchange = present
            held = Held(channel, outcome, ordered, scale)
            held.write_over()
            if earlier is None or earlier.outcome.aggregate.finite:
                self._held[channel.layout.names] = held, count + 1
            found.append(held)
        return found

    def finish(self, found: list[Held]) -> None:
        """The bytes of these exchanges were handed over."""
        for held in found:
            self.runner.count(held.outcome)

    def _earlier(self, channel: Channel) -> tuple[Held | None, int]:
        names = set(channel.layout.names)
        for cut, (held, count) in self._held.items():
            if cut == channel.layout.names:
                return held, count
            if not names.isdisjoint(cut):
                raise ConfigError(
                    f"{sorted(names.intersection(cut))[0]!r} got gradients twice in one backward pass, together with "
                    "other parameters each time; use the layer alike each time, or call backward for each use"
                )
        return None, 0

    @property
    def spoilt(self) -> Held | None:
        """An exchange of this backward pass whose mean is not finite; the same on all replicas."""
        return next((held for held, _ in self._held.values() if not held.outcome.aggregate.finite), None)

    def error(self, spoilt: Held | None) -> NumericsError:
        """For a backward pass in which some mean is not finite, here or on another process of the replica."""
        where = "another process's shard"
        if spoilt is not None:
            where = repr(first_nonfinite_parameter(spoilt.channel, spoilt.outcome))
        return NumericsError(
            f"NaN or inf in the gradient of at least one replica, in {where}, found at step "
            f"{self.runner.num_steps + 1}; no memory has taken anything of it. Lower the learning rate, clip "
            "gradients, or look for bad input data; a GradScaler that is to skip such steps must be given to "
            "compress_fsdp as scaler="
        )

    def hold(self) -> None:
        """The backward pass is over; what it left waits until it is known whether it counts."""
        held = [each for each, _ in self._held.values()]
        self._held = {}
        self._scale.end()
        if all(each.outcome.aggregate.finite for each in held):
            self.settling.hold(held)
        else:
            self.settling.clear()

    @torch.no_grad()
    def settle(self) -> None:
        """It is known what became of the last gradients."""
        self.settling.settle(self.runner)

    def forget(self) -> None:
        """The exchanges of this backward pass, or those that wait, are as if they had not been."""
        self.settling.clear()
        self._held = {}
        self._scale.end()


def _check_alike(names: list[str]) -> Steps[None]:
    everyone = yield from tell("\n".join(names))
    differing = {name for other in everyone for name in set(other.split("\n")).symmetric_difference(names)}
    if differing:
        raise ConfigError(
            f"replicas have gradients of different parameters ({', '.join(sorted(differing)[:3])} on some only); use "
            "the same ones on all, or call model.set_reduce_scatter_unused_params(True)"
        )
