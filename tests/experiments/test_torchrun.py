"""Under torchrun and with processes of its own, a comparison is the same."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from command_line import run_cli
from commands import PATHS, TORCHRUN, start

PLAIN = [
    "compare", "sgd", "topk:k=1", "--task", "user_tasks:warned", "--engine", "processes", "--workers", "2",
    "--steps", "4", "--evaluate-every", "2", "--lrs", "0.1", "--tune-steps", "3", "--seeds", "0",
]  # fmt: skip


def records(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "computing_s")} for line in lines]


def test_torchrun_gives_the_records_of_the_own_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with start([*PLAIN, "--out", str(tmp_path / "torchrun")], TORCHRUN) as torchrun:
        monkeypatch.setenv("PYTHONPATH", ":".join(PATHS))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert run_cli(monkeypatch, *PLAIN, "--out", str(tmp_path / "own")) == 0
        _, errors = torchrun.communicate(timeout=60)
        assert torchrun.returncode == 0, errors
    assert records(tmp_path / "own") == records(tmp_path / "torchrun")
    assert len(records(tmp_path / "own")) == 6
    # Every warning is told once, however many processes there are.
    for shown in (errors, capfd.readouterr().err):
        assert shown.count("warning: the bowl is hot") == 1
        assert shown.count("warning: --tune-steps has no effect") == 1
        assert shown.count("the bowl is hot") == 1
