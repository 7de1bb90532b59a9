"""What a worker under gossip steps by, where it tracks the gradient of all; see :class:`thinwire.methods.Tracking`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinwire.layout import Layout
from thinwire.methods import Consensus, Method, ModelAveraging, Tracking
from thinwire.random import Key
from thinwire.steps import Steps
from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.keeper import Keeper
from thinwire.worker.parameters import unflatten_any

MARK = "tracker_"
"""Before the names of what a tracker keeps, which are else those of what is kept of models."""


@dataclass(slots=True, eq=False)
class Tracker:
    """The tracked gradient of one worker, and the gossip by which it is drawn to the neighbours'.

    Gossip is that of models, with a channel and sums of its own; what moves here is the tracked gradient, which nobody
    evaluates in between, so that a move is made at once.

    Args:
        method: of models.
        tracking: its rule.
        gossip: how it is drawn to the neighbours'.
        channel: with the rule's state beside the update's.
    """

    method: ModelAveraging
    tracking: Tracking
    gossip: Consensus
    channel: Channel

    def take(self, gradient: Tensor) -> Tensor:
        """What to step by in place of the worker's own gradient, f32 ``[d]``."""
        self.tracking.take_gradient(gradient, self.channel.update)
        return self.tracking.tracked(self.channel.update)

    def direct(self, grads: Sequence[Tensor], skips: bool) -> None:
        """Write what to step by over the worker's own gradient.

        Args:
            grads: views of it.
            skips: whether one that is not finite is left as it is, and not taken.
        """
        own, finite = self.channel.gather(grads)
        if finite or not skips:
            unflatten_any(self.take(own.take()), grads)

    def exchange(self, number: int) -> Steps[Outcome]:
        """Send what the neighbours do not know of it yet; nothing is remembered before :meth:`accept`.

        Args:
            number: of exchanges before.
        """
        state = self.channel.update
        signal = self.gossip.signal(lambda _: self.tracking.tracked(state), state)
        x, finite = self.channel.gather([signal])
        outcome: Outcome = yield from self.channel.run(x, self.method.compressor_at(number), finite, number)
        return outcome

    def accept(self, outcome: Outcome) -> None:
        """The exchange counts."""
        state = self.channel.update
        self.channel.accept(outcome)
        step = self.gossip.step(outcome.aggregate, state)
        # What rounding has kept back of the last means comes with the next one, where a sum of sums would miss it.
        step.add_(self.channel.exchange["rounding"], alpha=self.gossip.gamma)
        self.tracking.move(step, state)

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by name: views."""
        return {f"{MARK}{name}": tensor for name, tensor in self._keeper().tensors().items()}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Keep what :meth:`tensors` gave.

        Raises:
            ConfigError: it is of another model; nothing is changed.
        """
        self._keeper().load({name.removeprefix(MARK): tensor for name, tensor in saved.items()}, [None])

    def _keeper(self) -> Keeper:
        found = Keeper(self.channel.layout)
        found.add([self.channel])
        return found


def make_tracker(
    method: Method, layout: Layout, rank: int, size: int, key: Key, device: torch.device
) -> Tracker | None:  # fmt: skip
    """A tracker that has seen no gradient; None for methods that track none.

    Args:
        method: what is exchanged and how.
        layout: of the parameters.
        rank: this worker.
        size: number of workers.
        key: the seed's.
        device: where the parameters lie.
    """
    if not isinstance(method, ModelAveraging) or method.tracking is None:
        return None
    assert isinstance(method.update, Consensus)  # a method refuses to track with another
    state = method.tracking.init(layout.numel, device)
    channel = Channel(method, layout, [state["moved"]], rank, size, key.fold("tracked"))
    channel.update |= state
    return Tracker(method, method.tracking, method.update, channel)
