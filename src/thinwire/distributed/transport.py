"""The six requests performed by torch.distributed."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from thinwire.distributed.communication_thread import CommunicationThread
from thinwire.errors import ConfigError, ThinwireError, WorkerError
from thinwire.network import FRAME_NUM_BYTES, Traffic, all_gather_traffic, all_reduce_traffic, shard_bounds
from thinwire.steps import (
    AllGather,
    AllReduce,
    Compute,
    Op,
    Receive,
    ReceiveAny,
    Send,
    Steps,
    check_length,
    check_peer,
)
from thinwire.worker.step_times import Phase, StepClock

T = TypeVar("T")
_LETTER = 1
"""The tag of sent messages, so that waiting for anyone's never takes a part of a collective for one."""

_MOST_AT_ONCE = 1 << 26
"""Bytes of room for all messages of a gather up to which it is worth having them arrive unannounced."""


class Transport:
    """Runs the programs of one process against its peers, over a gloo group of its own.

    Messages go directly between pairs of processes, each with its length, so nothing is padded and one round
    suffices. An all-reduce sums shards in rank order: the bits are those of the simulator.

    Args:
        group: the processes that take part; all of them by default. Each of them, and no other, must make the
            transport at the same point of its program.
        timeout: how long a process waits for a silent but connected peer.

    Raises:
        ConfigError: torch.distributed is not initialised.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, timeout: timedelta = timedelta(minutes=30)) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise ConfigError(
                "torch.distributed is not initialised; start the script with torchrun and call "
                'torch.distributed.init_process_group("gloo") first'
            )
        ranks = dist.get_process_group_ranks(group if group is not None else dist.group.WORLD)
        # A group of our own: our messages never meet those of DDP or of the script. torch names it
        # by its members (and how many groups they are in), so that disjoint groups can each have a transport.
        self._group = dist.new_group(ranks, timeout=timeout, backend="gloo", use_local_synchronization=True)
        self.size = len(ranks)
        self.rank = dist.get_rank(self._group)
        self.traffic = Traffic()
        self.clock: StepClock | None = None
        """What the time of exchanges is measured by, if it is."""
        self._thread = CommunicationThread()
        self._unsent: dict[int, list[tuple[dist.Work, Tensor]]] = {}
        self._common: dict[int, bool] = {}

    def run(self, steps: Steps[T]) -> T:
        """Run a program to its end: its arithmetic in this thread, its requests in the communication thread.

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
                reply = self.answer(op, self.ask(op))
        finally:
            self._enter(outside)
            steps.close()

    def ask(self, op: Op) -> "Future[Any]":
        """Begin to perform one request of a program, after those that were asked before; :meth:`answer` reads it."""
        self._enter("waiting")
        return self._thread.submit(functools.partial(self._communicate, op))

    def answer(self, op: Op, done: "Future[Any]") -> Any:
        """Wait for what a request was answered with, in the form that the program gets it.

        Raises:
            WorkerError: a peer is gone or did not answer in time.
        """
        reply = self._result(done)
        self._enter("decode")
        if isinstance(op, AllGather):
            reply = op.combine(reply)
        elif isinstance(op, Receive):
            reply = op.read(reply)
        elif isinstance(op, ReceiveAny):
            source, message = reply
            reply = source, op.read(message)
        self._enter("apply")
        return reply

    def flush(self) -> None:
        """Wait until everything has been sent: what a program that is over has to do."""
        if self._unsent:
            self._enter("wire")
            self._submit(self._flush)

    def share(self, values: Sequence[float]) -> list[list[float]]:
        """Every worker's numbers, in rank order, outside of all counting: for control and evaluation."""
        mine = torch.tensor(values, dtype=torch.float64)
        return [message.view(torch.float64).tolist() for message in self.share_bytes(mine.view(torch.uint8))]

    def share_bytes(self, message: Tensor) -> list[Tensor]:
        """Every worker's bytes (uint8, any number of them), as :meth:`share`."""
        outside = self._enter("waiting")
        try:
            return self._submit(functools.partial(self._gather, message))
        finally:
            self._enter(outside)

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors, of any dtype and memory format, with those of worker 0, outside of all counting."""
        source = dist.get_global_rank(self._group, 0)
        for tensor in filter(Tensor.numel, tensors):
            # The same memory if it is contiguous; bytes, since not every backend knows every dtype.
            whole = tensor.detach().contiguous()
            self._submit(functools.partial(dist.broadcast, whole.view(-1).view(torch.uint8), source, group=self._group))
            if whole.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(whole)

    def first(self, count: int) -> "Transport | None":
        """A transport of the first ``count`` processes, for them; every process must ask for it."""
        ranks = [dist.get_global_rank(self._group, rank) for rank in range(count)]
        return Transport(dist.new_group(ranks, backend="gloo")) if self.rank < count else None

    def close(self) -> None:
        """End the communication thread."""
        self._thread.close()

    def _submit(self, job: Callable[[], T]) -> T:
        """Do ``job`` in the communication thread, after what was submitted before it, and wait for it."""
        return self._result(self._thread.submit(job))

    def _result(self, done: "Future[T]") -> T:
        try:
            return done.result()
        except ThinwireError:
            raise
        except RuntimeError as error:
            raise WorkerError(
                f"worker {self.rank} could not exchange data with the others; probably one of them is gone: {error}"
            ) from error

    def _enter(self, phase: Phase) -> Phase:
        """Where the time goes from now on; where it went before."""
        return phase if self.clock is None else self.clock.switch(phase)

    def _communicate(self, op: Op) -> Any:
        match op:
            case AllReduce(tensor, divisor):
                self.traffic += all_reduce_traffic(tensor.numel(), self.size, tensor.element_size())[self.rank]
                return self._sum(tensor, divisor)
            case AllGather(message, _, max_num_bytes):
                messages = self._gather(message, max_num_bytes)
                self.traffic += all_gather_traffic([other.numel() for other in messages])[self.rank]
                return messages
            case Send(destination, message):
                self.traffic += Traffic(bytes_sent=message.numel() + FRAME_NUM_BYTES)
                check_peer(op, self.rank, self.size)
                self._unsent.setdefault(destination, []).extend(
                    self._send(destination, [_length(message), message], _LETTER)
                )
                return None
            case Receive(source, _, max_num_bytes):
                check_peer(op, self.rank, self.size)
                message = self._receive(source, max_num_bytes)
                self.traffic += Traffic(bytes_received=message.numel() + FRAME_NUM_BYTES)
                return message
            case ReceiveAny(_, max_num_bytes):
                source, message = self._receive_any(max_num_bytes)
                self.traffic += Traffic(bytes_received=message.numel() + FRAME_NUM_BYTES)
                return source, message
            case Compute():
                return None

    def _gather(self, message: Tensor, max_num_bytes: int | None = None) -> list[Tensor]:
        """Everyone's messages in rank order: their lengths, and their bodies at once if all know how long they may be.

        Otherwise a body waits for its length to arrive, which takes a link's latency twice more: gloo ends a process
        that is sent more than it has room for.
        """
        if max_num_bytes is not None and self._are_few(max_num_bytes) and self._is_common(max_num_bytes):
            return self._gather_at_once(message, max_num_bytes)
        # To receive is asked for before anything is sent: the other side's permission to send must not wait behind what
        # this side writes, or a link carries one direction after the other.
        lengths = {peer: torch.zeros(1, dtype=torch.int64) for peer in self._peers()}
        arriving = [self._arrive(peer, length) for peer, length in lengths.items()]
        pending = [each for peer in self._peers() for each in self._send(peer, [_length(message)])]
        _wait(arriving)
        for peer, length in lengths.items():
            check_length(peer, int(length), max_num_bytes)
        self._enter("wire")
        messages = {peer: torch.empty(int(length), dtype=torch.uint8) for peer, length in lengths.items()}
        arriving = [self._arrive(peer, other) for peer, other in messages.items() if other.numel()]
        pending += [each for peer in self._peers() for each in self._send(peer, [message])]
        _wait([*arriving, *(work for work, _ in pending)])
        messages[self.rank] = message
        return [messages[rank] for rank in range(self.size)]

    def _gather_at_once(self, message: Tensor, max_num_bytes: int) -> list[Tensor]:
        lengths = {peer: torch.zeros(1, dtype=torch.int64) for peer in self._peers()}
        messages = {peer: torch.empty(max(max_num_bytes, 1), dtype=torch.uint8) for peer in self._peers()}
        begun = [self._arrive(peer, length) for peer, length in lengths.items()]
        ended = [self._arrive(peer, other) for peer, other in messages.items()]
        # Something must be sent where it is awaited. Of what is too long the others are told the length, and refuse it.
        is_sendable = 0 < message.numel() <= max_num_bytes
        body = message if is_sendable else torch.zeros(1, dtype=torch.uint8)
        pending = [each for peer in self._peers() for each in self._send(peer, [_length(message), body])]
        _wait(begun)
        lengths[self.rank] = _length(message)
        for peer in range(self.size):
            check_length(peer, int(lengths[peer]), max_num_bytes)
        self._enter("wire")
        _wait([*ended, *(work for work, _ in pending)])
        messages[self.rank] = message
        return [messages[rank][: int(lengths[rank])] for rank in range(self.size)]

    def _are_few(self, max_num_bytes: int) -> bool:
        return max_num_bytes * (self.size - 1) <= _MOST_AT_ONCE

    def _is_common(self, max_num_bytes: int) -> bool:
        """Whether every process expects messages of at most that many bytes; asked once for every number."""
        if max_num_bytes not in self._common:
            mine = torch.tensor([max_num_bytes])
            others = [other.view(torch.int64).tolist() for other in self._gather(mine.view(torch.uint8))]
            self._common[max_num_bytes] = all(other == [max_num_bytes] for other in others)
        return self._common[max_num_bytes]

    def _sum(self, tensor: Tensor, divisor: int) -> Tensor:
        """Reduce-scatter by shards, summed in rank order, then all-gather of the shards."""
        self._enter("wire")
        flat = tensor.contiguous().view(-1)
        bounds = shard_bounds(flat.numel(), self.size)
        shards = [flat[bounds[rank] : bounds[rank + 1]] for rank in range(self.size)]
        mine = shards[self.rank]
        others = {peer: torch.empty_like(mine) for peer in self._peers()}
        arriving = [self._arrive(peer, part) for peer, part in others.items() if part.numel()]
        pending = [work for peer in self._peers() for work, _ in self._send(peer, [shards[peer]])]
        _wait(arriving)
        others[self.rank] = mine
        total = torch.empty_like(flat)
        own = total[bounds[self.rank] : bounds[self.rank + 1]]
        own.copy_(others[0])
        for rank in range(1, self.size):
            own += others[rank]
        if divisor != 1:
            own /= divisor
        parts = {peer: total[bounds[peer] : bounds[peer + 1]] for peer in self._peers()}
        arriving = [self._arrive(peer, part) for peer, part in parts.items() if part.numel()]
        _wait(pending)
        pending = [work for peer in self._peers() for work, _ in self._send(peer, [own])]
        _wait([*arriving, *pending])
        return total.view(tensor.shape)

    def _receive(self, source: int, max_num_bytes: int | None) -> Tensor:
        length = torch.zeros(1, dtype=torch.int64)
        _wait([self._arrive(source, length, _LETTER)])
        return self._body(source, int(length), max_num_bytes)

    def _receive_any(self, max_num_bytes: int | None) -> tuple[int, Tensor]:
        length = torch.zeros(1, dtype=torch.int64)
        source = dist.get_group_rank(self._group, dist.recv(length, group=self._group, tag=_LETTER))
        # Who asks again has taken its answer, so that an answer need not be kept until the program ends.
        _wait([work for work, _ in self._unsent.pop(source, [])])
        return source, self._body(source, int(length), max_num_bytes)

    def _body(self, source: int, num_bytes: int, max_num_bytes: int | None) -> Tensor:
        """The message that follows its length."""
        check_length(source, num_bytes, max_num_bytes)
        self._enter("wire")
        message = torch.empty(num_bytes, dtype=torch.uint8)
        if num_bytes:
            _wait([self._arrive(source, message, _LETTER)])
        return message

    def _peers(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def _send(self, peer: int, tensors: Sequence[Tensor], tag: int = 0) -> list[tuple[dist.Work, Tensor]]:
        """Begin to send; the tensors are kept with the work until it is done."""
        sent = []
        for tensor in tensors:
            if tensor.numel():
                work = dist.isend(tensor, group=self._group, tag=tag, group_dst=peer)
                assert work is not None
                sent.append((work, tensor))
        return sent

    def _arrive(self, peer: int, tensor: Tensor, tag: int = 0) -> dist.Work:
        work = dist.irecv(tensor, group=self._group, tag=tag, group_src=peer)
        assert work is not None
        return work

    def _flush(self) -> None:
        # The work of a send never says by itself that it is completed, so it is waited for.
        _wait([work for sent in self._unsent.values() for work, _ in sent])
        self._unsent.clear()


def _length(message: Tensor) -> Tensor:
    return torch.tensor([message.numel()], dtype=torch.int64)


def _wait(pending: Sequence[dist.Work]) -> None:
    for work in pending:
        work.wait()
