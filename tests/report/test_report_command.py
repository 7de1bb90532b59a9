"""``thinwire report``: the page first, then the table, or lines in place of it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from thinwire import report
from thinwire.cli.application import app
from thinwire.errors import ConfigError


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_page_is_there_before_the_table(write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write()

    def reader_leaves(rows: object, console: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(report, "print_table", reader_leaves)
    with pytest.raises(BrokenPipeError):
        run(str(folder.path))
    assert "</html>" in (folder.path / "report.html").read_text()


def test_lines_in_place_of_the_table_or_beside_it(write: Callable[..., Any]) -> None:
    folder = write(diverges={"signsgd": (0, 1)})
    rows = [json.loads(line) for line in run(str(folder.path), "--json", "-").splitlines()]
    assert [row["method"] for row in rows] == folder.comparison["methods"]
    assert (rows[-1]["num_diverged"], rows[-1]["final_value"], rows[0]["metric"]) == (2, None, "accuracy")
    lines = folder.path / "rows.jsonl"
    shown = run(str(folder.path), "--json", str(lines))
    assert [json.loads(line) for line in lines.read_text().splitlines()] == rows
    assert shown.endswith("report.html\n")
    assert "signsgd" in shown


def test_a_file_in_place_of_the_folder_is_refused(write: Callable[..., Any]) -> None:
    folder = write()
    with pytest.raises(ConfigError, match=r"results\.jsonl is a file; give the folder .* such as .*run$"):
        run(str(folder.path / "results.jsonl"))
