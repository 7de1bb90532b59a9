"""Tables in a terminal of any width and any character set: names first, and what does not fit beside them below."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_GAP = 2
_LEAST_NAME = 16
_INDENT = "  "
_RULE = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
_PLAIN = {
    "\N{EM DASH}": "-", "\N{EN DASH}": "-", "\N{PLUS-MINUS SIGN}": "+/-", "\N{MULTIPLICATION SIGN}": "x",
    "\N{GREATER-THAN OR EQUAL TO}": ">=", "\N{LESS-THAN OR EQUAL TO}": "<=", "\N{MICRO SIGN}": "u",
    "\N{CHECK MARK}": "*", _RULE: "-", "\N{BOX DRAWINGS HEAVY HORIZONTAL}": "-",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"', "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalColumn:
    """One column.

    Args:
        header: its lines.
        cells: one for each row.
        is_name: says what a row is: on the left, in every part of the table, over several lines if need be.
        bold: the rows whose cells are.
    """

    header: str
    cells: Sequence[str]
    is_name: bool = False
    bold: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalTable:
    """What is printed by :func:`print_fitted`.

    Args:
        columns: names first.
        title: above it; empty for none.
    """

    columns: Sequence[TerminalColumn]
    title: str = ""


def print_fitted(table: TerminalTable, console: "Console") -> None:
    """Print a table that fits the console's width and encoding; nothing is left out."""
    if table.title:
        console.print(_text((plain(table.title, console.encoding), "italic")), highlight=False)
    shown = [
        TerminalColumn(
            header=plain(column.header, console.encoding),
            cells=[plain(cell, console.encoding) for cell in column.cells],
            is_name=column.is_name,
            bold=column.bold,
        )
        for column in table.columns
    ]
    for number, part in enumerate(_parts(shown, console.width)):
        if number:
            console.print()
        for line in _lines(part, plain(_RULE, console.encoding)):
            console.print(line, soft_wrap=True, highlight=False)


def plain(text: str, encoding: str) -> str:
    """The text with other characters for those that the encoding does not have; those that steer a terminal go.

    Example:
        >>> plain("0.9 ± 0.01 ≥ 3×", "ascii"), plain("0.9 ± 0.01", "utf-8")
        ('0.9 +/- 0.01 >= 3x', '0.9 ± 0.01')
    """
    return "".join(_plain_character(each, encoding) for each in text if each.isprintable() or each == "\n")


def _plain_character(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return (
            _PLAIN.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
        )
    return character


def _parts(columns: Sequence[TerminalColumn], width: int) -> list[list[TerminalColumn]]:
    """The table, or if it is too wide several, each with the names on its left."""
    names, rest = ([column for column in columns if column.is_name is kind] for kind in (True, False))
    room = width - sum(_width(column) + _GAP for column in rest)
    least = _least(names)
    if room >= least:
        return [[*_folded(names, room), *rest]]
    widest = max((_width(column) for column in rest), default=0)
    names = _folded(names, max(_LEAST_NAME, min(max(2 * width // 5, least), width - widest - _GAP)))
    parts: list[list[TerminalColumn]] = []
    left = 0
    for column in rest:
        if not parts or left < _width(column) + _GAP:
            parts.append([*names])
            left = width - _natural(names)
        parts[-1].append(column)
        left -= _width(column) + _GAP
    return parts


def _width(column: TerminalColumn) -> int:
    from rich.cells import cell_len

    return max(cell_len(line) for text in (column.header, *column.cells) for line in text.split("\n"))


def _natural(columns: Sequence[TerminalColumn]) -> int:
    """The width of columns side by side."""
    return sum(_width(column) + _GAP for column in columns) - _GAP if columns else 0


def _least(names: Sequence[TerminalColumn]) -> int:
    """The width of columns of which the last is folded and no word is cut."""
    if not names:
        return 0
    *first, last = names
    words = [word for text in (last.header, *last.cells) for word in _words(text)]
    folded = max(_LEAST_NAME, len(_INDENT) + max(map(len, words), default=0))
    return min(_natural(names), _natural(first) + (_GAP if first else 0) + folded)


def _folded(names: Sequence[TerminalColumn], room: int) -> list[TerminalColumn]:
    """The columns in so much room: the last of them is folded, it is the longest."""
    if _natural(names) <= room or not names:
        return list(names)
    *first, last = names
    left = max(_LEAST_NAME if not first else 8, room - _natural(first) - (_GAP if first else 0))
    cells = ["\n".join(fold(cell, left)) for cell in last.cells]
    return [
        *first,
        TerminalColumn(header="\n".join(fold(last.header, left)), cells=cells, is_name=True, bold=last.bold),
    ]


def fold(text: str, width: int) -> list[str]:
    """The text in lines of at most so many characters, broken after a comma, colon or space where that is possible.

    Example:
        >>> fold("signtopk:density=1%,every=8", 20)
        ['signtopk:density=1%,', '  every=8']
    """
    lines = [""]
    for piece in _words(text):
        while True:
            if len(lines[-1]) + len(piece.rstrip()) <= width:
                lines[-1] += piece
                break
            if lines[-1].strip():
                lines.append(_INDENT)
            else:  # a piece that is longer than a line
                room = max(1, width - len(lines[-1]))
                lines[-1] += piece[:room]
                piece = piece[room:]
                lines.append(_INDENT)
    return [line.rstrip() for line in lines if line.strip()] or [""]


def _words(text: str) -> list[str]:
    """What is not broken if that can be helped."""
    return re.findall(r"[^,:| ]*[,:| ]|[^,:| ]+", text)


def _lines(columns: Sequence[TerminalColumn], rule: str) -> list["Text"]:
    widths = [_width(column) for column in columns]
    total = sum(widths) + _GAP * (len(columns) - 1)
    height = max(column.header.count("\n") for column in columns) + 1
    heads = [column.header.split("\n") for column in columns]
    padded = [[""] * (height - len(head)) + head for head in heads]
    lines = [_line(columns, widths, [head[number] for head in padded], None) for number in range(height)]
    lines.append(_text((rule * total, "")))
    for row in range(len(columns[0].cells)):
        cells = [column.cells[row].split("\n") for column in columns]
        for number in range(max(map(len, cells))):
            texts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append(_line(columns, widths, texts, row))
    return lines


def _line(columns: Sequence[TerminalColumn], widths: Sequence[int], texts: Sequence[str], row: int | None) -> "Text":
    from rich.cells import cell_len

    pieces = []
    for place, (column, width, text) in enumerate(zip(columns, widths, texts, strict=True)):
        blank = " " * (width - cell_len(text))
        style = "bold" if row is None or row in column.bold else ""
        pieces += [("" if column.is_name else blank, ""), (text, style), (blank if column.is_name else "", "")]
        pieces.append((" " * _GAP if place + 1 < len(columns) else "", ""))
    line = _text(*pieces)
    line.rstrip()
    return line


def _text(*pieces: tuple[str, str]) -> "Text":
    from rich.text import Text

    # Text, not str: a method string may hold brackets, which rich would take for markup.
    return Text.assemble(*pieces)
