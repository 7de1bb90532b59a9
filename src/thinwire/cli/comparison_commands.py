"""``thinwire methods``, ``compare`` and ``report``: what they take."""

import shlex
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from thinwire.cli.application import app, numbers, open_lines
from thinwire.errors import ConfigError

TASKS = ("digits", "fashion-mnist", "stdlib-lm", "logreg")
"""As :func:`thinwire.experiments.tasks.task_names`, which would wait for torch."""
JSON_HELP = "file for a JSON line a row, or - for standard output"


class EngineChoice(StrEnum):
    """How workers run."""

    simulate = "simulate"
    processes = "processes"


class ShardingChoice(StrEnum):
    """How examples are dealt out."""

    random = "random"
    sorted = "sorted"


def complete_tasks(incomplete: str) -> list[str]:
    """The tasks that begin so."""
    return [task for task in TASKS if task.startswith(incomplete)]


@app.command()
def methods(
    names: Annotated[
        list[str] | None, typer.Argument(help="explain these [default: list all]", show_default=False)
    ] = None,
    json_file: Annotated[
        str, typer.Option("--json", help="file for a JSON line a method, or - for standard output")
    ] = "",
) -> None:
    """List the methods: what each sends, its options, its paper."""
    from thinwire.cli.catalog import show_methods

    with open_lines(json_file) as lines:
        show_methods(names or [], lines)


@app.command()
def compare(
    methods: Annotated[list[str], typer.Argument(help="NAME or NAME:OPTION=VALUE,..., see: thinwire methods")],
    task: Annotated[
        str, typer.Option(help=f"one of {', '.join(TASKS)}, or package.module:function", autocompletion=complete_tasks)
    ] = "digits",
    workers: Annotated[int, typer.Option(help="number of workers, each with its share of the data")] = 8,
    seeds: Annotated[str, typer.Option(help="seeds of the final runs, separated by commas")] = "0,1",
    lrs: Annotated[str, typer.Option(help="learning rates to try, separated by commas [default: the task's]")] = "",
    engine: Annotated[
        EngineChoice, typer.Option(help="one process and a virtual clock, or real processes")
    ] = EngineChoice.simulate,
    network: Annotated[
        str, typer.Option(help="simulated links [default: 100Mbit,20ms]; worker 3 apart: 100Mbit,20ms;3:8Mbit,1s")
    ] = "",
    compute: Annotated[
        str, typer.Option(help="simulated time of a step [default: 10ms]; varied: 10ms,jitter=20%,stall=1%x8,slow=3x5")
    ] = "",
    target: Annotated[float | None, typer.Option(help="accuracy or loss to reach [default: what sgd ends at]")] = None,
    steps: Annotated[int, typer.Option(help="training steps of a final run")] = 300,
    tune_steps: Annotated[
        int | None, typer.Option(help="steps for each learning rate tried [default: --steps]")
    ] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="steps between evaluations [default: a 20th]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples per worker and step [default: the task's]")] = None,
    optimizer: Annotated[str, typer.Option(help="of torch.optim: sgd:momentum=0.9, adam:betas=0.9/0.95")] = "sgd",
    lr_schedule: Annotated[
        str, typer.Option(help="how rates fall: inverse:shift=A, bottou:decay=L, drops:at=100/150,factor=0.1")
    ] = "constant",
    average: Annotated[
        str, typer.Option(help="evaluate the average of all steps' models, not the last: uniform, quadratic:shift=A")
    ] = "none",
    sharding: Annotated[
        ShardingChoice, typer.Option(help="deal examples out mixed, or by label")
    ] = ShardingChoice.random,
    data: Annotated[str | None, typer.Option(help="folder with the task's data set, if it needs one")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the results [default: runs/TASK]")] = None,
    jobs: Annotated[int | None, typer.Option(help="runs simulated at the same time [default: the processors]")] = None,
    json_file: Annotated[str, typer.Option("--json", help=JSON_HELP)] = "",
) -> None:
    """Train with several methods, tuned alike, and write a report.

    Every method is tuned over the same learning rates, then run with every seed. You may interrupt it: the same
    command goes on where it stopped. Under torchrun, --engine processes uses the processes that torchrun started.

    thinwire compare sgd topk:density=1% signtopk:density=1%,every=8 --task digits --target 0.95
    """
    from thinwire.cli.comparing import Settings, refuse_swapped, start
    from thinwire.experiments.launch import is_lead
    from thinwire.experiments.spec import Comparison
    from thinwire.experiments.tasks import load_task, reads_files
    from thinwire.machines import Machines
    from thinwire.network import Network

    if not is_lead():
        warnings.simplefilter("ignore")  # the process beside it shows the same
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs} was given; it must be at least 1")
    refuse_swapped(task, methods)
    loaded = load_task(task, data=data)
    rates = numbers(lrs, float, "--lrs") or loaded.learning_rates
    _warn_without_effect(
        engine, network=network or None, compute=compute or None, jobs=jobs, tune_steps=tune_steps,
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
    settings = Settings(
        folder=out or Path("runs") / task.replace(":", "-"),
        command=shlex.join(["thinwire", *sys.argv[1:]]),
        json_file=json_file,
    )
    start(comparison, loaded, settings, jobs)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="folder that thinwire compare wrote, such as runs/digits")],
    json_file: Annotated[str, typer.Option("--json", help=JSON_HELP)] = "",
) -> None:
    """Print the table of a comparison, and write its page again."""
    from thinwire.cli.reporting import show_report

    show_report(folder, json_file)


def _warn_without_effect(
    engine: EngineChoice, *, network: str | None, compute: str | None, jobs: int | None, tune_steps: int | None,
    tuned: bool,
) -> None:  # fmt: skip
    if tune_steps is not None and not tuned:
        warnings.warn("--tune-steps has no effect with a single learning rate, which is not tuned", stacklevel=2)
    if engine is EngineChoice.processes:
        for name, given in (("--network", network), ("--compute", compute), ("--jobs", jobs)):
            if given is not None:
                warnings.warn(f"{name} has no effect with --engine processes", stacklevel=2)
