"""What goes from a device to the host: under way together, and waited for once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import has_streams


@dataclass(frozen=True, slots=True, eq=False)
class Staged:
    """Copies of tensors on their way to the host.

    Args:
        copies: where they arrive, in page-locked memory, which torch keeps and uses again; not to be read before
            :meth:`wait`.
        arrived: the device's event; None if they have arrived.
    """

    copies: Sequence[Tensor]
    arrived: Any

    def wait(self) -> Sequence[Tensor]:
        """The copies, once they are there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.copies


def stage(tensors: Sequence[Tensor]) -> Staged:
    """Have tensors of one device copied to the host, after what is under way on its current stream.

    Example:
        >>> stage([torch.ones(2)]).wait()
        [tensor([1., 1.])]
    """
    device = next((tensor.device for tensor in tensors if not tensor.is_cpu), None)
    if device is None:
        return Staged(list(tensors), None)
    if not has_streams(device):
        return Staged([tensor.cpu() for tensor in tensors], None)
    copies = [tensor if tensor.is_cpu else _started(tensor) for tensor in tensors]
    event = torch.get_device_module(device).Event()
    event.record()
    return Staged(copies, event)


def _started(tensor: Tensor) -> Tensor:
    room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return room.copy_(tensor, non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given, as a clock must that is to measure it.

    Example:
        >>> finish(torch.device("cpu"))
    """
    if has_streams(device):
        torch.get_device_module(device).synchronize(device)


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Whether all entries of a device's vector are finite, which it may still be finding out.

    As a truth value it waits for the device. Whoever has waited since for something that came later on the same stream
    waits no more.

    Args:
        first: where the first entry is that is not, or ``numel``: int64 ``[]``.
        numel: entries of the vector.

    Example:
        >>> verdict = Verdict.on(torch.tensor(3), 4)
        >>> bool(verdict), verdict.place
        (False, 3)
    """

    first: Staged
    numel: int

    @classmethod
    def on(cls, first: Tensor, numel: int) -> "Verdict":
        """That of a number on the device, whose copy is sent on its way."""
        return cls(stage([first]), numel)

    @property
    def place(self) -> int:
        """Where the first entry is that is not finite."""
        return int(self.first.wait()[0])

    def __bool__(self) -> bool:
        return self.place == self.numel
