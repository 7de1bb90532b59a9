"""``thinwire bench`` as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import check_refused, run_cli

from thinwire.bench import BenchRow, plan

QUICK = ("bench", "--quick", "--numel", "20k", "--threads", "1", "--steps", "crc32c,torch-topk")


def test_a_quick_run_of_one_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(monkeypatch, "bench", "--quick", "--threads", "1", "--steps", "ef-sign", "--json", "-") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["step"], row["numel"], row["variant"]) for row in rows] == [
        ("ef-sign", 1_000_000, "buckets of 512"),
        ("ef-sign", 1_000_000, "tensors"),
    ]


def test_table_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    assert run_cli(monkeypatch, *QUICK, "--json", str(out)) == 0
    shown = capsys.readouterr().out
    assert "20,000 entries, heavy: Student-t(3) noise" in shown
    assert "crc32c" in shown
    assert "torch-topk" in shown
    rows = [BenchRow(**json.loads(line)) for line in out.read_text().splitlines()]
    assert [(row.step, row.density) for row in rows] == [("torch-topk", 0.01), ("torch-topk", 0.001), ("crc32c", None)]
    assert all(row.ratio == row.seconds / row.memcpy_seconds for row in rows)


def test_ctrl_c_prints_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = plan._row
    calls = []

    def interrupted(*arguments: Any) -> BenchRow:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(plan, "_row", interrupted)
    out = tmp_path / "rows.jsonl"
    assert run_cli(monkeypatch, *QUICK, "--json", str(out)) == 130
    shown = capsys.readouterr()
    assert "torch-topk" in shown.out
    assert "crc32c" not in shown.out
    assert shown.err.endswith("interrupted; 2 of 3 rows are measured\n")
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--numel", "big"], ["'big' is not a number of entries", "25M"]),
        (["--numel", "10"], ["10 entries were asked for", "1000 to 2000M"]),
        (["--threads", "two"], ["--threads two cannot be read"]),
        (["--threads", "0"], ["0 threads were asked for"]),
        (["--repeats", "0"], ["repeats = 0"]),
        (["--steps", "topk"], ["unknown step 'topk'", "torch-topk"]),
        (["--input", "light"], ["unknown input 'light'", "recorded:FILE"]),
        (["--input", "recorded:none.pt"], ["none.pt cannot be read"]),
        (["--json", "none/rows.jsonl"], ["--json none/rows.jsonl cannot be written"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else None,
)
def test_a_mistake_is_one_message(
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(monkeypatch, capsys, [*QUICK, *arguments], parts)
    assert not list(tmp_path.iterdir())
