"""The application that commands register with, and what they share. Nothing here waits for torch."""

import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Literal, TextIO, TypeVar

import typer
from rich.console import Console

from thinwire.errors import ConfigError

T = TypeVar("T")
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# A pipe or a log has no width of its own, unless COLUMNS says so; 120 columns hold the result table.
console = Console(width=None if sys.stdout.isatty() else shutil.get_terminal_size((120, 25)).columns)


class Interrupted(Exception):
    """Ctrl-C ended a command that has put what it had in order; the message says what there is."""


class Refused(Exception):
    """A command has shown all there is to say, and ends with status 1."""


def say(text: str) -> None:
    """Print a line of plain text, which no terminal's width cuts."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def fill(cls: Callable[..., T], given: Mapping[str, Any], changed: Mapping[str, Any]) -> T:
    """An object of a dataclass from the options of a command that have the names of its fields.

    Args:
        cls: the dataclass.
        given: what the command was given, by parameter; what the class has no field for is left out.
        changed: fields that are not as they were given.
    """
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in given.items() if name in names}
    return cls(**{**plain, **changed})


def write_line(lines: TextIO | None, value: Mapping[str, Any]) -> None:
    """A line of JSON to where ``--json`` goes, if that was given."""
    if lines is not None:
        print(json.dumps(value), file=lines, flush=True)


def numbers(text: str, kind: Callable[[str], T], option: str) -> tuple[T, ...]:
    """Numbers separated by commas.

    Raises:
        ConfigError: one of them cannot be read.
    """
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{option} {text} cannot be read; give numbers separated by commas") from None


def open_lines(name: str, mode: Literal["w", "a"] = "w") -> contextlib.AbstractContextManager[TextIO | None]:
    """Where ``--json`` goes: a file, standard output for ``-``, nowhere if it was not given.

    Args:
        name: what was given.
        mode: ``a`` to see, before long work, whether it can be written.

    Raises:
        ConfigError: the file cannot be written.
    """
    if name in ("", "-"):
        return contextlib.nullcontext(sys.stdout if name else None)
    try:
        return open(name, mode)
    except OSError as error:
        raise ConfigError(f"--json {name} cannot be written ({error.strerror}); give another file, or -") from error
