"""Who took part in each round of a run, and what crossed their links."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinwire.experiments.clients.engine import ClientEngine
from thinwire.experiments.stepping import Seat
from thinwire.files import StrPath, append_text, write_atomically

ROUNDS = "rounds.jsonl"
"""The file, in the folder of the run."""


@dataclass(slots=True, eq=False)
class RoundLog:
    """Counts what each client of a round sends and gets, from its model at the beginning to the last message.

    Args:
        engine: which knows the links.
    """

    engine: ClientEngine
    number: int = field(init=False, default=-1)
    """Of the round that goes on; -1 before the first."""
    begun_at: int = field(init=False, default=0)
    """The step that it began at."""
    ends_at: int = field(init=False, default=0)
    """The step that it ends at."""
    _model_bytes: list[int] = field(init=False, default_factory=list)
    _before: list[list[int]] = field(init=False, default_factory=list)
    _lines: list[str] = field(init=False, default_factory=list)

    def begin(self, number: int, steps: tuple[int, int], seats: Sequence[Seat], model_bytes: Sequence[int]) -> None:
        """Round ``number``, from one step to another; before anything is sent."""
        self.number, (self.begun_at, self.ends_at) = number, steps
        self._model_bytes = list(model_bytes)
        self._before = self._counted(seats)

    def end(self, seats: Sequence[Seat]) -> None:
        """The round is over."""
        pairs = zip(self._counted(seats), self._before, strict=True)
        differences = [[now - before for now, before in zip(*pair, strict=True)] for pair in pairs]
        messages, sent, received = map(list, zip(*differences, strict=True))
        line = {
            "round": self.number, "step": self.ends_at, "clients": [seat.owner for seat in seats],
            "message_bytes": messages, "model_bytes": self._model_bytes, "bytes_sent": sent, "bytes_received": received,
        }  # fmt: skip
        self._lines.append(json.dumps(line) + "\n")

    def write(self, folder: StrPath) -> None:
        """Append the rounds that have ended since the last call to the file of a folder."""
        if self._lines:
            append_text(Path(folder) / ROUNDS, "".join(self._lines))
            self._lines.clear()

    def state_dict(self) -> dict[str, Any]:
        """Of the round that goes on."""
        return {
            "number": self.number, "begun_at": self.begun_at, "ends_at": self.ends_at,
            "model_bytes": self._model_bytes, "before": self._before,
        }  # fmt: skip

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.number, self.begun_at, self.ends_at = saved["number"], saved["begun_at"], saved["ends_at"]
        self._model_bytes, self._before = list(saved["model_bytes"]), [list(each) for each in saved["before"]]

    def _counted(self, seats: Sequence[Seat]) -> list[list[int]]:
        traffic = self.engine.traffic()
        return [
            [seat.worker.message_bytes, traffic[seat.owner].bytes_sent, traffic[seat.owner].bytes_received]
            for seat in seats
        ]


def trim_rounds(folder: StrPath, step: int) -> None:
    """Leave, of a folder's rounds, those that had ended by ``step``; later ones are made again."""
    path = Path(folder) / ROUNDS
    if path.exists():
        lines = path.read_text().split("\n")[:-1]
        write_atomically(path, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step).encode())


def read_rounds(folder: StrPath) -> list[dict[str, Any]]:
    """The rounds of a run, in order: clients, and for each of them the bytes of this round.

    ``message_bytes`` is what a client handed to the exchange, ``model_bytes`` what it was handed of the common model
    before; ``bytes_sent`` and ``bytes_received`` are what crossed its link, the model included.

    Args:
        folder: of the run, such as ``runs/digits/runs/final-...``.
    """
    return [json.loads(line) for line in (Path(folder) / ROUNDS).read_text().splitlines()]
