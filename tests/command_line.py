"""The command line in the process of the test."""

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from thinwire import cli


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of ``thinwire`` with these arguments; what it sets for the whole process is put back."""
    monkeypatch.setattr(sys, "argv", ["thinwire", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def lines_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[dict[str, Any]]:
    """What a command writes with ``--json -``."""
    assert run_cli(monkeypatch, *arguments, "--json", "-") == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def written(out: Path) -> dict[str, int]:
    """When the records of each run below a folder were written, by their path."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(out.rglob("records.jsonl"))}


def check_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], parts: Sequence[str]
) -> None:
    """A mistake is one message, which has all these parts, on standard error, and status 2."""
    assert run_cli(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert shown.err.count("error: ") == 1
    assert "Traceback" not in shown.err
    assert all(part in shown.err for part in parts), shown.err
    assert shown.out == ""
