"""``thinwire pareto`` on two parameters, from the first run to the tables."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import check_refused, lines_of, written

ARGUMENTS = (
    "pareto", "topk:k=1", "--density", "50%", "--bits", "4", "--every", "2", "--task", "user_tasks:bowl",
    "--workers", "2", "--seeds", "0,1", "--lrs", "0.05,0.2", "--steps", "20", "--codec", "free", "--jobs", "1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "experiments"))


def test_a_family_is_measured_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(monkeypatch, capsys, *ARGUMENTS, "--out", str(tmp_path))
    points = {line["method"]: line for line in lines if line["kind"] == "point"}
    described = json.loads((tmp_path / "comparison.json").read_text())
    assert list(points) == described["methods"]
    assert len(points) == 10  # two dense, seven subsets, and the user's own
    assert points["topk:k=1"]["parts"] == "sparsify"
    records = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    for method, line in points.items():
        ends = [record for record in records if (record["method"], record["step"]) == (method, 20)]
        assert line["message_bytes"] == sum(record["message_bytes"] for record in ends) / 2
        assert line["lr"] == described["chosen"][method]["lr"]

    before = written(tmp_path)
    assert len(before) >= 10 * (2 + 2)
    gone = next(path for path in before if "final-topk-k=1" in path or "final-topk_k=1" in path)
    shutil.rmtree(Path(gone).parent)
    assert lines_of(monkeypatch, capsys, *ARGUMENTS, "--out", str(tmp_path)) == lines
    after = written(tmp_path)
    assert {path for path in before if before[path] != after[path]} == {gone}

    assert lines_of(monkeypatch, capsys, "report", str(tmp_path)) == lines


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--bits", "0"), ("--bits 0 was given", "1 to 16")),
        (("--bits", "four"), ("--bits four cannot be read",)),
        (("--every", "1,2"), ("--every 1,2", "at least 2")),
        (("--density", "200%"), ("200%",)),
        (("--task", "qsgd"), ("is a method, not a task",)),
        (("--target", "nan"), ("target",)),
        (("--json", "/nowhere/lines"), ("--json",)),
        (("--json", "-", "--csv", "-"), ("two tables",)),
    ],
    ids=str,
)
def test_bad_input_is_one_message_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:  # fmt: skip
    check_refused(monkeypatch, capsys, [*ARGUMENTS, "--out", str(tmp_path / "out"), *more], parts)
    assert not (tmp_path / "out").exists()
