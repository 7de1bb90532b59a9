"""``thinwire bench`` and ``record``."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from thinwire.bench import BenchInput, BenchRow, Plan, make_tables, measure
from thinwire.cli.application import Interrupted, console, fill, open_lines, say, write_line
from thinwire.cli.comparing import refuse_swapped
from thinwire.cli.progress import Meter
from thinwire.errors import ConfigError, ThinwireError
from thinwire.experiments.recorder import Recorder
from thinwire.experiments.recording import Recording, RecordingPlan
from thinwire.experiments.tasks import load_task
from thinwire.report import print_fitted

_LEGEND = (
    "Medians. memcpy: as often as copying the vector takes on one thread; topk: as often as torch.topk of |x| at that "
    "density (1 % for what has none). entropy: bits an entry of what is coded; bound: log2 C(d,k)/k. extra: memory "
    "taken during a call, in vectors."
)


def record_as_asked(given: Mapping[str, Any]) -> None:
    """Train and keep gradients in a file, as the options of the command say; what there is by then if it ends early.

    Raises:
        ConfigError: something that cannot be, or a file that could not or should not be written.
    """
    name, out = given["task"], given["out"]
    _refuse_out(out)
    refuse_swapped(name, [given["method"]])
    task = load_task(name, data=given["data"])
    defaults = {"lr": task.learning_rates[len(task.learning_rates) // 2], "batch_size": task.batch_size}
    plan = fill(RecordingPlan, given, {key: value for key, value in defaults.items() if given[key] is None})
    recorder = Recorder(plan, task)
    what = f"training {name} with {plan.method}"
    try:
        with Meter() as meter:
            recorder.run(lambda step: meter.show(what, step, plan.steps, "steps"))
    except KeyboardInterrupt:
        raise Interrupted(_save_part(recorder, out)) from None
    except ThinwireError as error:
        raise type(error)(f"{error}; {_save_part(recorder, out)}") from error
    recording = recorder.recording()
    recording.save(out)
    say(f"wrote {out}: {_contents(recording)}, {recorder.num_bytes / 1e6:.1f} MB")


def time_steps(plan: Plan, json_file: str) -> None:
    """Measure what is planned, and print it; what there is by then on Ctrl-C."""
    with open_lines(json_file) as lines, Meter() as meter:
        watcher = _Watcher(plan, meter, lines)
        try:
            measure(plan, watcher)
        except KeyboardInterrupt:
            watcher.interrupted = True
    if json_file != "-":
        for note in watcher.notes:
            say(note)
        for table in make_tables(watcher.rows):
            print_fitted(table, console)
        console.print(_LEGEND, markup=False, highlight=False)
    if watcher.interrupted:
        raise Interrupted(f"{len(watcher.rows)} of {plan.num_rows} rows are measured")


class _Watcher:
    """Keeps rows, writes them as they come, shows how far it is."""

    def __init__(self, plan: Plan, meter: Meter, lines: TextIO | None) -> None:
        self.rows: list[BenchRow] = []
        self.notes: list[str] = []
        self.interrupted = False
        self._meter = meter
        self._total = plan.num_rows
        self._lines = lines

    def announce(self, what: str) -> None:
        """See :class:`thinwire.bench.Listener`."""
        self._meter.show("bench", len(self.rows), self._total, "rows", what)

    def note(self, data: BenchInput) -> None:
        """See :class:`thinwire.bench.Listener`."""
        self.notes.append(f"{data.numel:,} entries, {data.name}: {data.note}")

    def row(self, row: BenchRow) -> None:
        """See :class:`thinwire.bench.Listener`."""
        self.rows.append(row)
        self._meter.show("bench", len(self.rows), self._total, "rows")
        write_line(self._lines, row.to_json())


def _save_part(recorder: Recorder, out: Path) -> str:
    recording = recorder.recording()
    if not recording.gradient.steps:
        return "nothing was recorded yet, and nothing is written"
    recording.save(out)
    return f"{out} holds what was recorded by then: {_contents(recording)}"


def _contents(recording: Recording) -> str:
    kinds = {"gradients": len(recording.gradient.steps), "compressed vectors": len(recording.compressed.steps)}
    counts = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    return f"{counts} of {recording.layout.numel:,} entries"


def _refuse_out(out: Path) -> None:
    """Before anything is trained, refuse a file that could not or should not be written."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file")
    if out.exists():
        try:
            Recording.load(out)
        except ConfigError:
            raise ConfigError(f"--out {out} exists and is no recording; give another file") from None
    there = next(folder for folder in (out.parent, *out.parent.parents) if folder.exists())
    if not there.is_dir():
        raise ConfigError(f"--out {out} cannot be written: {there} is a file; give a path through folders")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out} cannot be written: {there} is not writable; give another folder")
