"""Something of the first message that a worker sends after one has asked for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from thinwire.methods import Method
from thinwire.worker.channel import Channel, Outcome

T = TypeVar("T")


@dataclass(slots=True)
class FirstMessage(Generic[T]):
    """An :class:`~thinwire.worker.layer_report.ExchangeWatcher` that looks once, at what the method's compressor made.

    Args:
        method: of the worker; messages of its warm-up do not count.
        look: what is to be known, from the outcome and the vector that was to be sent; None: this message tells
            nothing, and the next one is looked at.
    """

    method: Method
    look: Callable[[Outcome, Tensor], T | None]
    _is_open: bool = False
    _found: T | None = None

    def open(self) -> None:
        """The first message from now on is looked at; what was found before is forgotten."""
        self._is_open, self._found = True, None

    @property
    def found(self) -> T | None:
        """What was found since it was opened."""
        return self._found

    def taken(self) -> T | None:
        """:attr:`found`, which is forgotten."""
        found, self._found = self._found, None
        return found

    def is_due(self, number: int, rank: int) -> bool:
        """See :class:`~thinwire.worker.layer_report.ExchangeWatcher`."""
        return self._is_open and self.method.compressor_at(number) is self.method.compressor

    @torch.no_grad()
    def take(self, channel: Channel, outcome: Outcome, step: int) -> None:
        """See :class:`~thinwire.worker.layer_report.ExchangeWatcher`."""
        if self._is_open and outcome.intended is not None:
            self._found = self.look(outcome, outcome.intended)
            self._is_open = self._found is None
