"""What ``compare --log`` does: hands the records of final runs to a sink as they are written, wherever runs execute."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinwire.experiments.executors import run_folder
from thinwire.experiments.records import read_run
from thinwire.experiments.spec import Run
from thinwire.integrations.sinks import NumberSink, SinkKind, open_sink

_SETTINGS = ("method", "task", "engine", "workers", "seed", "optimizer", "options", "lr", "metric")
"""Fields of a record that are alike in a whole run."""


class RecordLog:
    """One run of the sink for each final run of a comparison.

    Args:
        kind: which sink.
    """

    def __init__(self, kind: SinkKind) -> None:
        self._kind = kind
        self._sinks: dict[str, NumberSink] = {}
        self._num_logged: dict[str, int] = {}

    def __enter__(self) -> "RecordLog":
        return self

    def __exit__(self, *error: object) -> None:
        for sink in self._sinks.values():
            sink.close()

    def look(self, runs: Sequence[Run], out: Path) -> None:
        """Hand over what is new.

        Raises:
            ConfigError: the sink refuses.
        """
        for run in runs:
            if run.purpose != "final":
                continue
            records = read_run(run_folder(out, run) / "records.jsonl")
            if records and run.name not in self._sinks:
                config = {name: records[0][name] for name in _SETTINGS}
                self._sinks[run.name] = open_sink(self._kind, out, run.name, config)
            for record in records[self._num_logged.get(run.name, 0) :]:
                self._sinks[run.name].log(record["step"], _numbers(record))
            self._num_logged[run.name] = max(len(records), self._num_logged.get(run.name, 0))


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """All that changes from step to step and is a number."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and name not in ("step", *_SETTINGS)
    }
