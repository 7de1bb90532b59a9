"""Warns while a comparison trains, once for each method, that a bound is broken which its settings rest on."""

import warnings
from collections.abc import Sequence

from thinwire.experiments.bounds import RunBounds, broken_bound, promised_error
from thinwire.experiments.executors import run_folder
from thinwire.experiments.records import read_run
from thinwire.experiments.spec import Comparison, Run
from thinwire.files import StrPath
from thinwire.layout import Layout
from thinwire.methods import parse_method


class BoundBroken(UserWarning):
    """A run has left the region in which its method is proven to work."""


class BoundWatch:
    """Looks at the records of final runs, wherever those are executed.

    Args:
        comparison: whose runs they are.
        layout: of what is exchanged.
        out: the folder of the comparison.
    """

    def __init__(self, comparison: Comparison, layout: Layout, out: StrPath) -> None:
        self._comparison = comparison
        self._layout = layout
        self._out = out
        self.found: dict[str, str] = {}
        """What was told, by method."""

    def look(self, runs: Sequence[Run]) -> None:
        """Warn of what is new.

        Warns:
            BoundBroken: what was measured, its bound, the step, and what to do.
        """
        for run in runs:
            if run.method in self.found:
                continue
            records = read_run(run_folder(self._out, run) / "records.jsonl")
            bounds = RunBounds.of(self._comparison, run, self._layout)
            message = broken_bound(records, bounds, promised_error(parse_method(run.variant), self._layout))
            if message:
                self.found[run.method] = message
                warnings.warn(message, BoundBroken, stacklevel=2)
