"""The command line: parse, call, print. What a command needs is imported when it is called."""

import codecs
import io
import os
import sys
import warnings
from typing import Annotated

import typer

# Importing a module of commands registers them.
from thinwire.cli import comparison_commands as comparison_commands
from thinwire.cli import measuring_commands as measuring_commands
from thinwire.cli import message_commands as message_commands
from thinwire.cli import pareto_commands as pareto_commands
from thinwire.cli import planning_commands as planning_commands
from thinwire.cli import reproduce_commands as reproduce_commands
from thinwire.cli import shared_memory_commands as shared_memory_commands
from thinwire.cli import speedup_commands as speedup_commands
from thinwire.cli.application import Interrupted, Refused, app
from thinwire.cli.warning import show_warning
from thinwire.errors import ConfigError, ThinwireError
from thinwire.experiments.ending import Terminated
from thinwire.report.terminal import plain

# What shells report of a command that SIGINT or SIGTERM ended.
_INTERRUPTED, _TERMINATED = 130, 143
# click's ClickException, which typer imports or brings along, depending on its version.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    import platform

    print(f"thinwire {_version_of('thinwire')} (torch {_version_of('torch')}, Python {platform.python_version()})")
    raise typer.Exit


def _version_of(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "0+unknown"  # run from its files, without installation


@app.callback()
def _thinwire(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Communication-efficient distributed training of PyTorch models."""


def main() -> None:
    """Entry point: every expected failure is one message on standard error and a status that is not 0."""
    warnings.showwarning = show_warning
    _print_anywhere()
    kept = "what is finished is kept. Run the same command to go on"
    try:
        status = app(prog_name="thinwire", standalone_mode=False)
        sys.stdout.flush()
    except ThinwireError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        # Whoever read the output has seen enough. What is still to be written at the end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:  # a full disk, a terminal that is gone: wherever it was met
        print(f"error: {error}; what is finished is kept", file=sys.stderr)
        status = 1
    except Refused:
        status = 1
    except Interrupted as error:
        kept = str(error)
        status = _INTERRUPTED
    except (typer.Abort, KeyboardInterrupt):
        status = _INTERRUPTED
    except Terminated:
        status = _TERMINATED
    except _ParserError as error:
        error.show()  # type: ignore[attr-defined]
        status = 2
    # Typer turns KeyboardInterrupt into Abort or into the status, depending on its version.
    if status in (_INTERRUPTED, _TERMINATED):
        print(f"interrupted; {kept}", file=sys.stderr)
    sys.exit(status or 0)


def _print_anywhere() -> None:
    """Let what the terminal's character set does not have be printed as what it has."""
    codecs.register_error("thinwire", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="thinwire")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end], "ascii"), error.end
