"""``thinwire bench`` and ``record``."""

import json
import os
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from thinwire.bench import Input, Plan, Row, make_tables, measure, read_numel
from thinwire.cli.application import Interrupted, app, console, numbers, open_lines
from thinwire.errors import ConfigError, ThinwireError
from thinwire.experiments.recording import Recorder, Recording, RecordingPlan
from thinwire.experiments.tasks import load_task, task_names

_LEGEND = (
    "Medians. memcpy: as often as copying the vector takes on one thread; topk: as often as torch.topk of |x| at that "
    "density (1 % for what has none). entropy: bits an entry of what is coded; bound: log2 C(d,k)/k. extra: memory "
    "taken during a call, in vectors."
)


@app.command()
def record(
    task: Annotated[str, typer.Argument(help=f"one of {', '.join(task_names())}, or package.module:function")],
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("gradients.pt"),
    method: Annotated[str, typer.Option(help="what the workers train with, see: thinwire methods")] = "topk:density=1%",
    workers: Annotated[int, typer.Option(help="number of simulated workers")] = 4,
    steps: Annotated[int, typer.Option(help="training steps")] = 200,
    every: Annotated[int, typer.Option(help="steps from one recorded step to the next")] = 20,
    lr: Annotated[float | None, typer.Option(help="learning rate [default: in the middle of the task's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples per worker and step [default: the task's]")] = None,
    optimizer: Annotated[str, typer.Option(help="of torch.optim: sgd:momentum=0.9, adam:betas=0.9/0.95")] = "sgd",
    seed: Annotated[int, typer.Option(help="of model, batches and exchanges")] = 0,
    all_workers: Annotated[bool, typer.Option("--all-workers", help="record every worker, not only worker 0")] = False,
    data: Annotated[str | None, typer.Option(help="folder of the task's data set")] = None,
) -> None:
    """Train a task and keep gradients, for: thinwire bench --input recorded:FILE.

    The file also holds what the method compressed (gradient or displacement plus residual), if it has a memory. It
    is a plain dict, which torch.load reads with weights_only=True. Ctrl-C keeps what is recorded by then.
    """
    _refuse_out(out)
    loaded = load_task(task, data=data)
    plan = RecordingPlan(
        method=method,
        workers=workers,
        steps=steps,
        every=every,
        lr=loaded.learning_rates[len(loaded.learning_rates) // 2] if lr is None else lr,
        batch_size=loaded.batch_size if batch_size is None else batch_size,
        optimizer=optimizer,
        seed=seed,
        all_workers=all_workers,
    )
    recorder = Recorder(plan, loaded)
    try:
        with _progress() as progress:
            shown = progress.add_task(f"training {task} with {method}", total=steps, unit="steps")
            recorder.run(lambda step: progress.update(shown, completed=step))
    except KeyboardInterrupt:
        raise Interrupted(_save_part(recorder, out)) from None
    except ThinwireError as error:
        raise type(error)(f"{error}; {_save_part(recorder, out)}") from error
    recording = recorder.recording()
    recording.save(out)
    console.print(
        f"wrote {out}: {_contents(recording)}, {recorder.num_bytes / 1e6:.1f} MB",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def bench(
    numel: Annotated[str, typer.Option(help="lengths; 25M is ResNet-50, 124M GPT-2 [default: 1M,25M]")] = "",
    threads: Annotated[str, typer.Option(help="numbers of threads")] = "1,2",
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="heavy, or recorded:FILE; may be repeated [default: heavy]")
    ] = None,
    steps: Annotated[
        str, typer.Option(help="only these, separated by commas; operators: each compressor; an unknown one lists all")
    ] = "",
    repeats: Annotated[int | None, typer.Option(help="calls of each [default: 30, 11 or 5, by length]")] = None,
    json_file: Annotated[str, typer.Option("--json", help="file for a JSON line a row; - is standard output")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="1M, few repeats: that it works, not what it costs")] = False,
) -> None:
    """Time kernels and whole steps against memcpy, torch.topk and the entropy, all in one run.

    Close other programs first. Ctrl-C prints what is measured by then.
    """
    plan = Plan(
        numels=numbers(numel or ("1M" if quick else "1M,25M"), read_numel, "--numel"),
        threads=numbers(threads, int, "--threads"),
        inputs=tuple(inputs or ["heavy"]),
        steps=tuple(step.strip() for step in steps.split(",") if step.strip()),
        repeats=3 if quick and repeats is None else repeats,
        warmups=1 if quick else 3,
        sweep_num_bytes=1 << 24 if quick else 1 << 27,
    )
    with open_lines(json_file) as lines, _progress() as progress:
        watcher = _Watcher(plan, progress, lines)
        try:
            measure(plan, watcher)
        except KeyboardInterrupt:
            watcher.interrupted = True
    if json_file != "-":
        for note in watcher.notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        for table in make_tables(watcher.rows):
            console.print(table)
        console.print(_LEGEND, markup=False, highlight=False)
    if watcher.interrupted:
        raise Interrupted(f"{len(watcher.rows)} of {plan.num_rows} rows are measured")


class _Watcher:
    """Keeps rows, writes them as they come, shows how far it is."""

    def __init__(self, plan: Plan, progress: Progress, lines: TextIO | None) -> None:
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.interrupted = False
        self._progress = progress
        self._shown = progress.add_task("bench", total=plan.num_rows, unit="rows")
        self._lines = lines

    def announce(self, what: str) -> None:
        """See :class:`thinwire.bench.Listener`."""
        self._progress.update(self._shown, description=what)

    def note(self, data: Input) -> None:
        """See :class:`thinwire.bench.Listener`."""
        self.notes.append(f"{data.numel:,} entries, {data.name}: {data.note}")

    def row(self, row: Row) -> None:
        """See :class:`thinwire.bench.Listener`."""
        self.rows.append(row)
        self._progress.advance(self._shown)
        if self._lines is not None:
            print(json.dumps(row.to_json()), file=self._lines, flush=True)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    # Standard output is for what a command finds.
    return Progress(*columns, console=Console(stderr=True))


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
            raise ConfigError(f"--out {out} is there, and is no recording; give another file") from None
    there = next(folder for folder in (out.parent, *out.parent.parents) if folder.exists())
    if not there.is_dir():
        raise ConfigError(f"--out {out} cannot be written: {there} is a file; give a path through folders")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out} cannot be written: {there} must not be written; give another folder")
