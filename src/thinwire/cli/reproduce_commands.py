"""``thinwire reproduce``: what it takes."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from thinwire.cli.application import app
from thinwire.cli.comparison_commands import Jobs, JsonFile


@app.command()
def reproduce(
    numbers: Annotated[
        Optional[list[int]], typer.Argument(metavar="[NUMBER]...", help="of the questions [default: all]")  # noqa: UP045
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="at full size, which takes hours")] = False,
    listed: Annotated[bool, typer.Option("--list", help="only say what is asked, and by which commands")] = False,
    out: Annotated[Path, typer.Option(help="folder for the results")] = Path("runs/reproduce"),
    jobs: Jobs = None,
    page: Annotated[Path | None, typer.Option(help="file for the answers as Markdown")] = None,
    json_file: JsonFile = "",
) -> None:
    """Answer the questions that reviewers of the literature asked, each by studies that are run here.

    The 44 questions are answered at reduced size, in minutes, unless --full is given. A verdict is read from what the
    studies wrote into --out. You may interrupt it: the same command goes on where it stopped.

    thinwire reproduce 39 40 --out runs/reproduce
    """
    from thinwire.cli.reproducing import reproduce_as_asked

    reproduce_as_asked(tuple(numbers or ()), "full" if full else "quick", listed, out, jobs, page, json_file)
