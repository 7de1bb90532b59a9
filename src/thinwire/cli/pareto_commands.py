"""``thinwire pareto``: what it takes."""

from pathlib import Path
from typing import Annotated

import typer

from thinwire.cli.application import app
from thinwire.cli.comparison_commands import (
    Average,
    BatchSize,
    Codec,
    CsvFile,
    DataFolder,
    DryRun,
    EvaluateEvery,
    Jobs,
    JsonFile,
    LatexFile,
    Links,
    LogTo,
    NumWorkers,
    Optimizers,
    Overlap,
    Rates,
    Schedule,
    Seeds,
    Sharding,
    Steps,
    StepTimes,
    Target,
    TaskName,
    Tuned,
    TuneSteps,
)  # fmt: skip


@app.command()
def pareto(
    methods: Annotated[
        list[str] | None,
        typer.Argument(help="more methods: NAME or NAME:OPTION=VALUE,..., see: thinwire methods", show_default=False),
    ] = None,
    density: Annotated[str, typer.Option(help="kept shares of the entries")] = "1%,10%",
    bits: Annotated[str, typer.Option(help="bits of a value that is sent; 1: signs and a scale")] = "1,4",
    every: Annotated[str, typer.Option(help="local steps between exchanges")] = "4,16",
    task: TaskName = "digits",
    workers: NumWorkers = 8,
    seeds: Seeds = "0,1,2",
    lrs: Rates = "",
    optimizers: Optimizers = "sgd",
    tune: Tuned = "",
    network: Links = "",
    compute: StepTimes = "",
    overlap: Overlap = None,
    codec: Codec = "",
    target: Target = None,
    steps: Steps = 300,
    tune_steps: TuneSteps = None,
    evaluate_every: EvaluateEvery = None,
    batch_size: BatchSize = None,
    lr_schedule: Schedule = "constant",
    average: Average = "none",
    sharding: Sharding = "random",
    data: DataFolder = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the results [default: runs/TASK-pareto, or a numbered one]")
    ] = None,
    jobs: Jobs = None,
    log: LogTo = None,
    dry_run: DryRun = False,
    json_file: JsonFile = "",
    csv_file: CsvFile = "",
    latex_file: LatexFile = "",
) -> None:
    """Draw bits against the final metric, and compare a combination with its parts and pairs.

    Quantizing, sparsifying and local steps are tried alone, in pairs and all three, with all values of --density,
    --bits and --every, beside dense methods and those that you name. Each is tuned as thinwire compare tunes it. You
    may interrupt it: the same command goes on where it stopped. thinwire report FOLDER shows the tables again.

    thinwire pareto --task digits --density 1%,5% --bits 1,4 --every 8 --target 0.95
    """
    given = locals()
    from thinwire.cli.pareto import pareto_as_asked

    pareto_as_asked(given)
