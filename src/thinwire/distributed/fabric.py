"""Sums and gathers by a backend's own collectives, where they are quicker than links: NCCL between GPUs of a host.

What they give has the bits of the links: shards change places, each process adds up its own in rank order, and the sums
are gathered. A backend's own all-reduce adds in an order of its own.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.arrays import CPU, to_device
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.meeting import accelerator
from thinwire.errors import ConfigError
from thinwire.staging import stage
from thinwire.steps import check_length, sum_in_order

_PIECE_NUMEL = 1 << 24
"""Entries that are summed at a time, so that what is under way takes no more memory than twice of them."""

_LENGTH_NUM_BYTES = 8

_SHORT_NUM_BYTES = 1 << 16
"""Up to this largest length messages are filled up to it and sent with their own, which saves a latency."""


class Fabric:
    """Collectives of processes that make them at the same points of their programs.

    Args:
        group: the processes; nobody else may use it, since collectives are told apart by their order alone.
        device: where its backend takes tensors.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self._group = group
        self._size = dist.get_world_size(group)
        self._device = device

    def takes(self, tensor: Tensor) -> bool:
        """Whether a sum of such tensors can be made here."""
        return tensor.device.type == self._device.type

    def reduce_in_order(self, tensor: Tensor, divisor: int) -> Tensor:
        """The sum of all processes' tensors, added in rank order entry by entry, over ``divisor``."""
        flat = tensor.contiguous().view(-1)
        total = torch.empty_like(flat)
        for piece, out in zip(flat.split(_PIECE_NUMEL), total.split(_PIECE_NUMEL), strict=True):
            self._reduce(piece, divisor, out)
        return total.view(tensor.shape)

    def _reduce(self, piece: Tensor, divisor: int, out: Tensor) -> None:
        count = -(-piece.numel() // self._size)
        padded = piece.new_zeros(count * self._size)
        padded[: piece.numel()] = piece
        shards = torch.empty_like(padded)
        dist.all_to_all_single(shards, padded, group=self._group)
        own = piece.new_empty(count)
        sum_in_order(list(shards.view(self._size, count)), divisor, own)
        dist.all_gather_into_tensor(padded, own, group=self._group)
        out.copy_(padded[: out.numel()])

    def gather(self, message: Tensor, max_num_bytes: int | None) -> list[Tensor]:
        """The messages (uint8 on the host) of all processes in rank order.

        Raises:
            ProtocolError: one is longer than allowed.
        """
        length = torch.tensor([message.numel()], dtype=torch.int64, device=CPU).view(torch.uint8)
        if max_num_bytes is not None and max_num_bytes <= _SHORT_NUM_BYTES:
            check_length(dist.get_rank(self._group), message.numel(), max_num_bytes)
            both = self._gather_equal(torch.cat([length, message]), _LENGTH_NUM_BYTES + max_num_bytes)
            lengths = self._lengths(both, max_num_bytes)
            found = [each[_LENGTH_NUM_BYTES:] for each in both]
        else:
            lengths = self._lengths(self._gather_equal(length, _LENGTH_NUM_BYTES), max_num_bytes)
            found = self._gather_equal(message, max(lengths))
        return [each[:count] for each, count in zip(found, lengths, strict=True)]

    def _lengths(self, found: list[Tensor], max_num_bytes: int | None) -> list[int]:
        lengths = [int(each[:_LENGTH_NUM_BYTES].clone().view(torch.int64)) for each in found]
        for rank, count in enumerate(lengths):
            check_length(rank, count, max_num_bytes)
        return lengths

    def _gather_equal(self, message: Tensor, num_bytes: int) -> list[Tensor]:
        own = torch.zeros(num_bytes, dtype=torch.uint8, device=CPU)
        own[: message.numel()] = message
        room = torch.empty(self._size * num_bytes, dtype=torch.uint8, device=self._device)
        dist.all_gather_into_tensor(room, to_device(own, self._device), group=self._group)
        (found,) = stage([room]).wait()
        return list(found.view(self._size, num_bytes))


def make_fabric(group: dist.ProcessGroup, options: LinkOptions, device: torch.device) -> Fabric | None:
    """What ``LinkOptions(transport="nccl")`` asks for; every process of the group must call it at the same point.

    Raises:
        ConfigError: this torch, or this machine, has no NCCL.
    """
    if options.transport == "links":
        return None
    if not dist.is_nccl_available() or not torch.cuda.is_available():
        raise ConfigError(
            'LinkOptions(transport="nccl") was given, and there is no '
            + ("GPU that torch can use" if dist.is_nccl_available() else "NCCL in this torch")
            + '; leave it out: transport="links" works with any device'
        )
    # A group of its own: the script's collectives, or DDP's, may come from another thread at the same time.
    ranks, timeout = dist.get_process_group_ranks(group), options.timeout
    made = dist.new_group(ranks, timeout=timeout, backend="nccl", use_local_synchronization=True)
    return Fabric(made, accelerator(made, device))
