"""``thinwire speedup``: what it takes."""

from pathlib import Path
from typing import Annotated

import typer

from thinwire.cli.application import app
from thinwire.cli.comparison_commands import (
    Average,
    BatchSize,
    Codec,
    DataFolder,
    Jobs,
    JsonFile,
    Links,
    Optimizers,
    Overlap,
    Rates,
    Schedule,
    Seeds,
    StepTimes,
    TaskName,
    Tuned,
)  # fmt: skip

_OF_EACH = "one number, or one for each number of workers"


@app.command()
def speedup(
    methods: Annotated[list[str], typer.Argument(help="NAME or NAME:OPTION=VALUE,..., see: thinwire methods")],
    target: Annotated[float, typer.Option(help="accuracy or loss to reach, the same with any number of workers")],
    task: TaskName = "logreg",
    workers: Annotated[str, typer.Option(help="numbers of workers, ascending, 1 first")] = "1,2,4,8",
    seeds: Seeds = "0,1,2",
    lrs: Rates = "",
    optimizers: Optimizers = "sgd",
    tune: Tuned = "",
    network: Links = "",
    compute: StepTimes = "",
    overlap: Overlap = None,
    codec: Codec = "",
    steps: Annotated[str, typer.Option(help=f"training steps of a final run: {_OF_EACH}")] = "300",
    tune_steps: Annotated[
        str, typer.Option(help="steps for each learning rate tried, one number or several [default: --steps]")
    ] = "",
    evaluate_every: Annotated[
        str, typer.Option(help="steps between evaluations, one number or several [default: a 20th]")
    ] = "",
    batch_size: BatchSize = None,
    lr_schedule: Schedule = "constant",
    average: Average = "none",
    data: DataFolder = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the results [default: runs/TASK-speedup, or a numbered one]")
    ] = None,
    jobs: Jobs = None,
    json_file: JsonFile = "",
) -> None:
    """Measure how steps, seconds and bytes to a target fall with the number of workers, and predict the largest.

    Every number of workers is a comparison of its own, in the folder workers-P, tuned by itself. The batch of a worker
    stays the same, so that P workers see P times the examples in a step. You may interrupt it: the same command goes on
    where it stopped. thinwire report FOLDER shows the table again.

    thinwire speedup sgd mem-sgd:density=1% --task logreg --workers 1,2,4,8 --target 0.03 --steps 2000,1000,600,400
    """
    given = locals()
    from thinwire.cli.speedup import speed_up_as_asked

    speed_up_as_asked(given)
