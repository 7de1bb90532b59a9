"""``thinwire speedup`` on two parameters, from the first run to the tables."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import check_refused, lines_of, written

ARGUMENTS = (
    "speedup", "sgd", "topk:k=1", "--task", "user_tasks:pulled", "--workers", "1,2,4", "--target", "0.4",
    "--seeds", "0,1", "--lrs", "0.05,0.2", "--steps", "40,30,30", "--evaluate-every", "1", "--codec", "free",
    "--jobs", "1",
)  # fmt: skip


def test_a_speedup_is_measured_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(monkeypatch, capsys, *ARGUMENTS, "--out", str(tmp_path))
    points = [line for line in lines if line["kind"] == "point"]
    assert [(line["method"], line["workers"]) for line in points] == [
        (method, workers) for method in ("sgd", "topk:k=1") for workers in (1, 2, 4)
    ]
    for line in points:
        folder = tmp_path / f"workers-{line['workers']}"
        described = json.loads((folder / "comparison.json").read_text())
        assert described["steps"] == {1: 40, 2: 30, 4: 30}[line["workers"]]
        assert described["batch_size"] == 1  # of a worker, however many there are
        assert line["lr"] == described["chosen"][line["method"]]["lr"]
        assert line["num_runs"] == 2
        records = [json.loads(text) for text in (folder / "results.jsonl").read_text().splitlines()]
        reached = [
            min(
                record["step"]
                for record in records
                if (record["method"], record["seed"]) == (line["method"], seed) and record["value"] <= 0.4
            )
            for seed in (0, 1)
        ]
        assert line["steps"]["mean"] == sum(reached) / 2

    before = written(tmp_path)
    assert lines_of(monkeypatch, capsys, *ARGUMENTS, "--out", str(tmp_path)) == lines
    assert written(tmp_path) == before

    shutil.rmtree(tmp_path / "workers-2")
    assert lines_of(monkeypatch, capsys, *ARGUMENTS, "--out", str(tmp_path)) == lines
    after = written(tmp_path)
    assert {path for path in before if before[path] != after[path]} == {p for p in before if "workers-2" in p}

    # Fewer numbers of workers are what the command is asked for, whatever else lies there.
    short = lines_of(monkeypatch, capsys, *ARGUMENTS, "--out", str(tmp_path), "--workers", "1,4", "--steps", "40,30")
    assert {line["workers"] for line in short if line["kind"] == "point"} == {1, 4}
    assert written(tmp_path) == after


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--workers", "2,4"), ("--workers 2,4", "over one worker", "1,2,4,8")),
        (("--workers", "1"), ("--workers 1 ", "1,2,4,8")),
        (("--workers", "1,4,2"), ("ascending",)),
        (("--workers", "1,2,2"), ("ascending",)),
        (("--workers", "1,many"), ("--workers 1,many cannot be read",)),
        (("--workers", "1,2,1000"), ("1000",)),
        (("--steps", "40,30"), ("--steps 40,30 has 2 numbers", "each of the 3")),
        (("--evaluate-every", "1,2,3,4"), ("--evaluate-every", "has 4 numbers")),
        (("--tune-steps", "x"), ("--tune-steps x cannot be read",)),
        (("--jobs", "0"), ("--jobs 0",)),
        (("--network", "fast"), ("cannot read the network",)),
        (("--task", "qsgd"), ("is a method, not a task",)),
        (("--target", "nan"), ("target",)),
        (("--json", "/nowhere/lines"), ("--json",)),
    ],
    ids=str,
)
def test_bad_input_is_one_message_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:  # fmt: skip
    check_refused(monkeypatch, capsys, [*ARGUMENTS, "--out", str(tmp_path / "out"), *more], parts)
    assert not (tmp_path / "out").exists()
