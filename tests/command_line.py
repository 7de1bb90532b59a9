"""The command line in the process of the test."""

import sys
import warnings

import pytest

from thinwire import cli


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of ``thinwire`` with these arguments; what it sets for the whole process is put back."""
    monkeypatch.setattr(sys, "argv", ["thinwire", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)
