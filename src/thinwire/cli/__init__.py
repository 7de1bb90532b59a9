"""The command line: parse, call, print."""

import sys
import warnings

import typer

# Importing a module of commands registers them.
from thinwire.cli import comparing as comparing
from thinwire.cli import frontier as frontier
from thinwire.cli import inspecting as inspecting
from thinwire.cli import measuring as measuring
from thinwire.cli import probing as probing
from thinwire.cli.application import Interrupted, Refused, app
from thinwire.cli.warning import show_warning
from thinwire.errors import ConfigError, ThinwireError
from thinwire.experiments.launch import Terminated

# What shells report of a command that SIGINT or SIGTERM ended.
_INTERRUPTED, _TERMINATED = 130, 143
# click's ClickException, which typer imports or brings along, depending on its version.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback()
def _thinwire() -> None:
    """Communication-efficient distributed training of PyTorch models."""


def main() -> None:
    """Entry point: every expected failure is one message on standard error and a status that is not 0."""
    warnings.showwarning = show_warning
    kept = "what is finished is kept. Run the same command to go on"
    try:
        status = app(standalone_mode=False)
    except ThinwireError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2 if isinstance(error, ConfigError) else 1
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
