"""What ``compare --log`` does: hands the records of final runs to a sink as they are written, wherever runs execute."""

from collections.abc import Sequence
from pathlib import Path

from thinwire.experiments.records import Record, is_finished, records_of, run_folder
from thinwire.experiments.spec import Run
from thinwire.files import write_atomically
from thinwire.integrations.sinks import NumberSink, SinkKind, open_sink

_SETTINGS = ("method", "task", "engine", "workers", "seed", "optimizer", "options", "lr", "metric")
"""Fields of a record that are alike in a whole run."""


class RecordLog:
    """One run of the sink for each final run of a comparison, closed when that is finished.

    A mark in the folder of a finished run says that the sink has it, so that a later call of the same comparison does
    not log it again.

    Args:
        kind: which sink.
    """

    def __init__(self, kind: SinkKind) -> None:
        self._kind = kind
        self._sinks: dict[str, NumberSink] = {}
        self._num_logged: dict[str, int] = {}
        self._ended: set[str] = set()

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
            if run.purpose == "final" and run.name not in self._ended:
                self._look(run, out)

    def _look(self, run: Run, out: Path) -> None:
        records, mark = records_of(out, run), run_folder(out, run) / f"logged-{self._kind}"
        is_over = is_finished(records, run)
        if not records:
            return
        if run.name not in self._sinks:
            if is_over and mark.exists():
                self._ended.add(run.name)
                return
            config = {name: records[0][name] for name in _SETTINGS}
            self._sinks[run.name] = open_sink(self._kind, out, run.name, config)
        for record in records[self._num_logged.get(run.name, 0) :]:
            self._sinks[run.name].log(record["step"], _numbers(record))
        self._num_logged[run.name] = max(len(records), self._num_logged.get(run.name, 0))
        if is_over:
            self._sinks.pop(run.name).close()
            write_atomically(mark, b"")
            self._ended.add(run.name)


def _numbers(record: Record) -> dict[str, float]:
    """All that changes from step to step and is a number."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and name not in ("step", *_SETTINGS)
    }
