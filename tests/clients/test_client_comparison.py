"""A whole comparison with clients, by the command: files, tables, pages, studies, and going on after a stop."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import lines_of, run_cli, written

from thinwire.experiments.clients.round_log import read_rounds
from thinwire.experiments.records import read_records
from thinwire.report import load, summarise
from thinwire.report.prose import setup
from thinwire.report.side_by_side import settings_of

OPTIONS = (
    "--task", "digits", "--clients", "30", "--per-round", "5", "--memory-of-absent", "drop:4", "--local-optimizer",
    "fresh", "--steps", "8", "--evaluate-every", "4", "--lrs", "0.05,0.1,0.2", "--seeds", "0,1", "--batch-size", "8",
    "--sharding", "dirichlet:alpha=0.3", "--codec", "free", "--jobs", "1",
)  # fmt: skip


def test_a_comparison_says_who_took_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ("compare", "sgd", "topk:density=5%,every=2", *OPTIONS, "--out", str(out))
    rows = lines_of(monkeypatch, capsys, *command)
    assert [row["method"] for row in rows] == ["sgd", "topk:density=5%,every=2"]
    records = read_records(out / "results.jsonl")
    assert {(record["clients"], record["workers"]) for record in records} == {(30, 5)}
    for folder in sorted((out / "runs").glob("final-*")):
        rounds = read_rounds(folder)
        assert [len(each["clients"]) for each in rounds] == [5] * (4 if "topk" in folder.name else 8)
        assert all(0 <= client < 30 for each in rounds for client in each["clients"])
    about: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    assert about["clients"]["participation"] == {"type": "Uniform", "per_round": 5}
    assert about["links"] == []
    data = load(out)
    assert summarise(data)
    said = (
        "5 workers a round (30 clients, uniform participation, memories of the absent given up after 4 rounds, state "
        "of their optimizers not kept)"
    )
    assert said in setup(data)
    assert settings_of(data)["clients"].startswith("30 clients")
    assert "30 clients" in (out / "report.html").read_text(encoding="utf-8")
    before = written(out)
    assert run_cli(monkeypatch, "compare", "-f", str(out / "study.toml"), "--out", str(out)) == 0
    assert written(out) == before
    assert 'memory_of_absent = "drop:4"' in (out / "study.toml").read_text()
    assert "workers" not in (out / "study.toml").read_text()


def test_other_clients_are_another_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("compare", "sgd", "--task", "digits", "--steps", "2", "--lrs", "0.1", "--seeds", "0", "--codec", "free")
    out = ("--out", str(tmp_path), "--clients", "30", "--per-round", "5")
    assert run_cli(monkeypatch, *command, *out) == 0
    assert run_cli(monkeypatch, *command, *out, "--participation", "cyclic") == 2
    assert "holds another comparison (clients" in capsys.readouterr().err


def test_a_dry_run_times_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(monkeypatch, "compare", "topk:density=5%,every=2", *OPTIONS, "--dry-run") == 0
    assert "topk" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
