"""The rounds of one worker: what it hands in, what counts, and what follows from it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinwire.distributed.store_rounds.answer import answer
from thinwire.distributed.store_rounds.gathering import Gathering, fetch_counted
from thinwire.distributed.store_rounds.objects import Closing, digest_of, message_name
from thinwire.distributed.store_rounds.settings import Patience
from thinwire.distributed.store_rounds.snapshots import prune, put_snapshot, take_newest
from thinwire.distributed.store_rounds.station import Station
from thinwire.errors import DivergenceError, NumericsError, ProtocolError, SealError, StoreError
from thinwire.exchanges import Gather
from thinwire.steps import AllGather, Steps
from thinwire.worker import Worker
from thinwire.worker.averaging import Proposal
from thinwire.worker.rounds import Rounds


class RoundDriver:
    """Lets a worker take part in the rounds of a store, and catch up with those that it has missed.

    Args:
        worker: under a method whose exchange is a :class:`thinwire.exchanges.Gather`.
        station: the worker's.
        patience: how long others are waited for.
    """

    def __init__(self, worker: Worker, station: Station, patience: Patience) -> None:
        self.worker, self.station = worker, station
        self.rounds = Rounds(worker)
        self.message_bytes = 0
        """Of this worker's messages, encoded, as often as they were handed in."""
        self._patience = patience
        self._ended_s = time.monotonic()
        self._handed_in: tuple[int, bytes] | None = None

    def take_part(self, before_put: Callable[[], None], *, at_once: bool = False) -> None:
        """Catch up, then take part in the next round; what was handed in before a restart is not handed in again.

        Args:
            before_put: is called before a message is handed in.
            at_once: whether the mean is applied now although the method applies it later.

        Raises:
            NumericsError: NaN or inf in this worker's model: nothing was handed in; or the sum of all is not finite.
            DivergenceError: the workers' common states differ.
            StoreError: the store does not answer, or what counts is gone.
        """
        if self.catch_up(is_due=True):
            return
        station, number, arrived_s = self.station, self.worker.num_exchanges, time.monotonic()
        _check_finite(self.worker)
        program = self.rounds.propose()
        op = _request(program)
        own = self._sealed(op, number)
        before_put()
        handed_in = self._hand_in(number, op, own)
        gathering = Gathering(station, number, handed_in, _longest(op), self.rounds.checksum())
        closing = gathering.wait(self._patience)
        # What was waited in vain is no part of how long rounds take.
        end_s = time.monotonic() if station.waited_for() <= set(closing.digests) else arrived_s
        exchange = _Exchange(number, closing, program, op, own)
        counted = self._finish(exchange, gathering.messages, end_s - self._ended_s, at_once=at_once)
        if counted is None:
            raise StoreError(
                f"a message that counts in round {number} is gone or was replaced; see that no two workers have the "
                "same rank, and that nobody else writes to the store, and start this worker again"
            )
        self._ended_s = time.monotonic()
        self._put_snapshot(sorted(counted))

    @property
    def is_unfinished(self) -> bool:
        """Whether a message was handed in and something went wrong before it was known what became of it."""
        return self._handed_in is not None and self._handed_in[0] == self.worker.num_exchanges

    def catch_up(self, *, is_due: bool) -> bool:
        """Go through the rounds that are over, up to one that counts this worker. What it did itself is kept.

        It finds its own message in a round only if it was started again from an older state. Then it trains up to that
        round as before, and hands nothing in.

        Args:
            is_due: whether this worker has made its local steps for a round.

        Returns:
            Whether what it was to hand in counts already.
        """
        rank, counts = self.worker.rank, False
        while True:
            number = self.worker.num_exchanges
            closing, _ = self.station.find_closing(number)
            if closing is None or (rank in closing.digests and not is_due):
                return counts
            program = self.rounds.propose()
            op = _request(program)
            own = self._sealed(op, number) if rank in closing.digests else b""
            exchange = _Exchange(number, closing, program, op, own)
            counted = self._finish(exchange, {rank: own}, None)
            if counted is None:
                counts = self._begin_again(exchange)
            elif rank in counted:
                return True

    def _put_snapshot(self, counted: Sequence[int]) -> None:
        """If it is time for one, and this worker's turn among those that are known to be there."""
        number, station = self.worker.num_exchanges, self.station
        turn, rest = divmod(number, station.settings.snapshot_every)
        if not rest and counted and counted[turn % len(counted)] == station.rank:
            put_snapshot(station.objects, self.rounds, number)
            prune(station.objects, station.settings, number, station.size)

    def _hand_in(self, number: int, op: AllGather, own: bytes) -> bytes:
        """Put this worker's message, unless it did so before it was started again: then that one is taken."""
        objects, rank = self.station.objects, self.worker.rank
        if self._handed_in is None:
            try:
                found = objects.get(message_name(number, rank), _longest(op))
                if found is not None:
                    objects.opened(found, "message", number, rank)
                    self._count_earlier(found)
                    self._handed_in = number, own
                    return found
            except SealError:
                pass  # none of this worker's: it is written over
        if self._handed_in != (number, own):  # else it is put again, since it is not known whether it is there
            self._handed_in = number, own
            self.message_bytes += op.message.numel()
        objects.put(message_name(number, rank), own)
        return own

    def _finish(
        self, exchange: "_Exchange", known: dict[int, bytes], duration_s: float | None, *, at_once: bool = False
    ) -> set[int] | None:
        """Let what counts in a round count here; whose messages did, None if one was gone."""
        number, closing, station = exchange.number, exchange.closing, self.station
        self._check_point(number, closing)
        sealed = fetch_counted(station.objects, number, closing, known, _longest(exchange.op), station.settings)
        if sealed is None:
            return None
        proposal, counted = self._answer(exchange, self._opened(number, sealed))
        if station.rank in counted:
            self.rounds.accept(proposal, at_once=at_once)
            if self._handed_in is None or self._handed_in[0] != number:
                self._count_earlier(sealed[station.rank])
            if digest_of(exchange.own) != closing.digests[station.rank]:
                station.report.find_unknown(number)
        else:
            self.rounds.follow(proposal)
            station.report.num_missed += 1
        station.attendance.add(counted, duration_s)
        return counted

    def _answer(self, exchange: "_Exchange", messages: dict[int, Tensor]) -> tuple[Proposal, set[int]]:
        number, method = exchange.number, self.worker.method.exchange
        channel = self.worker.channels[number % len(self.worker.channels)]
        assert isinstance(method, Gather)

        def refuse(rank: int, why: str) -> None:
            self.station.report.refuse(rank, number, why)

        reply, counted = answer(exchange.op, messages, self.station.size, channel.layout.numel, method, refuse)
        return _proposal(exchange.program, reply), counted

    def _count_earlier(self, sealed: bytes) -> None:
        """A message that was handed in before this worker was started again from a state that did not know of it."""
        self.message_bytes += len(sealed) - self.station.objects.seal.num_bytes
        self.station.objects.count_sent(len(sealed))

    def _opened(self, number: int, sealed: dict[int, bytes]) -> dict[int, Tensor]:
        """The messages, but those that were not made by who they are of."""
        messages = {}
        for rank, each in sealed.items():
            try:
                contents = self.station.objects.opened(each, "message", number, rank)
            except SealError as error:
                self.station.report.refuse(rank, number, str(error))
                continue
            messages[rank] = torch.frombuffer(bytearray(contents), dtype=torch.uint8)
        return messages

    def _sealed(self, op: AllGather, number: int) -> bytes:
        return self.station.objects.sealed(op.message.numpy().tobytes(), "message", number, self.worker.rank)

    def _check_point(self, number: int, closing: Closing) -> None:
        if closing.point != (own := self.rounds.checksum()):
            raise DivergenceError(
                f"before round {number} the common state of worker {self.worker.rank} is not that of the worker that "
                f"closed the round (checksums {own:08x} and {closing.point:08x}); start this worker again, from the "
                "initial model or from a snapshot"
            )

    def _begin_again(self, exchange: "_Exchange") -> bool:
        """Go on from a snapshot; whether what this worker was to hand in counted in the round that is gone."""
        number, rank, own = exchange.number, self.worker.rank, exchange.own
        counts = bool(own) and exchange.closing.digests[rank] == digest_of(own)
        if counts:
            # What the others sent is gone, but what this worker's message left out follows from itself.
            proposal, _ = self._answer(exchange, {rank: exchange.op.message})
            self.rounds.take_memory({name: each.clone() for name, each in self.rounds.memory_after(proposal).items()})
            channel = self.worker.channels[number % len(self.worker.channels)]
            channel.write_params(channel.update["reference"])
            self._count_earlier(own)
        else:
            exchange.program.close()
        found, strange = take_newest(self.station.objects, self.rounds, number)
        for each in strange:
            self.station.find_strange(*each.split(": ", 1))
        if found is None:
            raise StoreError(
                f"the messages of round {number} are deleted, and there is no snapshot of a later one; let this run's "
                "workers keep more rounds (keep_rounds), and look whether snapshots were deleted"
            )
        self.station.report.num_restarts += 1
        return counts


