"""``thinwire hogwild``: what it takes."""

from enum import StrEnum
from typing import Annotated

import typer

from thinwire.cli.application import app
from thinwire.cli.comparison_commands import JSON_HELP

SHARED_VARIANTS = ("mutex", "rw-lock", "spin-lock", "compare-and-swap", "fetch-and-add", "racy")
SHARED_TASKS = ("sparse", "gspar", "logreg", "breast-cancer", "digits")
"""As :mod:`thinwire.shared_memory` has them, which would wait for torch."""
DENSITIES = "100%,10%,1%"

MethodChoice = StrEnum("MethodChoice", [("SGD", "sgd"), ("MEM_SGD", "mem-sgd"), ("GSPAR", "gspar")])
SelectChoice = StrEnum("SelectChoice", [("TOP_K", "top-k"), ("RANDOM", "random")])
LossChoice = StrEnum("LossChoice", ["logistic", "hinge"])


@app.command()
def hogwild(
    variants: Annotated[
        str, typer.Option(help=f"how threads add, separated by commas, of {', '.join(SHARED_VARIANTS)} [default: all]")
    ] = "",
    threads: Annotated[str, typer.Option(help="numbers of threads, separated by commas")] = "1,2",
    density: Annotated[
        str, typer.Option(help=f"shares of an example's entries that are not zero [default: {DENSITIES}]")
    ] = "",
    numel: Annotated[int | None, typer.Option(help="coordinates of the vector [default: the task's, 2000]")] = None,
    examples: Annotated[int | None, typer.Option(help="number of examples [default: the task's, 2000]")] = None,
    task: Annotated[str, typer.Option(help=f"data: one of {', '.join(SHARED_TASKS)}")] = "sparse",
    method: Annotated[
        MethodChoice,
        typer.Option(help="plain SGD; SGD with a memory, of which a few coordinates are sent; or sparsified gradients"),
    ] = MethodChoice.SGD,
    select: Annotated[SelectChoice, typer.Option(help="which coordinates mem-sgd sends")] = SelectChoice.TOP_K,
    keep: Annotated[str, typer.Option(help="share of all coordinates that an update of mem-sgd or gspar has")] = "1%",
    loss: Annotated[LossChoice, typer.Option(help="logistic regression, or a support vector machine")] = (
        LossChoice.logistic
    ),
    updates: Annotated[int, typer.Option(help="stochastic steps of a run, all threads together")] = 20_000,
    lr: Annotated[float, typer.Option(help="learning rate; after each of four rounds nine tenths of it")] = 0.5,
    repeat: Annotated[int, typer.Option(help="runs of each, in turn with the others")] = 3,
    additions: Annotated[
        int, typer.Option(help="additions of the contest that counts lost ones exactly; 0 for none")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(help="seed of data and draws")] = 0,
    pinned: Annotated[bool, typer.Option("--pin", help="keep each thread on a processor of its own (Linux)")] = False,
    json_file: Annotated[str, typer.Option("--json", help=JSON_HELP)] = "",
) -> None:
    """Train with threads on one vector: which lock, or none, is fastest, and what is lost.

    Close other programs first; more threads than processors measure the system's scheduler. Ctrl-C prints what was
    measured until then.

    thinwire hogwild --method mem-sgd --keep 1% --density 100% --threads 1,2
    """
    given = {**locals(), "density": density or (DENSITIES if task == "sparse" else "")}
    from thinwire.cli.shared_memory import train_as_asked

    train_as_asked(given)
