"""The messages of a round that is not over: gathered as they come, until all are there or nobody waits any longer."""

import time
from dataclasses import dataclass, field

from thinwire.distributed.store_rounds.objects import (
    Closing,
    Objects,
    closing_name,
    digest_of,
    message_name,
    round_folder,
)
from thinwire.distributed.store_rounds.settings import Patience, RoundSettings
from thinwire.distributed.store_rounds.station import CLOSED, MOST_ATTEMPTS, Station
from thinwire.errors import SealError

_MOST_TRIES = 5


@dataclass(slots=True, eq=False)
class Gathering:
    """What this worker has seen of an open round.

    Args:
        station: this worker's.
        number: of the round.
        own: its own message, as it lies in the store.
        max_num_bytes: the longest message that any worker can make.
        point: the checksum of the common state before the round.
    """

    station: Station
    number: int
    own: bytes
    max_num_bytes: int
    point: int
    messages: dict[int, bytes] = field(init=False)
    """Sealed, by rank; each has been opened."""
    _bad: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.messages = {self.station.rank: self.own}

    def wait(self, patience: Patience) -> Closing:
        """The list of the round, once there is one.

        Messages that do not open are as if they were missing.

        Args:
            patience: how long others are waited for.
        """
        station, folder = self.station, round_folder(self.number)
        begin_s, pause_s, all_s = time.monotonic(), station.settings.poll_min_s, 0.0
        known = {closing_name(self.number, attempt) for attempt in range(MOST_ATTEMPTS)}
        known |= {message_name(self.number, rank) for rank in range(station.size)}
        while True:
            names = set(station.objects.names(folder))
            for name in sorted(names - known):
                station.find_strange(name, "no object of a round has this name")
            if any(closing_name(self.number, attempt) in names for attempt in range(MOST_ATTEMPTS)):
                closing, _ = station.find_closing(self.number)
                if closing is not None:
                    return closing
            self._gather(names)
            missing = station.waited_for() - self.messages.keys()
            waited_s = time.monotonic() - begin_s
            durations_s = station.attendance.durations_s
            if missing:
                is_time = patience.is_over(self.number, set(self.messages), missing, waited_s, durations_s)
            else:
                # One is enough to make the list; another one does if that one should be gone.
                is_time = station.rank == min(self.messages) or all_s >= station.settings.poll_max_s
                all_s += pause_s
            if is_time and (made := self._close()) is not None:
                return made
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, station.settings.poll_max_s)

    def _gather(self, names: set[str]) -> None:
        for rank in range(self.station.size):
            if message_name(self.number, rank) in names and rank not in self.messages and rank not in self._bad:
                self._look_at(rank)

    def _look_at(self, rank: int) -> None:
        objects = self.station.objects
        try:
            sealed = objects.get(message_name(self.number, rank), self.max_num_bytes)
            if sealed is not None:
                objects.opened(sealed, "message", self.number, rank)
                self.messages[rank] = sealed
                self._bad.pop(rank, None)
        except SealError as error:
            self._bad[rank] = str(error)

    def _close(self) -> Closing | None:
        """Make the list, unless somebody else was first; None if there would be nothing in it."""
        station = self.station
        closing, name = station.find_closing(self.number)
        if closing is not None:
            return closing
        # A stranger may have been there before a worker itself, and what was sent is not always what lies there.
        for rank in {station.rank, *self._bad}:
            self.messages.pop(rank, None)
            self._bad.setdefault(rank, "it is not there")
            self._look_at(rank)
        for rank, why in self._bad.items():
            station.report.refuse(rank, self.number, why)
        if not self.messages:
            return None
        closing = Closing({rank: digest_of(sealed) for rank, sealed in self.messages.items()}, self.point)
        sealed = station.objects.sealed(closing.to_bytes(), CLOSED, self.number)
        while not station.objects.create(name, sealed):
            other, name = station.find_closing(self.number)
            if other is not None:
                return other
        return closing


def fetch_counted(
    objects: Objects, number: int, closing: Closing, known: dict[int, bytes], max_num_bytes: int,
    settings: RoundSettings,
) -> dict[int, bytes] | None:  # fmt: skip
    """The objects of a list, sealed, by rank; None if one is gone or was replaced.

    Args:
        objects: of the run.
        number: of the round.
        closing: its list.
        known: what was fetched already.
        max_num_bytes: the longest message that there can be.
        settings: how long the pauses between tries are.
    """
    found = {}
    for rank, digest in sorted(closing.digests.items()):
        sealed = known.get(rank)
        for left in reversed(range(_MOST_TRIES)):
            if sealed is not None and digest_of(sealed) == digest:
                break
            try:
                sealed = objects.get(message_name(number, rank), max_num_bytes)
            except SealError:  # longer than any message: it was replaced
                sealed = None
            if sealed is None or digest_of(sealed) != digest:
                if not left:
                    return None
                time.sleep(settings.poll_min_s)
        assert sealed is not None
        found[rank] = sealed
    return found
