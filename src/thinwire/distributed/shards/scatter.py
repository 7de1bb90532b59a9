"""A reduce-scatter whose pieces are compressed, with what they leave out remembered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.arrays import empty
from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.shards.row import Row, Rows
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.kernels.flat.finite import is_finite
from thinwire.layout import State
from thinwire.memory.sender import first_nonfinite
from thinwire.payloads import Dense, Payload
from thinwire.random import Key
from thinwire.steps import Steps, as_it_is, receive, send
from thinwire.wire import encode

Memories = dict[int, State]
"""What is remembered of the pieces for each process, by its rank."""


@dataclass(slots=True, eq=False)
class CompressedScatter:
    """FSDP2's reduce-scatter of one layer: each process sends each other one the compressed piece that it owns.

    One's own piece is not sent, and counts as it is. The sum is in rank order. What is remembered is proposed by each
    call, and counts once :meth:`accept` is called.

    Args:
        layer: its name, which addresses its randomness.
        rows: how it is laid out.
        buckets: the method, and what is sent in full.
        transport: to the processes that it is sharded over.
        key: the seed's.
    """

    layer: str
    rows: Rows
    buckets: BucketChannels
    transport: Transport
    key: Key
    message_bytes: int = 0
    """Bytes handed to the exchange so far, encoded."""
    num_calls: int = 0
    memories: Memories = field(default_factory=dict)
    proposed: Memories = field(default_factory=dict)

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for FSDP2's own tensors."""
        return torch.empty(*size, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        """Write the sum or the mean of all processes' pieces for this one."""
        size, rank = self.transport.size, self.transport.rank
        divisor = _divisor(op, size)
        pieces = input_tensor.view(size, -1)
        row = self.rows.trained(self.buckets, input_tensor.device)
        key = self.key.fold("scatter", self.layer, self.num_calls, "rank", rank)
        self.num_calls += 1
        own = row.ordered(pieces[rank])
        messages = {to: encode(self._message(row, pieces[to], to, key)) for to in range(size) if to != rank}
        self.message_bytes += sum(each.numel() for each in messages.values())
        mean = self.transport.run(_exchanged(row, own, messages, rank, size, divisor))
        row.spread(mean, output_tensor)

    def accept(self) -> None:
        """What was sent since the last time has been applied."""
        self.memories |= self.proposed
        self.proposed = {}

    def forget(self) -> None:
        """It was thrown away."""
        self.proposed = {}

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        """What is remembered, by the parameter's name."""
        row = self.rows.trained(self.buckets, device)
        return {
            f"memory.{kind}.{to}.{name}": part
            for to, state in self.memories.items()
            for kind, tensor in state.items()
            for name, part in row.named(tensor).items()
        }

    def read(self, tensors: dict[str, Tensor], device: torch.device) -> Memories:
        """What :meth:`tensors` gave, which is taken out of ``tensors``, for :meth:`take`; nothing else changes.

        Raises:
            ConfigError: it is of another model or method.
        """
        row = self.rows.trained(self.buckets, device)
        kinds = row.method.memory.init(empty(row.numel, row.device))
        memories: Memories = {}
        for to in range(self.transport.size):
            found = {kind: row.taken(tensors, f"memory.{kind}.{to}.") for kind in kinds}
            state = {kind: tensor for kind, tensor in found.items() if tensor is not None}
            if state and len(state) < len(kinds):
                raise ConfigError(f"the saved state has {', '.join(state)} of {', '.join(kinds)} of {self.layer!r}")
            if state:
                memories[to] = state
        return memories

    def take(self, memories: Memories, num_calls: int, message_bytes: int) -> None:
        """Remember what :meth:`read` found, after so many calls and bytes."""
        self.memories, self.proposed = memories, {}
        self.num_calls, self.message_bytes = num_calls, message_bytes

    def _message(self, row: Row, piece: Tensor, to: int, key: Key) -> Payload:
        x = row.ordered(piece)
        if not is_finite(x):
            return first_nonfinite(x)
        memory = row.method.memory
        state = self.proposed.get(to, self.memories.get(to))
        if state is None:
            state = memory.init(empty(row.numel, row.device))
        payload, self.proposed[to] = memory.compress(x, row.method.compressor, key.fold("to", to), row.segments, state)
        return payload


def _exchanged(row: Row, own: Tensor, messages: dict[int, Tensor], rank: int, size: int, divisor: int) -> Steps[Tensor]:
    for to, message in messages.items():
        yield from send(to, message)
    payloads: list[Payload] = []
    for source in range(size):
        if source == rank:
            payloads.append(Dense(own))
        else:
            message = yield from receive(source, as_it_is, row.max_num_bytes)
            payloads.append(row.reader.part(message, f"the piece of process {source}"))
    mean, _ = row.reader.mean_of(payloads, divisor)
    return mean


def _divisor(op: Any, size: int) -> int:
    if op == dist.ReduceOp.AVG:
        return size
    if op == dist.ReduceOp.SUM:
        return 1
    raise ConfigError(
        f"FSDP2 asked for a reduction by {op}, as after set_gradient_divide_factor(...); leave that out, or call "
        "set_force_sum_reduction_for_comms(True) on each layer as well"
    )
