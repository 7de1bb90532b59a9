"""Whether the others wait for this participant, and a warning where they do not."""

import time
import warnings
from collections import deque

_LATELY = 8
_TOO_OFTEN = 3


class LeftOut:
    """Notices that exchanges count without this participant again and again, though nothing fails.

    Who asks while the others train waits for them. If the lighthouse does not wait as long as that, it lets the first
    that come back go on with those that have waited, and without the rest, who then wait in their turn: from then on
    some are left out of every exchange, though all are as fast.
    """

    def __init__(self) -> None:
        self._rounds: deque[bool] = deque(maxlen=_LATELY)
        self._went_on_at: float | None = None
        self._training_s = 0.0
        self._has_warned = False

    def asks(self) -> None:
        """This participant has something to exchange."""
        if self._went_on_at is not None:
            self._training_s = time.monotonic() - self._went_on_at

    def counts(self) -> None:
        """An exchange has counted with its message, and it trains on."""
        self._rounds.append(False)
        self._went_on_at = time.monotonic()

    def misses(self, names: tuple[str, ...]) -> None:
        """Exchanges have counted without it, and none has failed here.

        Args:
            names: of those that are there now.

        Warns:
            UserWarning: the third time in eight rounds, and then no more.
        """
        self._rounds.append(True)
        if self._has_warned or sum(self._rounds) < _TOO_OFTEN:
            return
        self._has_warned = True
        warnings.warn(
            f"exchanges counted without this participant in {sum(self._rounds)} of its last {len(self._rounds)} "
            f"rounds, though nothing failed (now {', '.join(names)} are there). The lighthouse does not wait for it: "
            f"start it with a --join_timeout_ms above the time from one exchange to the next (this participant trained "
            f"for {1000 * self._training_s:,.0f} ms between its last two), or let slow participants make fewer steps",
            stacklevel=2,
        )
