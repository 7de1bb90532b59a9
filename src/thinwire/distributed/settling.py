"""What becomes of exchanged gradients: a memory counts what was applied, not what was exchanged."""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thinwire.arrays import CPU, empty
from thinwire.errors import ConfigError
from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.exchange_runner import ExchangeRunner
from thinwire.worker.keeper import by_parameter
from thinwire.worker.parameters import local_part


@dataclass(slots=True, eq=False)
class Held:
    """An exchange until it is known whether it counts.

    Where the mean is of few entries, DDP's bucket keeps what was exchanged until then, and the memory's next state is
    made from it once it is wanted: else each would be as long as the model, beside the present one.

    Args:
        channel: of the bucket, or of a part of it.
        outcome: what came back.
        own: this process's gradients in the bucket, in layout order, if they are kept there.
        unit: of gradients in the bucket and of the means that are written: the factor of a scaled loss.
    """

    channel: Channel
    outcome: Outcome
    own: Sequence[Tensor] | None
    unit: float

    def write_over(self) -> None:
        """The mean takes the place of what was exchanged."""
        own = self.own
        assert own is not None
        if self.outcome.aggregate.finite:
            self.complete()
        self.own = None
        self.channel.write_result(self.outcome.aggregate, own, self.unit)
        if self.outcome.aggregate.finite:
            self.outcome = _without_mean(self.outcome)

    def write_to(self, grads: Mapping[str, Tensor | None]) -> None:
        """Copy the mean to those gradients, by name, that are there."""
        names, shapes = self.channel.layout.names, self.channel.layout.shapes
        targets = [grads[name] for name in names]
        if self.own and any(target is not None and _share_memory(target, self.own[0]) for target in targets):
            self.complete()  # a gradient was put into the bucket, which no version of DDP is known to do
        device = self.channel.device
        # What is written for a gradient that DDP has left alone goes nowhere.
        places = [
            empty(shape.numel(), device).view(shape) if target is None else target
            for target, shape in zip(targets, shapes, strict=True)
        ]
        self.channel.write_result(self.outcome.aggregate, places, self.unit)
        self.outcome = _without_mean(self.outcome)

    def complete(self, *, in_place: bool = False) -> None:
        """Make what the memory will hold, if it is not there: from now on the bucket may be written to.

        Args:
            in_place: whether all of it counts, so that what the memory holds now is of no use any more.
        """
        if self.own is not None and self.outcome.memory is None:
            self.outcome = self.channel.following(self.outcome, self.own, self.unit, in_place=in_place)
        self.own = None


@dataclass(slots=True, eq=False)
class _Mark:
    """A parameter as backward left it; versions count writes in place."""

    param: Tensor
    grad: Tensor | None
    grad_version: int
    version: int
    may_move: bool
    """DDP lets gradients that are views of its buckets be others when it makes new buckets, with the same values."""
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
        now = self.param.grad
        if self.is_gone or now is None or (now is not self.grad and not self.may_move):
            return False
        # Of a sharded one the local part tells: all that hold a replica of it decide alike.
        return (now is self.grad and now._version == self.grad_version) or bool(local_part(now).any())


class Settling:
    """The exchanges of one backward pass, until it is known what became of the gradients that they gave.

    An exchange counts for a parameter if since then an optimizer that holds it has made a step, or the parameter was
    written in place, or its gradient is still where DDP put it: what is left is then part of the next one. If the
    gradient was thrown away (set to None or to zeros, or never given: DDP leaves alone what nobody used), the memory
    of the parameter is as it was before the exchange: what is owed stays owed. Where nothing is known it counts.
    """

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._before: dict[str, tuple[Tensor, Tensor | None, int]] = {}
        self._marks: dict[str, _Mark] = {}

    def begin(self, named: Mapping[str, Tensor], *, are_new: bool = False) -> None:
        """These parameters' gradients are handed over.

        If they ``are_new``, no gradient that is there is one of before.
        """
        for name, param in named.items():
            grad = None if are_new else param.grad
            self._before[name] = param, grad, 0 if grad is None else grad._version

    def hold(self, held: Sequence[Held]) -> None:
        """Keep what the exchanges left."""
        self._held = list(held)

    def backward_ended(self, write: Callable[[Mapping[str, Tensor | None]], None], *, are_views: bool) -> None:
        """DDP has given back the gradients.

        Args:
            write: called with them by name, None for what DDP left alone; it writes to the others what is missing.
            are_views: whether gradients lie in DDP's buckets, so that what is written there they have.
        """
        grads: dict[str, Tensor | None] = {}
        for name, (param, was, version) in self._before.items():
            grad = param.grad
            if grad is not None and not are_views and grad is was and grad._version == version:
                grad = None
            grads[name] = grad
        write(grads)
        for name, (param, _, _) in self._before.items():
            grad = grads[name]
            grad_version = 0 if grad is None else grad._version
            self._marks[name] = _Mark(param, grad, grad_version, param._version, may_move=are_views)
        self._before = {}

    def complete(self) -> None:
        """DDP's buckets may be written to from now on."""
        for held in self._held:
            held.complete()

    def check_complete(self) -> None:
        """Raise :class:`ConfigError` if DDP's buckets, which are being filled again, held what is needed."""
        if any(held.own is not None for held in self._held):
            raise ConfigError(
                "a backward pass began without a forward pass by the model itself, whose buckets held gradients of "
                "the pass before it; call model(...), not model.forward(...) or model.module(...)"
            )

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
        is_unknown = bool(self._held) and not self._marks
        return is_unknown or any(not mark.is_dropped and mark.is_written for mark in self._marks.values())

    def settle(self, runner: ExchangeRunner) -> None:
        """Decide; the outcomes that count, for some parameters at least, are accepted by ``runner``, one by one.

        So no more than one next state is there beside the present one that it replaces. They are a step, if any counts.
        """
        step = runner.num_steps + 1
        everything = deque(self._held)
        marks = self._marks
        self.clear()
        while everything:
            held = everything.popleft()
            names = held.channel.layout.names
            gone = {name for name in names if (mark := marks.get(name)) is not None and not mark.counts}
            if len(gone) < len(names):
                held.complete(in_place=not gone)
                give_back(held.channel, held.outcome, gone)
                runner.accept(held.channel, held.outcome, step)
                runner.num_steps = step

    def clear(self) -> None:
        """Forget everything: channels stay as they were before the exchanges."""
        self._held, self._before, self._marks = [], {}, {}


def _share_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _without_mean(outcome: Outcome) -> Outcome:
    return replace(
        outcome, aggregate=replace(outcome.aggregate, result=torch.empty(0, dtype=torch.float32, device=CPU))
    )


def give_back(channel: Channel, outcome: Outcome, names: Collection[str]) -> None:
    """Let the next state of a channel be, for these parameters, the present one."""
    if not names:
        return
    assert outcome.memory is not None
    for now, following in ((channel.memory, outcome.memory), (channel.exchange, outcome.aggregate.state)):
        views = by_parameter(following, channel.layout)
        for place, view in by_parameter(now, channel.layout).items():
            is_meant = place.partition(".")[2] in names and place in views
            if is_meant and views[place].data_ptr() != view.data_ptr():
                views[place].copy_(view)
