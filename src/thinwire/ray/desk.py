"""The server of asynchronous training, message by message: each is numbered, merged once, and saved; nothing of Ray."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from thinwire.errors import ProtocolError, WorkerError
from thinwire.exchanges.asynchronous import Control
from thinwire.network import FRAME_NUM_BYTES
from thinwire.ray.plan import Plan, begin_with, named_tensors
from thinwire.ray.report import Report
from thinwire.ray.seats import Reply, Seat, Standing, seats_of
from thinwire.ray.server_file import ServerFile, taken
from thinwire.steps import check_length
from thinwire.wire import decode
from thinwire.worker import Server


class Desk:
    """Takes numbered messages of workers that may come, go and die, and survives its own process.

    A worker numbers its messages from 1, sends one at a time and keeps each until a checkpoint covers it. A message is
    merged if its number is the next one. If it was merged already, it is only answered: the answer was lost. If ones
    before it are missing, the server has fallen back to its checkpoint, and the reply says from which on to send again.

    Args:
        plan: what to do.
        model: the initial one, overwritten by that of the checkpoint, if there is one.

    Raises:
        ConfigError: the method has no server or does not fit the model, or the folder has another training's
            checkpoint or cannot be written.
    """

    def __init__(self, plan: Plan, model: nn.Module) -> None:
        self._plan = plan
        self._file = None if plan.folder is None else ServerFile(plan.folder, plan.run)
        saved = None if self._file is None else self._file.load()
        if self._file is not None and saved is not None and saved["run"] != plan.run:
            if not plan.resumes:
                raise taken(plan.folder)
            begin_with(model, {**saved["server"]["tensors"], **self._file.load_untrained()})
            saved = None
        size = plan.num_workers if saved is None else saved["server"]["counters"]["size"]
        self._server = Server(plan.method, model, size=size)
        trained = self._server.parameters()
        self._others = {name: each.detach() for name, each in named_tensors(model).items() if name not in trained}
        self._turn = self._server.begin(plan.until)
        self._seats = {rank: Seat() for rank in range(plan.num_workers)}
        self._traffic = [0, 0]
        self._offending: Tensor | None = None
        self._num_restarts = 0
        self._num_saved = 0
        if self._file is not None and saved is not None:
            self._others = self._file.load_untrained()
            self._restore(saved)
        elif self._file is not None:
            self._file.save_untrained(self._others)
        self._save()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the trained parameters, in the order of the vector."""
        return self._server.layout.names

    @property
    def untrained(self) -> dict[str, Tensor]:
        """All else that the model has, by name: read it only."""
        return self._others

    def parameters(self) -> dict[str, Tensor]:
        """The model that workers go on from, by name; read it only."""
        return self._server.parameters()

    def shared_parameters(self) -> dict[str, Tensor]:
        """The trained parameters as they are now, by name; read them only."""
        return self._server.shared_parameters()

    def enter(self, rank: int) -> int:
        """A worker begins with the model as it is now; how many there are.

        Raises:
            WorkerError: it was taken for dead.
        """
        seat = self._seats.setdefault(rank, Seat(counts=False))
        self._check_alive(rank, seat)
        if rank not in self._turn.active:
            self._join(rank, seat)
            self._save()
        self._server.note_fetch(rank)
        return self._server.size

    def exchange(self, rank: int, sequence: int, size: int, message: Tensor) -> list[tuple[int, Reply]]:
        """A message has come; who gets a reply now.

        Args:
            rank: whose it is.
            sequence: its number.
            size: the number of workers when it was made: it counts ``1 / size``.
            message: encoded.

        Raises:
            WireError: it is not valid; it counts as not sent.
            ProtocolError: it stands for a vector of another length, or comes from nobody that is known.
            WorkerError: its sender was taken for dead.
        """
        seat = self._seat(rank)
        self._check_alive(rank, seat)
        if sequence > seat.merged + 1:
            return [(rank, self._reply(seat))]
        if seat.standing is Standing.AWAY:
            self._join(rank, seat)
        if sequence <= seat.merged:
            return self._replies(self._server.repeat(self._turn, rank))
        if size < 1:
            raise ProtocolError(f"worker {rank} says that there are {size} workers; there is at least itself")
        check_length(rank, message.numel(), self._server.max_message_num_bytes)
        found = self._server.take(self._turn, rank, message, size)
        seat.merged = sequence
        self._traffic[0] += message.numel() + FRAME_NUM_BYTES
        is_news = self._turn.offender is not None and self._offending is None
        if is_news:
            self._offending = message
        self._num_saved += 1
        if is_news or self._num_saved >= self._plan.save_every:
            self._save()
        return self._replies(found)

    def finish(self, rank: int, sequence: int, norm: float, bytes_resent: int) -> tuple[Reply, list[tuple[int, Reply]]]:
        """A worker has sent its last message; its reply, and those of others.

        Once the reply expects the number after the last, all messages are in a checkpoint. If not, the worker has to
        send them again, and to call once more.

        Args:
            rank: which one.
            sequence: number of its last message, 0 if there is none.
            norm: of what it has not sent.
            bytes_resent: by it.
        """
        seat = self._seats.setdefault(rank, Seat(counts=False))
        if sequence > seat.merged or seat.standing is Standing.LOST:
            return self._reply(seat), []
        seat.standing, seat.residual_norm, seat.bytes_resent = Standing.ENDED, norm, bytes_resent
        seat.counts &= not seat.is_dismissed
        found = self._server.leave(self._turn, rank)
        self._recount()
        self._save()
        return self._reply(seat), self._replies(found)

    def leave(self, rank: int, *, is_dead: bool) -> list[tuple[int, Reply]]:
        """A worker cannot be reached, or is dead; who gets a reply now, having waited for it alone."""
        seat = self._seats.setdefault(rank, Seat(counts=False))
        if seat.standing is Standing.ENDED:
            return []
        seat.standing = Standing.LOST if is_dead else Standing.AWAY
        found = self._server.leave(self._turn, rank)
        seat.counts = False
        self._recount()
        self._save()
        return self._replies(found)

    def dismiss(self, rank: int) -> None:
        """Tell a worker, when its next message has come, to pause for good; then there is one less."""
        seat = self._seats.setdefault(rank, Seat(counts=False))
        seat.is_dismissed = True
        self._turn.leaves_at[rank] = 0
        self._save()

    def stop(self) -> list[tuple[int, Reply]]:
        """Tell every worker, when its next message has come, to pause; the replies to those whose message is here."""
        self._turn.until = 0
        self._save()
        return self._replies(self._server.answers(self._turn))

    def report(self) -> Report:
        """What was done so far."""
        server, seats = self._server, sorted(self._seats.items())
        lost = tuple(rank for rank, seat in seats if seat.standing in (Standing.AWAY, Standing.LOST))
        return Report(
            num_merged=server.num_merged,
            num_workers=server.size,
            mean_staleness=server.mean_staleness,
            max_staleness=server.max_staleness,
            bytes_sent=self._traffic[0],
            bytes_received=self._traffic[1],
            bytes_resent=sum(seat.bytes_resent for _, seat in seats),
            messages={rank: seat.merged for rank, seat in seats},
            lost=lost,
            unsent={rank: seat.residual_norm for rank, seat in seats if seat.standing is not Standing.AT_WORK},
            num_restarts=self._num_restarts,
            server_pid=os.getpid(),
        )

    def _seat(self, rank: int) -> Seat:
        if rank not in self._seats:
            raise ProtocolError(f"a message came from worker {rank}, which has not begun")
        return self._seats[rank]

    def _check_alive(self, rank: int, seat: Seat) -> None:
        if seat.standing is Standing.LOST:
            raise WorkerError(f"worker {rank} was taken for dead, and the others go on without it; add a new one")

    def _join(self, rank: int, seat: Seat) -> None:
        """One more takes part: in the place of one that has done its part, if there is any."""
        done = [each for each in self._seats.values() if each.standing is Standing.ENDED and each.counts]
        if done:
            done[0].counts = False
        self._server.join(self._turn, rank)
        seat.standing, seat.counts = Standing.AT_WORK, True
        self._recount()

    def _recount(self) -> None:
        """``P``: also of those that have done their part, so that the messages of the others count as before."""
        self._server.size = sum(seat.counts for seat in self._seats.values())

    def _replies(self, found: Sequence[tuple[int, Tensor]]) -> list[tuple[int, Reply]]:
        for rank, answer in found:
            seat = self._seats[rank]
            # An answer that a process of before has given is no part of its checkpoint; all have one length.
            num_bytes = answer.numel() + FRAME_NUM_BYTES
            self._traffic[1] += (seat.merged - seat.answered) * num_bytes
            seat.answered = seat.merged
            seat.counts &= not (seat.is_dismissed and int(answer[0]) == Control.PAUSE)
        self._recount()
        return [(rank, self._reply(self._seats[rank], answer.numpy().tobytes())) for rank, answer in found]

    def _reply(self, seat: Seat, answer: bytes = b"") -> Reply:
        covered = seat.merged if self._file is None else seat.covered
        return Reply(answer, seat.merged + 1, covered, self._server.size)

    def _save(self) -> None:
        self._num_saved = 0
        if self._file is None:
            return
        state = {
            "server": self._server.state_dict(),
            "seats": [seat.to_state(rank) for rank, seat in self._seats.items()],
            "active": sorted(self._turn.active),
            "until": self._turn.until,
            "traffic": list(self._traffic),
            "num_restarts": self._num_restarts,
            "offending": [] if self._offending is None else [self._offending],
        }
        self._file.save(state)
        for seat in self._seats.values():
            seat.covered = seat.merged

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._server.load_state_dict(state["server"])
        self._seats = seats_of(state["seats"])
        self._turn.active = set(state["active"])
        self._turn.until = state["until"]
        self._turn.leaves_at = {rank: 0 if seat.is_dismissed else math.inf for rank, seat in self._seats.items()}
        self._traffic = list(state["traffic"])
        self._num_restarts = state["num_restarts"] + 1
        for message in state["offending"]:
            self._offending, self._turn.offender = message, decode(message)
