"""Tables of text that a terminal and a page show alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from thinwire.report.document import drawn_cell, table
from thinwire.report.terminal import TerminalColumn, TerminalTable, print_fitted

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Headings, and rows of cells.

    Args:
        heads: of the columns; in a terminal over several lines, where they are broken.
        rows: a cell for each column.
        num_names: how many columns, from the left, say what a row is.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1


def print_grid(grid: Grid, console: "Console", title: str = "", bold: frozenset[int] = frozenset()) -> None:
    """Print a grid, the names of the rows ``bold`` so."""
    cells = list(zip(*grid.rows, strict=True)) or [()] * len(grid.heads)
    columns = [
        TerminalColumn(
            header=head, cells=own, is_name=place < grid.num_names, bold=bold if place < grid.num_names else frozenset()
        )
        for place, (head, own) in enumerate(zip(grid.heads, cells, strict=True))
    ]
    print_fitted(TerminalTable(columns=columns, title=title), console)


def html_grid(grid: Grid, drawn: Sequence[str], name: int) -> str:
    """A grid as HTML: the cell at place ``name`` first, in front of it what stands for the row, as HTML."""
    order = (name, *(place for place in range(len(grid.heads)) if place != name))
    lines = [
        f"<tr>{drawn_cell(row[name], each)}"
        + "".join(f"<td>{escape(row[place])}</td>" for place in order[1:])
        + "</tr>"
        for row, each in zip(grid.rows, drawn, strict=True)
    ]
    return table(head_row(grid.heads[place] for place in order), lines)


def head_row(heads: Iterable[str]) -> str:
    """Headings as a row of HTML."""
    return "<tr>" + "".join(f'<th scope="col">{escape(each)}</th>' for each in heads) + "</tr>"
