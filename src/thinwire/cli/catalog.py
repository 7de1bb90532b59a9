"""``thinwire methods``."""

import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

from thinwire.cli.application import console, say, write_line
from thinwire.methods import CATALOG, CatalogEntry, find_row, parse_method
from thinwire.report import plain

_WIDEST = 100
"""Longer lines are hard to read."""


def show_methods(names: Sequence[str], lines: TextIO | None) -> None:
    """Print the catalog, or more of some of its rows.

    Raises:
        ConfigError: an unknown name.
    """
    rows = [find_row(name) for name in names] or list(CATALOG)
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
    for head, text in entries:
        wrapped = textwrap.wrap(
            plain(text, console.encoding), min(console.width, _WIDEST), initial_indent=f"  {head:8} ",
            subsequent_indent=" " * 11, break_on_hyphens=False,
        )  # fmt: skip
        say("\n".join(wrapped))
    say("")
