"""How warnings look on the command line."""

import sys
from typing import TextIO


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line on standard error, in place of :func:`warnings.showwarning`."""
    print(f"warning: {message}", file=sys.stderr)
