"""The table for other programs: comma-separated values, and LaTeX."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from thinwire.report.columns import best_methods, columns
from thinwire.report.rows import ResultRow

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "\N{MULTIPLICATION SIGN}": r"$\times$",
    "≥": r"$\geq$", "≤": r"$\leq$", "µ": r"$\mu$", "—": "---",
}  # fmt: skip


def csv_table(rows: Sequence[ResultRow]) -> str:
    """A line of names, then one a method with every number in full; what there is none of is empty.

    Example:
        >>> csv_table([])
        ''
    """
    return csv_lines([row.to_json() for row in rows])


def csv_lines(plain: Sequence[Mapping[str, Any]]) -> str:
    """A line of names, those of the first, then one for each in full.

    Example:
        >>> print(csv_lines([{"method": "topk:k=1,every=8", "lr": None}]), end="")
        method,lr
        "topk:k=1,every=8",
    """
    text = io.StringIO()
    if plain:
        writer = csv.DictWriter(text, fieldnames=list(plain[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
    return text.getvalue()


def latex_table(rows: Sequence[ResultRow]) -> str:
    """A ``tabular`` with booktabs' rules: the columns of the page, the best of each bold.

    Example:
        >>> print(latex_table([]), end="")
        % \\usepackage{booktabs}
        \\begin{tabular}{l}
        \\toprule
        method \\\\
        \\midrule
        \\bottomrule
        \\end{tabular}
    """
    shown = columns(rows)
    best = [best_methods(column, rows) for column in shown]
    head = ["method", *(column.full_header for column in shown)]
    cells = [[row.method, *(column.text(row) for column in shown)] for row in rows]
    bold = {
        (line, 1 + place)
        for line, row in enumerate(rows)
        for place, winners in enumerate(best)
        if row.method in winners
    }
    return latex_lines(head, cells, bold)


def latex_lines(head: Sequence[str], rows: Sequence[Sequence[str]], bold: Collection[tuple[int, int]] = ()) -> str:
    """A ``tabular`` with booktabs' rules, whose first column has names.

    Args:
        head: of the columns.
        rows: the cells of each.
        bold: those cells that are, by row and column.
    """
    lines = [
        r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule",
        " & ".join(map(_escaped, head)) + r" \\", r"\midrule",
    ]  # fmt: skip
    for line, row in enumerate(rows):
        cells = [
            rf"\textbf{{{_escaped(cell)}}}" if (line, place) in bold else _escaped(cell)
            for place, cell in enumerate(row)
        ]
        cells[0] = rf"\texttt{{{_escaped(row[0])}}}"
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
