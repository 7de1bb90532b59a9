"""What goes from a device to the host: under way together, and waited for once."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import CPU, has_streams

_GROUP_NUM_BYTES = 1 << 26
"""From how many bytes on no more tensors are added to those that are on the host at a time."""


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
    module = torch.get_device_module(device)
    event = module.Event()
    event.record(module.current_stream(device))  # this thread's current device may be another
    return Staged(copies, event)


def in_groups(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors that go to the host together: a model need not have room there, nor each tensor a latency of its own.

    Example:
        >>> [len(group) for group in in_groups([torch.ones(2), torch.ones(3)])]
        [2]
    """
    groups: list[list[Tensor]] = [[]]
    num_bytes = 0
    for tensor in tensors:
        if num_bytes >= _GROUP_NUM_BYTES:
            groups.append([])
            num_bytes = 0
        groups[-1].append(tensor)
        num_bytes += tensor.nbytes
    return groups


def each_on_host(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each tensor's values on the host, contiguous, in turn; those that are there already are not copied for it.

    Example:
        >>> [found.tolist() for found in each_on_host([torch.ones(2, 2).T, torch.zeros(1)])]
        [[[1.0, 1.0], [1.0, 1.0]], [0.0]]
    """
    staged = (stage([tensor.detach().contiguous() for tensor in group]).wait() for group in in_groups(tensors))
    return itertools.chain.from_iterable(staged)


def _started(tensor: Tensor) -> Tensor:
    room = torch.empty(tensor.shape, dtype=tensor.dtype, device=CPU, pin_memory=True)
    return room.copy_(tensor, non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given, as a clock must that is to measure it.

    Example:
        >>> finish(torch.device("cpu"))
    """
    if has_streams(device):
        torch.get_device_module(device).synchronize(device)


def catch_up(device: torch.device) -> None:
    """As :func:`finish`, for what this thread's stream was given alone.

    Example:
        >>> catch_up(torch.device("cpu"))
    """
    if has_streams(device):
        torch.get_device_module(device).current_stream(device).synchronize()


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
