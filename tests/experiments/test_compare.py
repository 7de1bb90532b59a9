"""A whole comparison on two parameters."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import user_tasks

from thinwire import cli
from thinwire.experiments.compare import Comparer
from thinwire.experiments.crews import LocalCrew
from thinwire.experiments.spec import Comparison
from thinwire.methods import CATALOG

KEYS = [
    "method", "task", "engine", "workers", "seed", "lr", "step", "epoch", "seconds", "message_bytes", "bytes_sent",
    "bytes_received", "loss", "metric", "value",
]  # fmt: skip
PLAIN = Comparison(
    methods=("sgd", "topk:k=1"), task="user_tasks:bowl", workers=2, seeds=(0, 1), lrs=(0.1, 1.0, 1.5), steps=6,
    tune_steps=4, evaluate_every=2, batch_size=1,
)  # fmt: skip


def compare(comparison: Comparison, out: Path, jobs: int = 1) -> dict[str, float]:
    def watch(*_: object) -> None:
        return

    comparer = Comparer(comparison, user_tasks.bowl(), out, LocalCrew(jobs), command="test", watch=watch)
    return comparer.run()


def lines(out: Path, name: str = "results.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def described(out: Path) -> dict[str, Any]:
    return json.loads((out / "comparison.json").read_text())


def best(records: Sequence[dict[str, Any]], method: str) -> float:
    """The rate with the lowest last value."""
    last = {record["lr"]: record["value"] for record in records if record["method"] == method}
    return min((value, lr) for lr, value in last.items() if value is not None)[1]


def test_every_run_is_there_with_the_best_rate(tmp_path: Path) -> None:
    taken = compare(PLAIN, tmp_path)
    tuning, results = lines(tmp_path, "tuning.jsonl"), lines(tmp_path)
    assert taken == {method: best(tuning, method) for method in PLAIN.methods} == described(tmp_path)["taken"]
    assert all(list(record) == KEYS for record in [*tuning, *results])
    wanted = [(method, seed, step) for method in PLAIN.methods for seed in (0, 1) for step in (0, 2, 4, 6)]
    assert [(record["method"], record["seed"], record["step"]) for record in results] == wanted
    assert all(record["lr"] == taken[record["method"]] for record in results)
    assert {record["seed"] for record in tuning}.isdisjoint(PLAIN.seeds)


@pytest.mark.parametrize(("lrs", "up"), [((0.001, 0.003), True), ((1e30, 1e31), False)])
def test_the_search_goes_past_the_end_of_its_grid(lrs: tuple[float, ...], up: bool, tmp_path: Path) -> None:
    taken = compare(replace(PLAIN, methods=("sgd",), lrs=lrs), tmp_path)
    tuning = lines(tmp_path, "tuning.jsonl")
    tried = sorted({record["lr"] for record in tuning})
    assert len(tried) == len(lrs) + 3
    assert tried[-1 if up else 0] == taken["sgd"]
    if not up:
        # Numbers that overflow end a run, and the search survives it.
        assert any(record["value"] is None and record["loss"] is None for record in tuning)


def test_a_target_prefers_the_fewest_steps(tmp_path: Path) -> None:
    # 1.5 is below 0.5 first, 1.0 ends lower on the steep axis.
    target = 0.4
    taken = compare(replace(PLAIN, methods=("sgd",), target=target, tune_steps=12, evaluate_every=1), tmp_path)
    reached: dict[float, tuple[float, float]] = {}
    for record in lines(tmp_path, "tuning.jsonl"):
        steps = reached.get(record["lr"], (float("inf"), 0.0))[0]
        now = record["step"] if record["value"] <= target else float("inf")
        reached[record["lr"]] = (min(steps, now), record["value"])
    assert taken["sgd"] == min(reached, key=lambda lr: (*reached[lr], lr))


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    compare(PLAIN, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/records.jsonl")}
    first = lines(tmp_path)
    compare(replace(PLAIN, methods=("sgd", "qsgd", "topk:k=1")), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [record for record in lines(tmp_path) if record["method"] != "qsgd"] == first
    assert {record["method"] for record in lines(tmp_path)} == {"sgd", "qsgd", "topk:k=1"}


def test_results_do_not_depend_on_the_number_of_jobs(tmp_path: Path) -> None:
    comparison = replace(PLAIN, lrs=(0.1,))
    for jobs in (1, 2):
        compare(comparison, tmp_path / str(jobs), jobs)
    for name in ("results.jsonl", "tuning.jsonl", "comparison.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["thinwire", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_table_of_methods_is_complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(monkeypatch, "methods") == 0
    shown = capsys.readouterr().out
    for row in CATALOG:
        assert row.name in shown
        assert all(option in shown for option in row.options)


def test_a_report_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(replace(PLAIN, lrs=(0.1,)), tmp_path)
    assert run_cli(monkeypatch, "report", str(tmp_path)) == 0
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert "topk:k=1" in capsys.readouterr().out
