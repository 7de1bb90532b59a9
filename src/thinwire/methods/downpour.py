"""Baselines of elastic averaging: a centre that takes up all that workers do, with momentum, or averaged over time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.layout import State
from thinwire.methods.server_updates import ServerUpdate
from thinwire.payloads import Payload


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Downpour:
    """The server takes ``x -= q`` for each message; its sender goes on from there (DOWNPOUR, Dean et al. 2012).

    ``q`` is what the worker's steps have moved it by since it got the model last. It counts in full, where
    :class:`Follow` counts ``1 / P`` of it: with P workers the centre moves P times as far in the same time, so the
    learning rate must be the smaller the more workers there are (Zhang et al. 2015, supplement).

    With momentum the server steps as torch's Nesterov SGD does: ``v = mu v + q``; ``x -= q + mu v``. Its model is the
    point that looks ahead, where the workers take their gradients (MDOWNPOUR).

    Args:
        momentum: mu, at least 0, below 1.

    Raises:
        ConfigError: a momentum outside of [0, 1).
    """

    momentum: float = 0.0

    answers_before: ClassVar[bool] = False
    """The worker goes on from a model that has its own message in it."""
    needs_exact: ClassVar[bool] = False
    """Any compressor will do."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"a server's momentum of {self.momentum} was given; it must be at least 0, below 1")

    def init(self, params: Tensor) -> State:
        """The common initial parameters."""
        return {"reference": copy_of(params)}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """``reference - params``."""
        return read(state["reference"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """The server's model."""
        return state["reference"].copy_(aggregate.mean)

    def begin(self, model: Tensor) -> State:
        """A velocity, if there is momentum."""
        return {"velocity": torch.zeros_like(model)} if self.momentum else {}

    def merge(self, model: Tensor, message: Payload, num_workers: int, state: State) -> None:
        """``v = mu v + q``; ``model -= q + mu v``."""
        message.add_to(model, -1.0)
        if self.momentum:
            velocity = state["velocity"].mul_(self.momentum)
            message.add_to(velocity)
            model.sub_(velocity, alpha=self.momentum)

    def shared(self, model: Tensor, state: State) -> Tensor:
        """The model."""
        return model


@register
@dataclass(frozen=True, slots=True)
class AveragedCentre:
    """Any update of a server, and the average ``z`` of its model over time, which is what training ends with.

    ``z_{t+1} = (1 - a) z_t + a x_t``, ``z_0 = x_0``, where ``x_t`` is the model after t messages. ``a = 1 / (t + 1)``
    unless a rate is given: then z is the mean of the models so far (ADOWNPOUR and MVADOWNPOUR, Zhang et al. 2015).
    Workers get the model itself, as without.

    Args:
        update: the one whose model is averaged.
        rate: constant ``a``; 0.001 in the paper.

    Raises:
        ConfigError: a rate outside of (0, 1], or an average of an average.
    """

    update: ServerUpdate
    rate: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.rate is not None and not 0.0 < self.rate <= 1.0:
            raise ConfigError(f"a rate of {self.rate} was given; an average moves at a rate above 0, up to 1")
        if isinstance(self.update, AveragedCentre):
            raise ConfigError("an average of an average was asked for; give the update whose model is averaged")

    @property
    def answers_before(self) -> bool:
        """As the update."""
        return self.update.answers_before

    @property
    def needs_exact(self) -> bool:
        """As the update."""
        return self.update.needs_exact

    def init(self, params: Tensor) -> State:
        """The update's."""
        return self.update.init(params)

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """The update's."""
        return self.update.signal(read, state)

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """The update's."""
        return self.update.apply(aggregate, local, state)

    def begin(self, model: Tensor) -> State:
        """The average, how many models are in it, and what the update has."""
        count = torch.zeros(1, dtype=torch.int64, device=model.device)
        return {**self.update.begin(model), "average": copy_of(model), "count": count}

    def merge(self, model: Tensor, message: Payload, num_workers: int, state: State) -> None:
        """The model as it was joins the average; then the update merges."""
        count = state["count"].add_(1)
        state["average"].lerp_(model, 1.0 / int(count) if self.rate is None else self.rate)
        self.update.merge(model, message, num_workers, state)

    def shared(self, model: Tensor, state: State) -> Tensor:
        """The average."""
        return state["average"]
