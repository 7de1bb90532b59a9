"""A worker that fails ends the others, and the message is its own."""

import functools
import os
import signal
import time
from pathlib import Path

import process_mains as mains
import pytest
from command_line import run_cli

from thinwire.errors import WorkerError
from thinwire.experiments.launch import _first_failure, launch

DEADLINE_S = 20.0


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def all_end(pids: list[int]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not all(map(ended, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("kill", rf"^worker 1 was killed by {signal.Signals(signal.SIGKILL).name}\. "),
        ("own", r"^worker 1 failed: the cable was cut\n"),
        ("foreign", r"^worker 1 failed: Traceback (.|\n)*ZeroDivisionError: one over nothing\n"),
    ],
)
def test_the_first_failure_is_told_and_nobody_is_left(kind: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=reason) as caught:
        launch(3, functools.partial(mains.fails, str(tmp_path), kind))
    assert "run the same command to go on" in str(caught.value).lower()
    pids = [int((tmp_path / f"pid-{rank}").read_text()) for rank in range(3)]
    assert all_end(pids)


@pytest.mark.parametrize("kind", ["gather", "later gather", "letter"])
def test_a_message_longer_than_agreed_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"worker [012] failed: worker 1 announced a message of 101 bytes, where at"):
        launch(3, functools.partial(mains.long_message, str(tmp_path), kind))


def test_a_report_that_was_not_written_to_its_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "rank-1.partial").write_text('{"time": 1')
    assert str(_first_failure({1: -signal.SIGKILL}, tmp_path)).startswith("worker 1 was killed by SIGKILL. ")


def test_every_worker_learns_of_a_nan_at_the_same_step(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"worker \d failed: NaN or inf in the model of at least one worker"):
        launch(3, functools.partial(mains.nan_gradient, str(tmp_path)))
    found = [mains.saved(tmp_path / f"nan-{rank}.pt") for rank in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == len(mains.NAN_METHODS)
    for step, message in found[0]:
        assert step == 2
        assert "in 'weight', found at step" in message
        assert "Lower the learning rate, clip gradients, or look for bad input data" in message


def test_a_task_that_raises_ends_the_comparison_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "compare sgd --task process_mains:broken --workers 2 --steps 8 --evaluate-every 2 --lrs 0.1 --seeds 0"
    assert run_cli(monkeypatch, *line.split(), "--engine", "processes", "--out", str(tmp_path / "out")) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: worker ")
    assert shown.count("error: ") == 1
    assert "ZeroDivisionError: a bad batch" in shown
    (records,) = tmp_path.glob("out/runs/*/records.jsonl")
    assert len(records.read_text().splitlines()) == 3