@dataclass(frozen=True, slots=True, eq=False)
class _Exchange:
    """A worker's exchange that waits for its answer.

    Args:
        number: of the round.
        closing: which messages count.
        program: the worker's.
        op: what it has asked for.
        own: the message that it would hand in now, sealed; empty where it plays no part.
    """

    number: int
    closing: Closing
    program: Steps[Proposal]
    op: AllGather
    own: bytes


def _longest(op: AllGather) -> int:
    assert op.max_num_bytes is not None
    return op.max_num_bytes


def _request(program: Steps[Proposal]) -> AllGather:
    op = next(program)
    if not isinstance(op, AllGather):
        raise ProtocolError(f"a round over a store begins with an all-gather, and {type(op).__name__} was asked for")
    return op


def _proposal(program: Steps[Proposal], reply: Any) -> Proposal:
    try:
        op = program.send(reply)
    except StopIteration as stop:
        proposal: Proposal = stop.value
        return proposal
    raise ProtocolError(f"a round over a store is one all-gather, and {type(op).__name__} was asked for after it")


def _check_finite(worker: Worker) -> None:
    for name, param in worker.parameters().items():
        if not torch.isfinite(param.detach()).all():
            raise NumericsError(
                f"NaN or inf in {name!r} of worker {worker.rank}, found at step {worker.num_steps}; nothing was handed "
                "in, and the other workers go on. Lower the learning rate, clip gradients, or look for bad input data"
            )
