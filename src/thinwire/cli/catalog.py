"""``thinwire methods`` and ``tasks``."""

import sys
import textwrap
import warnings
from collections.abc import Sequence
from typing import TextIO

from thinwire.cli.application import console, say, write_line
from thinwire.config import suggest
from thinwire.errors import ConfigError
from thinwire.experiments.tasks import TASKS, TaskRow, all_names, find_task
from thinwire.methods import CATALOG, CatalogEntry, find_row, installed_rows, parse_method
from thinwire.report import plain

_WIDEST = 100
"""Longer lines are hard to read."""


def show_methods(names: Sequence[str], lines: TextIO | None) -> None:
    """Print the catalog, or more of some of its rows.

    Raises:
        ConfigError: an unknown name.
    """
    rows = [find_row(name) for name in names] or [*CATALOG, *installed_rows()]
    for row in rows:
        write_line(lines, row.to_json())
    if lines is sys.stdout:
        return
    for row in rows:
        _show(row, is_alone=bool(names))
    say("Write NAME or NAME:OPTION=VALUE,..., such as  qsparse:density=1%,levels=15,every=8")


def _show(row: CatalogEntry, *, is_alone: bool) -> None:
    console.print(row.name, style="bold", markup=False, highlight=False)
    entries = [("sends", row.summary), ("paper", row.paper)]
    if row.differs_from_paper:
        entries.append(("differs", row.differs_from_paper))
    options = [option.describe() for option in row.options.values()]
    if is_alone:
        entries.append(("made of", repr(parse_method(row.name))))
        entries += [("option", text) for text in options] or [("options", "none")]
    else:
        entries.append(("options", "  ".join(options) or "none"))
    _print(entries)


def show_tasks(names: Sequence[str], lines: TextIO | None) -> None:
    """Print the tasks, or some of them; of one that an installed package brings and that cannot be a UserWarning.

    Raises:
        ConfigError: an unknown name, or one of a package that cannot be imported.
    """
    rows = [_task(name) for name in names] or [*TASKS, *_installed_tasks()]
    for row in rows:
        write_line(lines, row.to_json())
    if lines is sys.stdout:
        return
    for row in rows:
        console.print(row.name, style="bold", markup=False, highlight=False)
        options = "  ".join(option.describe() for option in row.options.values()) or "none"
        entries = [("learns", row.summary), ("data", row.data), ("options", options)]
        if row.gpu:
            entries.append(("needs", f"a GPU for {row.gpu}"))
        _print(entries)
    say("Write NAME or NAME:OPTION=VALUE,..., such as  gpt:layers=2,width=64, or package.module:function")


def _task(name: str) -> TaskRow:
    row = find_task(name)
    if row is None:
        raise ConfigError(f"there is no task {name!r}{suggest(name, all_names())}")
    return row


def _installed_tasks() -> list[TaskRow]:
    found = []
    for name in all_names()[len(TASKS) :]:
        try:
            found.append(_task(name))
        except ConfigError as error:
            warnings.warn(f"{error}; it is left out", stacklevel=2)
    return found


def _print(entries: Sequence[tuple[str, str]]) -> None:
    for head, text in entries:
        wrapped = textwrap.wrap(
            plain(text, console.encoding), min(console.width, _WIDEST), initial_indent=f"  {head:8} ",
            subsequent_indent=" " * 11, break_on_hyphens=False,
        )  # fmt: skip
        say("\n".join(wrapped))
    say("")
