"""``thinwire methods``, ``compare`` and ``report``."""

import functools
import shlex
import sys
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch.distributed as dist
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from thinwire import report
from thinwire.cli.application import app, console, numbers
from thinwire.cli.warning import show_warning
from thinwire.distributed import Transport
from thinwire.errors import ConfigError
from thinwire.experiments.compare import Comparer, progress_of
from thinwire.experiments.crews import Crew, LocalCrew, ProcessCrew, default_jobs
from thinwire.experiments.launch import is_lead, join, launch
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task, load_task, reads_files, task_names
from thinwire.machines import Machines
from thinwire.methods import CATALOG, parse_method
from thinwire.network import Network
from thinwire.worker import needs_server


class EngineChoice(StrEnum):
    """How workers run."""

    simulate = "simulate"
    processes = "processes"


class ShardingChoice(StrEnum):
    """How examples are dealt out."""

    random = "random"
    sorted = "sorted"


@app.command()
def methods() -> None:
    """List the methods: what each sends, its paper, its options with their defaults."""
    table = Table(show_lines=True)
    for column in ("method", "what a worker sends", "options (default first)", "paper"):
        table.add_column(column, overflow="fold")
    for row in CATALOG:
        options = "\n".join(option.describe() for option in row.options.values()) or "none"
        departs = f"\nDeparts: {row.departs}." if row.departs else ""
        cells = (row.name, f"{row.summary}.{departs}", options, row.paper)
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    console.print("Write NAME or NAME:OPTION=VALUE,..., such as  qsparse:density=1%,levels=15,every=8", markup=False)


