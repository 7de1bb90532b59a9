"""Ctrl-C, and a run that raises, end everything within seconds, with one message."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import user_tasks
from commands import alive, children, poll, start

from thinwire.errors import WorkerError
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.executors import LocalExecutor
from thinwire.experiments.records import read_records
from thinwire.experiments.spec import Comparison

LONG = "1000000"
MESSAGE = "interrupted; what is finished is kept. Run the same command to go on\n"
SIMULATE, PROCESSES = ("--jobs", "2"), ("--engine", "processes")
WITHIN_S = 15.0


@pytest.mark.parametrize(
    ("options", "number", "status"),
    [(SIMULATE, signal.SIGINT, 130), (PROCESSES, signal.SIGINT, 130), (PROCESSES, signal.SIGTERM, 143)],
    ids=["simulate", "processes", "processes-terminated"],
)
def test_an_interrupted_command_ends_with_one_message(
    options: tuple[str, ...], number: signal.Signals, status: int, tmp_path: Path
) -> None:
    command = ["compare", "sgd", "--task", "user_tasks:bowl", "--workers", "2", "--seeds", "0,1", "--lrs", "0.1"]
    command += ["--steps", LONG, "--evaluate-every", "50", "--out", str(tmp_path), *options]
    runs = 2 if options is SIMULATE else 1
    with start(command) as process:
        poll(lambda: process.poll() is not None or len(list(tmp_path.glob("runs/*/records.jsonl"))) >= runs)
        started = children(process.pid)
        if number is signal.SIGTERM:
            process.send_signal(number)
        elif options is PROCESSES:
            os.killpg(process.pid, number)
        else:
            # What a terminal sends to all, the simulating processes ignore: the command itself must end them.
            for child in started:
                os.kill(child, number)
            process.send_signal(number)
        _, errors = process.communicate(timeout=WITHIN_S)
    # Before it stands how far the command was.
    assert errors.endswith(f"\n{MESSAGE}")
    assert all(line.startswith("training: ") for line in errors.removesuffix(MESSAGE).splitlines())
    assert process.returncode == status
    poll(lambda: not any(map(alive, started)), WITHIN_S)


def test_studies_that_are_ended_stop_what_runs_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("gate")
    with start([], ("studies_main",)) as process:
        poll(lambda: process.poll() is not None or len(list(tmp_path.glob("begun-*"))) == 2)
        started = [int(path.name.removeprefix("begun-")) for path in tmp_path.glob("begun-*")]
        assert all(map(alive, started))
        process.send_signal(signal.SIGTERM)
        told, errors = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 143, errors
    assert not any(map(alive, started))
    assert told.splitlines() == ["0 3 ", "1 3 some/short"]
    assert done(tmp_path) == {"short"}
    before = (tmp_path / "out/quick/some/short/output.txt").stat().st_mtime_ns

    Path("gate").unlink()
    Path("gate").write_text("open")
    with start([], ("studies_main",)) as process:
        told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert told.splitlines()[0] == "1 3 "
    assert done(tmp_path) == {"short", "one", "other"}
    assert (tmp_path / "out/quick/some/short/output.txt").stat().st_mtime_ns == before


def done(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("out/quick/some/*/done.json")}


def test_a_run_that_raises_ends_the_others(tmp_path: Path) -> None:
    # The low rate never gets where the task breaks, and would run for an hour.
    comparison = Comparison(
        methods=("sgd",), task="user_tasks:broken", workers=2, lrs=(1e-9, 0.1), steps=6, tune_steps=10_000_000,
        evaluate_every=2, batch_size=1,
    )  # fmt: skip
    for jobs, lrs in ((1, (0.1, 0.2)), (2, (1e-9, 0.1))):
        given = replace(comparison, lrs=lrs)
        comparer = ComparisonRunner(
            given, user_tasks.broken(), tmp_path / str(jobs), LocalExecutor(jobs), command="test", watch=lambda *_: None
        )
        with pytest.raises(WorkerError) as caught:
            comparer.run()
        message = str(caught.value)
        assert message.startswith("the run ")
        assert "-lr0.1-" in message
        assert "ZeroDivisionError: the bowl broke (" in message
        assert "user_tasks.py:" in message
        assert "What is finished is kept" in message
        assert not multiprocessing.active_children()
        (records,) = (tmp_path / str(jobs)).glob("runs/*-lr0.1-*/records.jsonl")
        assert read_records(records)
