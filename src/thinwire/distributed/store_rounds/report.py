"""What a worker saw that it did not count."""

import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class RoundReport:
    """Counts of what was left out and of what was missed, as this worker saw it; a warning once for each rank.

    Args:
        rank: this worker.
    """

    rank: int
    refused: Counter[int] = field(init=False, default_factory=Counter)
    """Messages that were left out, by the rank they were put for: damaged, replayed, a stranger's, or not finite."""
    why: dict[int, str] = field(init=False, default_factory=dict)
    """Why the last one of each rank was."""
    num_strange: int = field(init=False, default=0)
    """Other objects that do not belong to a round: of unknown names, or lists that open with no key of the run."""
    num_missed: int = field(init=False, default=0)
    """Rounds in which this worker's message was not."""
    num_unknown: int = field(init=False, default=0)
    """Rounds in which a message of this worker counted that it does not know: made before it was started again."""
    num_restarts: int = field(init=False, default=0)
    """How often this worker was so far behind that it began again from a snapshot."""

    def refuse(self, rank: int, number: int, why: str) -> None:
        """A message was left out.

        Warns:
            UserWarning: it is the first of its rank.
        """
        is_first = not self.refused[rank]
        self.refused[rank] += 1
        self.why[rank] = why
        if is_first:
            warnings.warn(
                f"the message of worker {rank} in round {number} is left out: {why}. There is no further warning for "
                "this rank; see the handle's report",
                stacklevel=2,
            )

    def find_strange(self, name: str, why: str) -> None:
        """An object does not belong where it is.

        Warns:
            UserWarning: it is the first one.
        """
        self.num_strange += 1
        if self.num_strange == 1:
            warnings.warn(
                f"the object {name!r} is left out: {why}. Somebody else writes to this place; there is no further "
                "warning, see the handle's report",
                stacklevel=2,
            )

    def find_unknown(self, number: int) -> None:
        """A message of this worker counted that is not the one which it would make now.

        Warns:
            UserWarning: always.
        """
        self.num_unknown += 1
        warnings.warn(
            f"in round {number} another message of worker {self.rank} counted than it would hand in now: it was handed "
            "in before this worker was started again from an older state. What the two differ in is lost or counts "
            "twice; give state_file, so that a worker goes on from what it handed in last",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, Any]:
        """All counts."""
        return {
            "refused": dict(self.refused), "why": dict(self.why), "num_strange": self.num_strange,
            "num_missed": self.num_missed, "num_unknown": self.num_unknown, "num_restarts": self.num_restarts,
        }  # fmt: skip

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Count on from there."""
        self.refused, self.why = Counter(saved["refused"]), dict(saved["why"])
        self.num_strange, self.num_missed = saved["num_strange"], saved["num_missed"]
        self.num_unknown, self.num_restarts = saved["num_unknown"], saved["num_restarts"]
