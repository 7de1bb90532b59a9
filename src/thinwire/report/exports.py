"""The table for other programs: comma-separated values, and LaTeX."""

import csv
import io
from collections.abc import Sequence

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
    text = io.StringIO()
    plain = [row.to_json() for row in rows]
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
    head = ["method", *(" ".join(filter(None, (column.group, column.header))) for column in shown)]
    lines = [
        r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * len(shown)}}}", r"\toprule", _line(head), r"\midrule",
    ]  # fmt: skip
    for row in rows:
        cells = [
            rf"\textbf{{{_escaped(column.text(row))}}}" if row.method in winners else _escaped(column.text(row))
            for column, winners in zip(shown, best, strict=True)
        ]
        lines.append(" & ".join([rf"\texttt{{{_escaped(row.method)}}}", *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
