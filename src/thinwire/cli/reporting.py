"""``thinwire report``, and how a comparison ends; knows nothing of torch."""

import sys
from pathlib import Path

from thinwire import report
from thinwire.cli.application import console, open_lines, say, write_line
from thinwire.errors import ConfigError


def show_report(folder: Path, json_file: str = "") -> None:
    """Write the page, then print the table; with ``--json -``, lines in place of it.

    Raises:
        ConfigError: the folder holds no comparison.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; give the folder that thinwire compare wrote, such as {folder.parent}")
    data = report.load(folder)
    rows = report.summarise(data)
    # The page first: the table may be cut short by whoever reads it.
    page = folder / "report.html"
    report.write_page(data, page)
    with open_lines(json_file) as lines:
        for row in rows:
            write_line(lines, row.to_json())
        if lines is sys.stdout:
            return
    report.print_table(rows, console)
    say(f"wrote {folder / 'results.jsonl'} and {page}")
