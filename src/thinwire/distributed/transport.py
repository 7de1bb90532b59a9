"""The seven requests of a program, performed over links between processes."""

import copy
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from thinwire.arrays import CPU, to_device
from thinwire.distributed.alike import spread
from thinwire.distributed.collectives import gather, reduce_in_order
from thinwire.distributed.fabric import make_fabric
from thinwire.distributed.interrupts import Interrupts
from thinwire.distributed.introduction import introduce
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.mail import Tag
from thinwire.distributed.meeting import GroupMeeting, Meeting, meeting_of
from thinwire.errors import ConfigError
from thinwire.network import FRAME_NUM_BYTES, Traffic, all_gather_traffic, all_reduce_traffic
from thinwire.staging import in_groups, stage
from thinwire.steps import (
    AllGather,
    AllReduce,
    Compute,
    Op,
    Receive,
    ReceiveAny,
    Send,
    Steps,
    Tell,
    check_peer,
    on_the_host,
)
from thinwire.worker.step_times import Phase, StepClock

T = TypeVar("T")

Group: TypeAlias = dist.ProcessGroup | DeviceMesh | None
"""Processes that exchange with each other: a process group, a mesh of one dimension, or all."""


DROP_S = 0.1
"""How long the last word on links that are dropped goes on travelling."""


