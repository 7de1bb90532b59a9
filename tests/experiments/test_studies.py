"""Study files say what the command line says, and every run leaves one that makes the same run again."""

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import user_tasks
from command_line import run_cli

from thinwire.cli.studies import KEYS, read_study, study_text
from thinwire.errors import ConfigError
from thinwire.experiments.estimate import estimate
from thinwire.experiments.spec import Comparison

TINY = (
    "--task", "user_tasks:bowl", "--workers", "2", "--steps", "4", "--evaluate-every", "2", "--lrs", "0.1,0.3",
    "--seeds", "0,1", "--codec", "free", "--jobs", "1", "--optimizers", "sgd; sgd:momentum=0.5", "--target", "0.5",
)  # fmt: skip
GIVEN: dict[str, Any] = {
    "methods": ["sgd", 'topk:density=1%,every=2', "own:name=\"a\\b\" ü\N{GRINNING FACE}\x7f"], "task": "digits",
    "workers": 4, "seeds": "0,1,2", "lrs": "0.1,0.001", "optimizers": "sgd; adamw:betas=0.9/0.95", "engine": "simulate",
    "tune": "choco.gamma=0.1,0.2", "network": "100Mbit,20ms;3:8Mbit,1s", "compute": "10ms,jitter=20%", "codec": "2x",
    "overlap": "none", "target": 0.5, "steps": 10, "tune_steps": 5, "evaluate_every": 2, "batch_size": 8,
    "lr_schedule": "drops:at=5,factor=0.1", "average": "none", "sharding": "sorted", "data": "/some/where",
    "clients": 100, "per_round": 10, "participation": "cyclic", "memory_of_absent": "drop:5",
    "local_optimizer": "fresh",
}  # fmt: skip


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert GIVEN.keys() == set(KEYS)
    path = tmp_path / "study.toml"
    path.write_text(study_text(GIVEN), encoding="utf-8")
    assert read_study(path) == GIVEN
    for name in KEYS:
        path.write_text(study_text({name: GIVEN[name]}), encoding="utf-8")
        assert read_study(path) == {name: GIVEN[name]}


def test_a_run_leaves_its_study_and_the_study_makes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    assert run_cli(monkeypatch, "compare", "sgd", "topk:k=1", *TINY, "--out", first) == 0
    study = f"{first}/study.toml"
    assert run_cli(monkeypatch, "compare", "-f", study, "--jobs", "1", "--out", second) == 0
    for name in ("results.jsonl", "tuning.jsonl", "study.toml"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    # What the command line names comes before what the file says.
    arguments = ["compare", "sgd", "-f", study, "--steps", "2", "--seeds", "5", "--jobs", "1", "--out", third]
    assert run_cli(monkeypatch, *arguments) == 0
    changed = json.loads((tmp_path / "third" / "comparison.json").read_text())
    assert (changed["methods"], changed["steps"], changed["seeds"]) == (["sgd"], 2, [5])
    assert (changed["optimizers"], changed["lrs"]) == (["sgd", "sgd:momentum=0.5"], [0.1, 0.3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods = [", "is no TOML"),
        ('method = ["sgd"]', "unknown key 'method'; did you mean methods?"),
        ('steps = "10"', "steps = '10'; it takes a whole number"),
        ("workers = true", "it takes a whole number"),
        ('target = "high"', "it takes a number"),
        ("network = 100", "it takes a text"),
        ('engine = "ray"', "it takes simulate or processes"),
        ("seeds = [[1]]", "a list of texts or numbers"),
        ("seeds = [true]", "a list of texts or numbers"),
    ],
)
def test_a_mistake_in_a_study_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_study(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_study(tmp_path / "none.toml")


def test_no_methods_anywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(monkeypatch, "compare", "--task", "user_tasks:bowl") == 2
    assert "no methods were given; name some, or a study file" in capsys.readouterr().err


def test_a_dry_run_counts_what_would_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["compare", "sgd", "choco", *TINY, "--out", str(out)]
    assert run_cli(monkeypatch, *arguments, "--dry-run") == 0
    shown = {
        line.split()[0]: line.split()[1:4]
        for line in capsys.readouterr().out.splitlines()
        if line[:3] in ("sgd", "cho")
    }
    # Two optimizers with two rates each, and three values of gamma; two seeds; four steps a run.
    assert shown == {"sgd": ["4", "2", "24"], "choco": ["12", "2", "56"]}
    assert not out.exists()
    plain = [part for part in arguments if part not in ("--codec", "free", "--jobs", "1")]
    assert run_cli(monkeypatch, *plain, "--dry-run", "--engine", "processes") == 2


def test_an_estimate_counts_every_step_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least what they are made to take: a step's gradient of each worker, and an evaluation."""
    loss, evaluate = user_tasks.Bowl.loss, user_tasks.Bowl.evaluate

    def busy(seconds: float) -> None:
        begin = time.thread_time()
        while time.thread_time() < begin + seconds:
            pass

    def slow_loss(self: Any, model: Any, indices: Any) -> Any:
        busy(0.002)
        return loss(self, model, indices)

    def slow_evaluate(self: Any, model: Any, split: Any) -> Any:
        busy(0.004)
        return evaluate(self, model, split)

    monkeypatch.setattr(user_tasks.Bowl, "loss", slow_loss)
    monkeypatch.setattr(user_tasks.Bowl, "evaluate", slow_evaluate)
    comparison = Comparison(
        methods=("sgd", "topk:k=1"), task="user_tasks:bowl", workers=3, lrs=(0.1, 0.2), seeds=(0, 1), steps=100,
        tune_steps=50, evaluate_every=10, batch_size=1,
    )  # fmt: skip
    told: list[str] = []
    found = estimate(comparison, user_tasks.bowl(), told.append)
    assert [each.method for each in found] == told == ["sgd", "topk:k=1"]
    for each in found:
        assert (each.num_tuning_runs, each.num_final_runs, each.num_steps) == (2, 2, 2 * 50 + 2 * 100)
        # One evaluation before the first step of each run, then every tenth.
        assert each.seconds >= 300 * 3 * 0.002 + (4 + 30) * 0.004


def test_tables_for_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    exports = (
        "--csv",
        str(tmp_path / "table.csv"),
        "--latex",
        str(tmp_path / "table.tex"),
        "--json",
        str(tmp_path / "j"),
    )
    assert run_cli(monkeypatch, "compare", "sgd", "topk:k=1", *TINY, "--out", out, *exports) == 0
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["sgd", "topk:k=1"]
    for row, line in zip(rows, lines, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in line.items()}
    table = (tmp_path / "table.tex").read_text()
    assert table.count(r" \\") == 3
    assert len({line.count(" & ") for line in table.splitlines() if line.endswith(r" \\")}) == 1
    assert r"\texttt{topk:k=1}" in table
    assert r"$\pm$" in table
    capsys.readouterr()
    assert run_cli(monkeypatch, "report", out, "--csv", "-") == 0
    assert capsys.readouterr().out == (tmp_path / "table.csv").read_text()
    assert run_cli(monkeypatch, "report", out, "--csv", "-", "--latex", "-") == 2