@app.command()
def compare(
    methods: Annotated[list[str], typer.Argument(help="method strings, see: thinwire methods")],
    task: Annotated[str, typer.Option(help=f"one of {', '.join(task_names())}, or package.module:function")] = "digits",
    workers: Annotated[int, typer.Option(help="number of workers")] = 8,
    seeds: Annotated[str, typer.Option(help="seeds of the final runs, separated by commas")] = "0,1",
    lrs: Annotated[str, typer.Option(help="learning rates to search for every method [default: the task's]")] = "",
    engine: Annotated[
        EngineChoice, typer.Option(help="one process and a virtual clock, or real processes")
    ] = EngineChoice.simulate,
    network: Annotated[
        str, typer.Option(help="simulated BANDWIDTH,LATENCY of links: 100Mbit,20ms,up=10Mbit;3:8Mbit,1s")
    ] = "",
    compute: Annotated[
        str, typer.Option(help="simulated time of a step [default: 10ms]: 10ms,jitter=20%,stall=1%x8,slow=3x5")
    ] = "",
    target: Annotated[
        float | None, typer.Option(help="value whose cost is reported [default: what sgd ends at]")
    ] = None,
    steps: Annotated[int, typer.Option(help="steps of a final run")] = 300,
    tune_steps: Annotated[int | None, typer.Option(help="steps of a run of the search [default: as final]")] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="steps between evaluations [default: a 20th]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples per worker and step [default: the task's]")] = None,
    optimizer: Annotated[str, typer.Option(help="of torch.optim: sgd:momentum=0.9, adam:betas=0.9/0.95")] = "sgd",
    lr_schedule: Annotated[
        str, typer.Option(help="of every run: inverse:shift=A, bottou:decay=L, drops:at=100/150,factor=0.1")
    ] = "constant",
    average: Annotated[
        str, typer.Option(help="of the iterates, evaluated instead of the last: uniform, quadratic:shift=A")
    ] = "none",
    sharding: Annotated[ShardingChoice, typer.Option(help="how examples are dealt out")] = ShardingChoice.random,
    data: Annotated[str | None, typer.Option(help="folder of the task's data set")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for results [default: runs/TASK]")] = None,
    jobs: Annotated[int | None, typer.Option(help="runs simulated at the same time [default: the processors]")] = None,
    port: Annotated[int | None, typer.Option(help="without effect: local processes meet in a private folder")] = None,
) -> None:
    """Compare methods: tune each, run each with every seed, write results.jsonl and report.html.

    Safe to interrupt: the same command goes on where it stopped. Under torchrun, --engine processes joins the
    processes that torchrun started.
    """
    if not is_lead():
        warnings.simplefilter("ignore")  # the process beside it shows the same
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs} was given; it must be at least 1")
    loaded = load_task(task, data=data)
    rates = numbers(lrs, float, "--lrs") or loaded.learning_rates
    _warn_without_effect(
        engine, network=network or None, compute=compute or None, port=port, jobs=jobs, tune_steps=tune_steps,
        tuned=len(rates) > 1,
    )  # fmt: skip
    comparison = Comparison(
        methods=tuple(methods),
        task=task,
        data=data if reads_files(task) else None,
        workers=workers,
        seeds=numbers(seeds, int, "--seeds"),
        lrs=tuple(sorted(rates)),
        engine=engine.value,
        network=Network.parse(network or "100Mbit,20ms"),
        compute=Machines.parse(compute or "10ms"),
        steps=steps,
        tune_steps=steps if tune_steps is None else tune_steps,
        evaluate_every=max(1, steps // 20) if evaluate_every is None else evaluate_every,
        batch_size=loaded.batch_size if batch_size is None else batch_size,
        optimizer=optimizer,
        sharding=sharding.value,
        target=target,
        lr_schedule=lr_schedule,
        average=average,
    )
    folder = out or Path("runs") / task.replace(":", "-")
    command = shlex.join(["thinwire", *sys.argv[1:]])
    if engine is EngineChoice.simulate:
        _compare(comparison, loaded, folder, command, LocalCrew(default_jobs() if jobs is None else jobs))
    elif dist.is_torchelastic_launched():
        join(functools.partial(_compare_in_process, comparison, loaded, folder, command))
    else:
        # Everything that can be refused is refused here, once, before any process starts.
        Comparer(comparison, loaded, folder, LocalCrew(1), command=command, watch=lambda *_: None)
        del loaded  # every process loads its own; one here would only take memory
        launch(_num_processes(comparison), functools.partial(_compare_in_child, comparison, folder, command))


@app.command("report")
def make_report(folder: Annotated[Path, typer.Argument(help="folder of a comparison")]) -> None:
    """Print the table and write report.html again from the files of a comparison."""
    _report(folder)


def _compare_in_child(comparison: Comparison, folder: Path, command: str, transport: Transport) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the command has loaded the task too, and shown its warnings
        task = load_task(comparison.task, data=comparison.data)
    if transport.rank == 0:
        warnings.showwarning = show_warning
    else:
        warnings.simplefilter("ignore")
    _compare_in_process(comparison, task, folder, command, transport)


def _compare_in_process(comparison: Comparison, task: Task, folder: Path, command: str, transport: Transport) -> None:
    if transport.size != _num_processes(comparison):
        server = (
            ", and a server for the asynchronous methods" if _num_processes(comparison) > comparison.workers else ""
        )
        raise ConfigError(
            f"--workers {comparison.workers} was given{server}, but {transport.size} processes were started"
        )
    _compare(comparison, task, folder, command, ProcessCrew(transport, comparison.workers))


def _num_processes(comparison: Comparison) -> int:
    """One for each worker, and one for the server if a method has one."""
    return comparison.workers + any(needs_server(parse_method(method)) for method in comparison.methods)


def _compare(comparison: Comparison, task: Task, folder: Path, command: str, crew: Crew) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not crew.is_main) as progress:
        comparer = Comparer(comparison, task, folder, crew, command=command, watch=functools.partial(_show, progress))
        taken = comparer.run()
    if crew.is_main:
        for method, lr in taken.items():
            console.print(f"learning rate {lr:g} taken for {method}", markup=False, highlight=False)
        _report(folder)


def _show(progress: Progress, what: str, runs: Sequence[Run], out: Path) -> None:
    done, total = progress_of(runs, out)
    shown = next((task for task in progress.tasks if task.description == what), None)
    task_id = shown.id if shown else progress.add_task(what)
    progress.update(task_id, completed=done, total=total)


def _report(folder: Path) -> None:
    data = report.load(folder)
    report.print_table(report.summarise(data), console)
    page = folder / "report.html"
    report.write_page(data, page)
    console.print(f"wrote {folder / 'results.jsonl'} and {page}", markup=False, highlight=False, soft_wrap=True)


def _warn_without_effect(
    engine: EngineChoice, *, network: str | None, compute: str | None, port: int | None, jobs: int | None,
    tune_steps: int | None, tuned: bool,
) -> None:  # fmt: skip
    if tune_steps is not None and not tuned:
        warnings.warn("--tune-steps has no effect with a single learning rate, which is not tuned", stacklevel=2)
    if engine is EngineChoice.processes:
        for name, given in (("--network", network), ("--compute", compute), ("--jobs", jobs)):
            if given is not None:
                warnings.warn(f"{name} has no effect with --engine processes", stacklevel=2)
    if port is not None:
        warnings.warn("--port has no effect: local processes meet in a private folder, without a port", stacklevel=2)
