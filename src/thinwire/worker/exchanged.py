"""The parameters that a worker exchanges, by name, with everything that is remembered of them."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from thinwire.exchanges import Aggregate
from thinwire.layout import Layout
from thinwire.memory import Handed
from thinwire.methods import GradientAveraging, Method, ModelAveraging
from thinwire.methods.updates import POINTS
from thinwire.random import Key
from thinwire.staging import Verdict
from thinwire.worker.channel import Channel
from thinwire.worker.keeper import Keeper, owner
from thinwire.worker.parameters import check_in_place, clip_own, gradients, local_part
from thinwire.worker.regrouping import find_bound, group, regroup
from thinwire.worker.resize import scale_memory
from thinwire.worker.step_times import StepClock
from thinwire.worker.tracker import MARK, Tracker, make_tracker


class Exchanged:
    """Parameters, the channels that exchange them, and what is owed to others that once were among them.

    Args:
        method: what is exchanged and how.
        named: the parameters.
        rank: this worker.
        size: number of workers.
        key: the seed's.

    Raises:
        ConfigError: a part of the method does not fit them.
    """

    def __init__(self, method: Method, named: Mapping[str, Tensor], rank: int, size: int, key: Key) -> None:
        self._method = method
        self._rank = rank
        self._size = size
        self.key = key
        """The seed's."""
        self._clock: StepClock | None = None
        self._sums_stay = False
        self.tracker: Tracker | None = None
        """Of the gradient of all workers, if it is tracked."""
        self._take(group(method, named, rank, size, key), named)
        self.exchanged_at = [0] * len(self.channels)
        """The number of local steps before the last exchange of each channel."""
        self.stands = all("reference" in channel.update for channel in self.channels)
        """Whether the parameters are what the workers have in common."""

    @property
    def known(self) -> set[str]:
        """The parameters whose common values are known here: they need not say where they begin."""
        waiting = self.keeper.waiting
        return {*self.layout.names, *(owner(name) for name in waiting if name.startswith("update."))}

    def drive(self, clock: StepClock | None, *, sums_stay: bool) -> None:
        """Let a clock measure the time of compression; whether the driver sums on the device."""
        self._clock, self._sums_stay = clock, sums_stay
        for channel in self._all_channels():
            channel.clock, channel.sums_stay = clock, sums_stay

    def check_in_place(self) -> None:
        """Raise :class:`ConfigError` if views are held of memory that is not the parameters' any more."""
        check_in_place(self._viewed, self._addresses)

    def parameters(self) -> dict[str, Tensor]:
        """By name."""
        return dict(zip(self.layout.names, self.params, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name: for :meth:`load`."""
        return self.keeper.tensors() | ({} if self.tracker is None else self.tracker.tensors())

    def shared(self) -> dict[str, Tensor]:
        """The reference points by name, or, where there are none, the parameters."""
        references = [channel.update.get("reference") for channel in self.channels]
        if any(reference is None for reference in references):
            parts = [local_part(param.detach()) for param in self.params]
            return dict(zip(self.layout.names, parts, strict=True))
        flat = [reference for reference in references if reference is not None]
        return self.layout.unflatten(flat[0] if len(flat) == 1 else torch.cat(flat))

    def memory_norm(self) -> float:
        """``||m||_2`` of the residual, 0 without memory."""
        residuals = [channel.memory["residual"] for channel in self.channels if "residual" in channel.memory]
        return math.hypot(*(float(residual.float().norm()) for residual in residuals))

    def reset_memory(self) -> None:
        """Nothing is owed any more."""
        for channel in self.channels:
            channel.reset_memory()
        self.keeper.waiting.clear()

    def num_unshared_steps(self, num_steps: int) -> int:
        """Local steps whose work the other workers have not got; 1 if a result waits to be applied."""
        if not isinstance(self._method, ModelAveraging):
            return 0
        return max(num_steps - min(self.exchanged_at), int(self.has_waits))

    @property
    def has_waits(self) -> bool:
        """Whether a result waits to be applied."""
        return any(channel.pending is not None for channel in self.channels)

    def gather_gradient(self, channel: Channel, method: GradientAveraging) -> tuple[Handed, bool | Verdict]:
        """This worker's own gradient, clipped if the method says so, as :meth:`Channel.gather` has it."""
        grads = gradients(self.params)
        if method.clip_norm is not None:
            # The sum of P independent gradients is sqrt(P) times as long as one of them.
            clip_own(self.params, grads, method.clip_norm / math.sqrt(self._size))
        return channel.gather(grads)

    def apply(self, channel: Channel, aggregate: Aggregate) -> None:
        """Let the update make of a mean what the worker goes on with."""
        assert isinstance(self._method, ModelAveraging)
        following = self._method.update.apply(aggregate, channel.local, channel.update)
        self.stands = following is channel.update.get("reference") and len(self.channels) == 1
        channel.write_params(following)

    def end_wait(self, channel: Channel) -> None:
        """Apply the result that waits to be applied, if there is one."""
        if channel.pending is not None:
            self.apply(channel, channel.pending.aggregate)
            channel.pending = None

    def end_waits(self) -> None:
        """Apply all results that wait."""
        for channel in self.channels:
            self.end_wait(channel)

    def resize(self, rank: int, size: int) -> None:
        """Be another one of another number of workers; what is owed counts as before.

        Raises:
            ConfigError: the exchange refuses the number; nothing has changed.
        """
        factor = size / self._size
        for channel in self._all_channels():
            channel.become(rank, size)
            scale_memory(channel, factor)
        for name, tensor in self.keeper.waiting.items():
            if name.startswith("memory."):
                tensor.mul_(factor)
        self._rank, self._size = rank, size

    def regroup(self, named: Mapping[str, Tensor], begins: Mapping[str, Tensor], replaced: Collection[str]) -> None:
        """From now on these are exchanged; see :func:`thinwire.worker.regrouping.regroup`."""
        self._take(regroup(self.keeper, named, begins, replaced, self.key, stands=self.stands), named)
        self.exchanged_at = [min(self.exchanged_at)] * len(self.channels)

    @torch.no_grad()
    def begin_at(self, values: Mapping[str, Tensor], *, overwrites: bool) -> None:
        """These are the values of the common point; and of the parameters too, if it ``overwrites``."""
        if not values:
            return
        points = {point for channel in self.channels for point in channel.update if point in POINTS}
        for point in sorted(points):
            self.keeper.fill({f"update.{point}.{name}": value for name, value in values.items()})
        self.keeper.fill({f"rounding.lost.{name}": torch.zeros_like(value) for name, value in values.items()})
        if overwrites:
            own = self.parameters()
            for name, value in values.items():
                local_part(own[name]).copy_(value)

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Let the parameters have these values."""
        flat = self.layout.flatten([values[name] for name in self.layout.names])
        pieces = torch.split(flat, [channel.layout.numel for channel in self.channels])
        for channel, piece in zip(self.channels, pieces, strict=True):
            channel.write_params(piece)

    def load(
        self, tensors: Mapping[str, Tensor], pending: Sequence[int | None], names: Sequence[str],
        held: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
        """Take over what :meth:`tensors` gave.

        Args:
            tensors: the state.
            pending: when results are due that wait to be applied, of each channel.
            names: of the parameters that were exchanged.
            held: all that the optimizer has.

        Raises:
            ConfigError: it is of another model; nothing is changed.
        """
        tracked = {name: tensor for name, tensor in tensors.items() if name.startswith(MARK)}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in tracked}
        found = self.keeper
        if {*names} != {*self.layout.names} and {*names} <= {*held}:
            named = {name: held[name] for name in names}
            found = group(self._method, named, self._rank, self._size, self.key)
        owed = {name: tensor for name, tensor in tensors.items() if _is_owed(name, names, held)}
        found.load({name: tensor for name, tensor in tensors.items() if name not in owed}, pending)
        found.waiting = {name: tensor.clone() for name, tensor in owed.items()}
        self._take(found, held)
        if self.tracker is not None:
            self.tracker.load(tracked)
        self.exchanged_at = [0] * len(self.channels)

    def _all_channels(self) -> list[Channel]:
        return [*self.channels, *([] if self.tracker is None else [self.tracker.channel])]

    def _take(self, keeper: Keeper, named: Mapping[str, Tensor]) -> None:
        assert keeper.whole is not None
        self.keeper = keeper
        """Of all that is remembered."""
        self.layout: Layout = keeper.whole
        """Names and shapes."""
        self.channels: list[Channel] = keeper.channels
        """Consecutive parts of the vector."""
        self.is_bound = find_bound(keeper) is not None
        """Whether something is kept by the index of parameters in the vector, so that none can join or leave."""
        first = self.channels[0]
        if self.tracker is None or self.tracker.channel.layout != self.layout:
            self.tracker = make_tracker(self._method, self.layout, first.rank, first.size, self.key, first.device)
        self.drive(self._clock, sums_stay=self._sums_stay)
        self.params = [named[name] for name in self.layout.names]
        """Whole, in the layout's order."""
        # Views are held of what is sharded or cut, and they must stay views.
        is_viewed = len(self.channels) > 1 or any(local_part(param) is not param for param in self.params)
        self._viewed = self.params if is_viewed else []
        self._addresses = [local_part(param).data_ptr() for param in self._viewed]


def _is_owed(name: str, exchanged: Sequence[str], held: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of a state is owed to a parameter that is not exchanged."""
    return not name.startswith("pending.") and owner(name) in held and owner(name) not in exchanged
