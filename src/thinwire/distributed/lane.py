"""The stream on which the exchanges of a hook are computed, beside the one that backward computes on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import has_streams


class Lane:
    """Work of another thread on a device, in order with the script's; on the CPU there is nothing to order.

    Backward hands over a bucket, and the lane does nothing of it before it takes it up. The script joins the lane
    before it uses what was made there. So what both have only one of them works on at a time, and no tensor needs to be
    marked as used by the other's stream: its memory is used again only by what comes after.

    Args:
        device: where the model lies.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module: Any = torch.get_device_module(device) if has_streams(device) else None
        self._stream: Any = self._module.Stream(device) if self._module else None

    def entered(self) -> AbstractContextManager[None]:
        """What this thread does on the device meanwhile is done on the lane."""
        found: AbstractContextManager[None] = nullcontext() if not self._module else self._module.stream(self._stream)
        return found

    def hand_over(self) -> Any:
        """A place in the current stream, for :meth:`take_up`."""
        if self._module is None:
            return None
        event = self._module.Event()
        event.record(self._module.current_stream(self._device))
        return event

    def take_up(self, handed: Any) -> None:
        """What the lane is given from now on comes after what was under way when it was handed over."""
        if handed is not None:
            self._stream.wait_event(handed)

    def join(self) -> None:
        """What the current stream is given from now on comes after all that the lane was given."""
        if self._module is not None:
            self._module.current_stream(self._device).wait_stream(self._stream)

    def promise(self) -> "torch.futures.Future[Tensor]":
        """A future of a tensor; whoever gets its value waits on the device for what the lane had been given."""
        return torch.futures.Future(devices=[self._device] if self._module else None)
