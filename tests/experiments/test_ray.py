"""Runs of a comparison as tasks of Ray, on a cluster that begins and ends with the command."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import user_tasks
from command_line import check_refused

from thinwire.errors import WorkerError
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.executors import Executor, LocalExecutor
from thinwire.experiments.ray_executor import RayExecutor
from thinwire.experiments.spec import Comparison

COMMAND = (
    "compare", "sgd", "--task", "user_tasks:bowl", "--workers", "2", "--steps", "4", "--lrs", "0.1", "--codec", "free",
)  # fmt: skip


def test_ray_makes_the_records_that_this_machine_makes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    comparison = Comparison(
        methods=("sgd", "topk:k=1"), task="user_tasks:bowl", workers=2, seeds=(0, 1), lrs=(0.1,), steps=4, tune_steps=4,
        evaluate_every=2, batch_size=1,
    )  # fmt: skip
    executors: dict[str, Executor] = {"ray": RayExecutor(2), "here": LocalExecutor(1)}
    for name, executor in executors.items():
        ComparisonRunner(
            comparison, user_tasks.bowl(), tmp_path / name, executor, command="test", watch=lambda *_: None
        ).run()
    found, wanted = ((tmp_path / name / "results.jsonl").read_bytes() for name in ("ray", "here"))
    assert found == wanted
    broken = replace(comparison, task="user_tasks:broken", steps=40)
    with pytest.raises(WorkerError, match=r"the bowl broke"):
        ComparisonRunner(
            broken, user_tasks.broken(), tmp_path / "broken", RayExecutor(2), command="test", watch=lambda *_: None
        ).run()


def test_what_cannot_be_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [*COMMAND, "--out", str(tmp_path / "out")]
    check_refused(monkeypatch, capsys, [*given, "--on", "spark"], ["--on spark", "ray:ADDRESS"])
    monkeypatch.setitem(sys.modules, "ray", None)
    check_refused(
        monkeypatch,
        capsys,
        [*given, "--on", "ray"],
        ["--on ray needs ray, which is not installed"],
    )
    assert not (tmp_path / "out").exists()