class Transport:
    """Runs the programs of one process against its peers, over links of its own.

    Messages go directly between pairs of processes, so nothing is padded and a gather takes one latency. An all-reduce
    sums shards in rank order: the bits are those of the simulator. The process group introduces the processes to each
    other and carries nothing else.

    Args:
        group: the processes that take part; all of them by default. Each of them, and no other, must make the
            transport at the same point of its program.
        options: how they reach each other, and how long they wait.
        terms: what must be the same on all of them, by name; see
            :func:`thinwire.distributed.introduction.introduce`.
        meeting: of the processes, where they have no group.
        device: where the model lies: a backend that wants tensors on an accelerator gets them there.

    Raises:
        ConfigError: torch.distributed is not initialised, or the processes do not agree.
        WorkerError: the processes cannot reach each other.
    """

    def __init__(
        self, group: dist.ProcessGroup | None = None, options: LinkOptions | None = None,
        terms: Mapping[str, str] | None = None, *, meeting: Meeting | None = None, device: torch.device = CPU,
    ) -> None:  # fmt: skip
        met = meeting_of(group, device) if meeting is None else meeting
        options = options or LinkOptions()
        self._links = introduce(met, options, terms or {})
        # Who ends without closing is taken for one that failed, but what it sent still arrives.
        weakref.finalize(self, self._links.close, says_so=False)
        self.size = met.size
        self.rank = self._links.rank
        self.fabric = make_fabric(met.group, options, device) if isinstance(met, GroupMeeting) else None
        """What sums and gathers in place of the links, if it was asked for."""
        self.traffic = Traffic()
        self.clock: StepClock | None = None
        """What the time of exchanges is measured by, if it is."""

    def run(self, steps: Steps[T]) -> T:
        """Run a program to its end.

        Raises:
            WorkerError: a peer is gone or did not answer in time.
        """
        reply: Any = None
        outside = self._enter("apply")
        try:
            while True:
                try:
                    op = steps.send(reply)
                except StopIteration as stop:
                    self.flush()
                    result: T = stop.value
                    return result
                reply = self.answer(op, self.perform(self.placed(op)))
        finally:
            self._enter(outside)
            steps.close()

    @property
    def sums_stay(self) -> bool:
        """Whether sums are made where the tensors lie."""
        return self.fabric is not None

    def placed(self, op: Op) -> Op:
        """A request where it can be performed: :func:`on_the_host`, but for sums that a fabric takes where they are."""
        if self.fabric is not None and isinstance(op, AllReduce) and self.fabric.takes(op.tensor):
            return op
        return on_the_host(op)[0]

    def perform(self, op: Op) -> Any:
        """Do what a program asks, once it is :meth:`placed`; :meth:`answer` makes of it what the program gets.

        Any thread may call it.

        Raises:
            WorkerError: a peer is gone or did not answer in time.
        """
        self._enter("waiting")
        with self._links:
            return self._perform(op)

    def answer(self, op: Op, found: Any) -> Any:
        """What :meth:`perform` found, in the form that the program gets it."""
        self._enter("decode")
        if isinstance(op, AllGather):
            found = op.combine(found)
        elif isinstance(op, AllReduce):
            found = to_device(found, op.tensor.device)
        elif isinstance(op, Receive):
            found = op.read(found)
        elif isinstance(op, ReceiveAny):
            source, message = found
            found = source, op.read(message)
        self._enter("apply")
        return found

    def check(self) -> None:
        """Raise what any request would raise by now: the links are closed, failed, or another process's."""
        self._links.check()

    def flush(self) -> None:
        """Wait until everything is under way: what a program that is over has to do."""
        with self._links:
            self._links.flush()

    def share(self, values: Sequence[float]) -> list[list[float]]:
        """Every worker's numbers, in rank order, outside of all counting: for control and evaluation."""
        mine = torch.tensor(values, dtype=torch.float64, device=CPU)
        return [message.clone().view(torch.float64).tolist() for message in self.share_bytes(mine.view(torch.uint8))]

    def share_bytes(self, message: Tensor) -> list[Tensor]:
        """Every worker's bytes (uint8, any number of them), as :meth:`share`."""
        outside = self._enter("waiting")
        try:
            with self._links:
                return gather(self._links, message, self.size, None, self._on_the_wire)
        finally:
            self._enter(outside)

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors, of any dtype and memory format, with those of worker 0, outside of all counting."""
        with self._links:
            if all(tensor.is_cpu for tensor in tensors):
                spread(self._links, tensors, self.size)
                return
            for group in in_groups(tensors):
                copies = stage([tensor.detach().contiguous() for tensor in group]).wait()
                spread(self._links, copies, self.size)
                for tensor, copy in zip(group, copies, strict=True):
                    tensor.detach().copy_(copy)

    def give(self, rank: int, message: Tensor) -> None:
        """Send bytes (uint8 ``[n]`` on the CPU, which stay as they are) to one worker, outside of all counting."""
        with self._links:
            self._links.send(rank, Tag.MODEL, message)

    def take(self, ranks: Collection[int], max_num_bytes: int) -> tuple[int, Tensor]:
        """The next of the bytes that one of these workers gives, and whose they are."""
        with self._links:
            rank, _, message = self._links.receive(ranks, [Tag.MODEL], max_num_bytes)
            return rank, message

    def first(self, count: int) -> "Transport | None":
        """A transport of the first ``count`` processes over the same links, for them; ``None`` for the others.

        Its programs must not run at the same time as those of this one, which ends it too.
        """
        if self.rank >= count:
            return None
        small = copy.copy(self)
        small.size, small.traffic, small.fabric = count, Traffic(), None
        return small

    def watch(self, interrupts: Interrupts | None) -> None:
        """Let whoever waits in another thread than the main one hear of Ctrl-C."""
        self._links.interrupts = interrupts

    def abort(self, reason: str) -> None:
        """Tell the others that this worker cannot go on; they end with the reason."""
        self._links.abort(reason)

    def abort_for(self, error: BaseException, who: str = "") -> None:
        """:meth:`abort`, because of an error that ``who``, else this worker, has raised."""
        self.abort(f"{who or f'worker {self.rank}'} raised {type(error).__name__}: {error}")

    def close(self) -> None:
        """End the links; what was sent still arrives."""
        self._links.close()

    def drop(self) -> None:
        """End the links without regard to what is still under way: other links take their place."""
        self._links.close(linger_s=DROP_S)

    def _enter(self, phase: Phase) -> Phase:
        """Where the time goes from now on; where it went before."""
        return phase if self.clock is None else self.clock.switch(phase)

    def _on_the_wire(self) -> None:
        self._enter("wire")

    def _perform(self, op: Op) -> Any:
        match op:
            case AllReduce(tensor, divisor, in_place):
                self.traffic += all_reduce_traffic(tensor.numel(), self.size, tensor.element_size())[self.rank]
                self._enter("wire")
                if self.fabric is not None and self.fabric.takes(tensor):
                    return self.fabric.reduce_in_order(tensor, divisor)
                return reduce_in_order(self._links, tensor, self.size, divisor, in_place=in_place)
            case AllGather(message, _, max_num_bytes):
                if self.fabric is not None:
                    self._enter("wire")
                    messages = self.fabric.gather(message, max_num_bytes)
                else:
                    messages = gather(self._links, message, self.size, max_num_bytes, self._on_the_wire)
                self.traffic += all_gather_traffic([other.numel() for other in messages])[self.rank]
                return messages
            case Send(destination, message):
                self.traffic += Traffic(bytes_sent=message.numel() + FRAME_NUM_BYTES)
                check_peer(op, self.rank, self.size)
                self._links.send(destination, Tag.LETTER, message)
                return None
            case Receive(source, _, max_num_bytes):
                check_peer(op, self.rank, self.size)
                _, _, message = self._links.receive([source], [Tag.LETTER], max_num_bytes, begun=self._on_the_wire)
                self.traffic += Traffic(bytes_received=message.numel() + FRAME_NUM_BYTES)
                return message
            case ReceiveAny(_, max_num_bytes, sources):
                others = [rank for rank in range(self.size) if rank != self.rank] if sources is None else sources
                needs_all = sources is not None
                source, _, message = self._links.receive(others, [Tag.LETTER], max_num_bytes, needs_all=needs_all)
                self.traffic += Traffic(bytes_received=message.numel() + FRAME_NUM_BYTES)
                return source, message
            case Tell(message):
                return gather(self._links, message, self.size, None, self._on_the_wire)
            case Compute():
                return None


def process_group_of(group: Group) -> dist.ProcessGroup | None:
    """The process group of a mesh of one dimension; a process group as it is.

    Raises:
        ConfigError: a mesh of several dimensions.
    """
    if not isinstance(group, DeviceMesh):
        return group
    if group.ndim != 1:
        raise ConfigError(
            f"a mesh of {group.ndim} dimensions {group.mesh_dim_names} was given as group; give the one dimension over "
            'which to exchange, such as mesh["replicate"]'
        )
    return group.get_group()
