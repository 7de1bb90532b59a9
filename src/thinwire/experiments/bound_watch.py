"""Warns while a comparison trains, once for each method, that a bound is broken which its settings rest on."""

import warnings
from collections.abc import Sequence

from thinwire.experiments.bounds import RunBounds, broken_bound, promised_error
from thinwire.experiments.records import is_finished, records_of
from thinwire.experiments.spec import Comparison, Run
from thinwire.files import StrPath
from thinwire.layout import Layout
from thinwire.methods import parse_method


class BoundBroken(UserWarning):
    """A run has left the region in which its method is proven to work."""


class BoundWatch:
    """Looks at the records of final runs, wherever those are executed; once they are finished, not again.

    Args:
        comparison: whose runs they are.
        layout: of what is exchanged.
        out: the folder of the comparison.
    """

    def __init__(self, comparison: Comparison, layout: Layout, out: StrPath) -> None:
        self._comparison = comparison
        self._layout = layout
        self._out = out
        self._known: dict[str, tuple[RunBounds, float]] = {}
        self._ended: set[str] = set()
        self.found: dict[str, str] = {}
        """What was told, by method."""

    def look(self, runs: Sequence[Run]) -> None:
        """Warn of what is new.

        Warns:
            BoundBroken: what was measured, its bound, the step, and what to do.
        """
        for run in runs:
            if run.method in self.found or run.name in self._ended:
                continue
            records = records_of(self._out, run)
            if not records:
                continue
            if is_finished(records, run):
                self._ended.add(run.name)
            message = broken_bound(records, *self._of_method(run))
            if message:
                self.found[run.method] = message
                warnings.warn(message, BoundBroken, stacklevel=2)

    def _of_method(self, run: Run) -> tuple[RunBounds, float]:
        """Final runs of a method differ in nothing but the seed, so that what is proven of one is of all."""
        if run.method not in self._known:
            bounds = RunBounds.of(self._comparison, run, self._layout)
            self._known[run.method] = bounds, promised_error(parse_method(run.variant), self._layout)
        return self._known[run.method]
