"""What becomes of exchanged gradients: a memory counts what was applied, not what was exchanged."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.keeper import by_parameter


@dataclass(slots=True, eq=False)
class _Mark:
    """A parameter as backward left it; versions count writes in place."""

    param: Tensor
    grad: Tensor | None
    grad_version: int
    version: int
    is_applied: bool = False
    is_gone: bool = False
    """It was seen to be thrown away."""

    @property
    def is_dropped(self) -> bool:
        """DDP left the gradient as it was: nobody used the parameter, and its mean goes nowhere."""
        return self.grad is None

    @property
    def is_written(self) -> bool:
        """An optimizer has applied the gradient, or the script has by itself."""
        return self.is_applied or self.param._version != self.version

    @property
    def counts(self) -> bool:
        """Whether what was exchanged has been applied, or is still there to be."""
        if self.grad is None:
            return False
        if self.is_written:
            return True
        if self.is_gone or self.param.grad is not self.grad:
            return False
        return self.grad._version == self.grad_version or bool(self.grad.any())


class Settling:
    """The exchanges of one backward pass, until it is known what became of the gradients that they gave.

    An exchange counts for a parameter if since then an optimizer that holds it has made a step, or the parameter was
    written in place, or its gradient is still where DDP put it: what is left is then part of the next one. If the
    gradient was thrown away (set to None or to zeros, or never given: DDP leaves alone what nobody used), the memory
    of the parameter is as it was before the exchange: what is owed stays owed. Where nothing is known it counts.
    """

    def __init__(self) -> None:
        self._outcomes: list[tuple[Channel, Outcome]] = []
        self._before: dict[str, tuple[Tensor, Tensor | None, int]] = {}
        self._marks: dict[str, _Mark] = {}

    def begin(self, named: Mapping[str, Tensor]) -> None:
        """These parameters' gradients are handed over."""
        for name, param in named.items():
            grad = param.grad
            self._before[name] = param, grad, 0 if grad is None else grad._version

    def hold(self, outcomes: Sequence[tuple[Channel, Outcome]]) -> None:
        """Keep what the exchanges left; the means have been written to the gradients, and are as long as the model."""
        self._outcomes = [(channel, _without_mean(outcome)) for channel, outcome in outcomes]

    def backward_ended(self, *, are_views: bool) -> None:
        """DDP has given back the gradients.

        Args:
            are_views: whether gradients lie in DDP's buckets, so that what is written there they have.
        """
        for name, (param, was, version) in self._before.items():
            grad = param.grad
            if grad is not None and not are_views and grad is was and grad._version == version:
                grad = None
            self._marks[name] = _Mark(param, grad, 0 if grad is None else grad._version, param._version)
        self._before = {}

    def stepped(self, optimizer: torch.optim.Optimizer) -> bool:
        """An optimizer has made a step; whether it holds any of the parameters."""
        held = {id(param) for group in optimizer.param_groups for param in group["params"]}
        marks = [mark for mark in self._marks.values() if id(mark.param) in held]
        for mark in marks:
            mark.is_applied |= mark.param.grad is not None
        return bool(marks)

    def look(self) -> None:
        """Notice gradients that are gone: the next backward may put others in the same place."""
        for mark in self._marks.values():
            mark.is_gone |= not mark.counts

    @property
    def are_all_written(self) -> bool:
        """Whether nothing is left to wait for."""
        return bool(self._marks) and all(mark.is_dropped or mark.is_written for mark in self._marks.values())

    @property
    def are_any_written(self) -> bool:
        """Whether the step has been made, for some of the parameters at least, or nothing is known of it."""
        is_unknown = bool(self._outcomes) and not self._marks
        return is_unknown or any(not mark.is_dropped and mark.is_written for mark in self._marks.values())

    def settle(self) -> list[tuple[Channel, Outcome]]:
        """Decide; the outcomes that count, for some parameters at least, and are to be accepted by their channels."""
        counting = []
        for channel, outcome in self._outcomes:
            names = channel.layout.names
            gone = {name for name in names if (mark := self._marks.get(name)) is not None and not mark.counts}
            if len(gone) < len(names):
                give_back(channel, outcome, gone)
                counting.append((channel, outcome))
        self.clear()
        return counting

    def clear(self) -> None:
        """Forget everything: channels stay as they were before the exchanges."""
        self._outcomes, self._before, self._marks = [], {}, {}


def _without_mean(outcome: Outcome) -> Outcome:
    return replace(outcome, aggregate=replace(outcome.aggregate, result=torch.empty(0, dtype=torch.float32)))


def give_back(channel: Channel, outcome: Outcome, names: Collection[str]) -> None:
    """Let the next state of a channel be, for these parameters, the present one."""
    if not names:
        return
    for now, following in ((channel.memory, outcome.memory), (channel.exchange, outcome.aggregate.state)):
        views = by_parameter(following, channel.layout)
        for place, view in by_parameter(now, channel.layout).items():
            is_meant = place.partition(".")[2] in names and place in views
            if is_meant and views[place].data_ptr() != view.data_ptr():
                views[place].copy_(view)
