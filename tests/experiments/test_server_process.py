"""A comparison of processes in which one method needs a server beside its workers, and another does not."""

import json
from pathlib import Path

from commands import TORCHRUN, start

COMPARED = (
    "compare", "sgd", "local-sgd-async:every=2", "--task", "user_tasks:pulled", "--workers", "2", "--steps", "8",
    "--evaluate-every", "4", "--lrs", "0.1", "--seeds", "0", "--engine", "processes",
)  # fmt: skip


def test_both_are_trained_and_recorded(tmp_path: Path) -> None:
    with start((*COMPARED, "--out", str(tmp_path))) as command:
        _, errors = command.communicate(timeout=240)
    assert command.returncode == 0, errors
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    for method in ("sgd", "local-sgd-async:every=2"):
        own = [record for record in records if record["method"] == method]
        assert [record["step"] for record in own] == [0, 4, 8]
        assert all(record["workers"] == 2 for record in own)
        assert own[-1]["value"] < own[0]["value"]
        assert own[-1]["bytes_sent"] > own[1]["bytes_sent"] > 0


def test_torchrun_must_start_the_server_too(tmp_path: Path) -> None:
    with start((*COMPARED, "--out", str(tmp_path)), TORCHRUN) as command:
        _, errors = command.communicate(timeout=240)
    assert command.returncode != 0
    assert "--workers 2 was given, and a server for the asynchronous methods, but 2 processes were started" in errors
