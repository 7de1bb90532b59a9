"""A worker's place in a run over a store, and what it has seen there."""

from dataclasses import dataclass, field

from thinwire.distributed.store_rounds.attendance import Attendance
from thinwire.distributed.store_rounds.objects import Closing, Objects, closing_name
from thinwire.distributed.store_rounds.report import RoundReport
from thinwire.distributed.store_rounds.settings import RoundSettings
from thinwire.errors import SealError, StoreError

CLOSED = "closed"
MOST_ATTEMPTS = 8
"""So many names a list may have; a stranger who takes one of them costs every worker one more look at a round."""


@dataclass(slots=True, eq=False)
class Station:
    """Who a worker is, and what it knows of the others.

    Args:
        objects: of the run.
        settings: what is kept.
        rank: this worker.
        size: number of workers.
    """

    objects: Objects
    settings: RoundSettings
    rank: int
    size: int
    report: RoundReport = field(init=False)
    attendance: Attendance = field(init=False)
    _strange: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.report = RoundReport(self.rank)
        self.attendance = Attendance(self.size, self.settings.window)

    def waited_for(self) -> set[int]:
        """All workers but those that have missed too many rounds in a row."""
        return set(range(self.size)) - self.attendance.absent(self.settings.max_missed)

    def find_closing(self, number: int) -> tuple[Closing | None, str]:
        """The list of a round, if it is over, and its name; else the name where it is to be put.

        All go by the first one that opens: what does not open now never will, as nobody writes it over.

        Raises:
            StoreError: strangers have taken every name.
        """
        for attempt in range(MOST_ATTEMPTS):
            name = closing_name(number, attempt)
            try:
                sealed = self.objects.get(name, Closing.max_num_bytes(self.size))
                if sealed is None:
                    return None, name
                return Closing.from_bytes(self.objects.opened(sealed, CLOSED, number), self.size), name
            except SealError as error:
                self.find_strange(name, str(error))
        raise StoreError(
            f"strangers have put {MOST_ATTEMPTS} objects where the list of round {number} belongs; see who can write "
            "to the store, and begin a new run"
        )

    def find_strange(self, name: str, why: str) -> None:
        """Report an object that does not belong where it is, once."""
        if name not in self._strange and len(self._strange) < 1 << 16:
            self._strange.add(name)
            self.report.find_strange(name, why)
