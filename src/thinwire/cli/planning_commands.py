"""``thinwire plan``: what it takes."""

from pathlib import Path
from typing import Annotated

import typer

from thinwire.cli.application import app
from thinwire.cli.comparison_commands import DataFolder, MethodNames, TaskName
from thinwire.cli.measuring_commands import Like


@app.command()
def plan(
    methods: MethodNames = None,
    model: Annotated[
        str, typer.Option(help="package.module:function, which returns a model and its loss, a function of the model")
    ] = "",
    task: TaskName = "",
    numel: Annotated[str, typer.Option(help="without a model: length of the gradient, as 5M or 500k")] = "",
    like: Annotated[
        Like | None, typer.Option(help="without a model: take the gradient's shapes from this one [default: resnet50]")
    ] = None,
    compute: Annotated[
        str, typer.Option(help="time of a step without communication, as 50ms [default: measured; needs a model]")
    ] = "",
    optimizer: Annotated[str, typer.Option(help="of torch.optim, with which the step is made")] = "sgd",
    accuracy_loss: Annotated[
        float | None,
        typer.Option(help="what may be given up: error with --gradients, else points of the task's metric"),
    ] = None,
    gradients: Annotated[
        Path | None, typer.Option(help="a file of thinwire record, on which the error of messages is measured")
    ] = None,
    trial_steps: Annotated[int, typer.Option(help="steps of a run of the task's trial, each rate and 3 seeds")] = 200,
    data: DataFolder = None,
    limit: Annotated[float, typer.Option(help="seconds of a single measurement")] = 3.0,
    json_file: Annotated[
        str, typer.Option("--json", help="file for a JSON line a method, or - for standard output")
    ] = "",
) -> None:
    """Predict the step of every method on this link, and say which to train with.

    Start it with torchrun, as the training itself, on the same machines and the same link. Link, step and compression
    are measured apart; no method is run on the link. Without METHODS a family of well-known ones is predicted.

    torchrun --nproc-per-node 2 -m thinwire plan --task digits
    """
    given = locals()
    from thinwire.cli.planning import plan_as_asked

    plan_as_asked(given)
