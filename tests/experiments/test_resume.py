"""An interrupted run gives the uninterrupted run's bits."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import user_tasks

import thinwire
from thinwire.errors import ConfigError
from thinwire.experiments import session as session_module
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.session import Session, read_records
from thinwire.experiments.spec import Comparison, Run
from thinwire.network import Network

STEPS = 12
METHODS = ("sgd", "qsgd", "topk:k=1", "signtopk:k=1,every=3", "qsparse:density=50%,every=5", "mem-sgd:k=0.5")
Make = Callable[[str, Path], Session]


def make(method: str, folder: Path) -> Session:
    comparison = Comparison(
        methods=(method,), task="bowl", workers=3, lrs=(0.1,), network=Network.parse("1Mbit,5ms"), steps=STEPS,
        tune_steps=STEPS, evaluate_every=2, batch_size=2, optimizer="sgd:momentum=0.9",
    )  # fmt: skip
    engine = SimulatedEngine(3, comparison.network)
    return Session(comparison, Run(method, 0.1, 0, "final", STEPS), user_tasks.bowl(), engine, folder)


@pytest.fixture(autouse=True)
def _save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SAVE_AFTER_S", -1.0)


def interrupted(method: str, folder: Path, step: int) -> None:
    """Train until the record of ``step`` is there, then drop everything but the files."""
    for record in make(method, folder).records():
        if record["step"] == step:
            return
    raise AssertionError(f"step {step} was not reached")


def states(session: Session) -> list[list[torch.Tensor]]:
    return [
        [*worker.model.state_dict().values(), *worker.state_dict()["tensors"].values()] for worker in session.workers
    ]


def same(first: Session, second: Session) -> bool:
    return all(
        torch.equal(a, b)
        for mine, others in zip(states(first), states(second), strict=True)
        for a, b in zip(mine, others, strict=True)
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_goes_on_has_the_bits_of_one_that_never_stopped(method: str, tmp_path: Path) -> None:
    whole = make(method, tmp_path / "whole")
    records = list(whole.records())
    interrupted(method, tmp_path / "cut", 4)
    interrupted(method, tmp_path / "cut", 8)
    resumed = make(method, tmp_path / "cut")
    rest = list(resumed.records())
    assert rest[0]["step"] > 4
    assert (tmp_path / "cut" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()
    assert read_records(tmp_path / "cut" / "records.jsonl") == records
    assert same(whole, resumed)
    assert not (tmp_path / "cut" / "checkpoints").exists()


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))


def test_a_half_written_checkpoint_is_not_used(tmp_path: Path) -> None:
    interrupted("topk:k=1", tmp_path, 10)
    older, newer = checkpoints(tmp_path)
    (newer / "engine-0000.pt").unlink()
    first = next(make("topk:k=1", tmp_path).records())
    assert first["step"] == int(older.name.removeprefix("step-")) + 2


@pytest.mark.parametrize("name", ["engine-0000.pt", "rank-0001.pt"])
def test_a_damaged_checkpoint_is_named(name: str, tmp_path: Path) -> None:
    interrupted("topk:k=1", tmp_path, 10)
    damaged = checkpoints(tmp_path)[-1] / name
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"cannot be read .*delete its folder to begin this run anew") as caught:
        list(make("topk:k=1", tmp_path).records())
    assert str(damaged) in str(caught.value)


def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    list(make("sgd", tmp_path / "whole").records())
    interrupted("sgd", tmp_path / "cut", 6)
    with (tmp_path / "cut" / "records.jsonl").open("a") as file:
        file.write('{"method": "sg')
    list(make("sgd", tmp_path / "cut").records())
    assert (tmp_path / "cut" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


def command(out: Path, jobs: int) -> list[str]:
    options: dict[str, Any] = {
        "task": "user_tasks:bowl", "workers": 2, "steps": 400, "evaluate-every": 20, "lrs": "0.1,0.3", "seeds": "0",
        "tune-steps": 200, "out": out, "jobs": jobs,
    }  # fmt: skip
    listed = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "thinwire", "compare", "sgd", "topk:k=1", *listed]


def start(out: Path, jobs: int) -> "subprocess.Popen[bytes]":
    paths = [str(Path(thinwire.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command(out, jobs), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_comparison_that_was_killed_goes_on(tmp_path: Path) -> None:
    with start(tmp_path / "whole", 1) as whole:
        assert whole.wait(120) == 0
    wanted = (tmp_path / "whole" / "results.jsonl").read_bytes()
    assert json.loads(wanted.splitlines()[-1])["step"] == 400
    for jobs in (1, 2):
        out = tmp_path / f"killed-{jobs}"
        with start(out, jobs) as killed:
            deadline = time.monotonic() + 60
            while killed.poll() is None and sum(len(read_records(p)) for p in out.glob("runs/*/records.jsonl")) < 20:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children")
            pool = [int(pid) for pid in children.read_text().split()] if children.exists() else []
            killed.kill()
        # Nobody goes on writing behind the back of the next command.
        while any(Path(f"/proc/{pid}").exists() for pid in pool):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not (out / "results.jsonl").exists() or (out / "results.jsonl").read_bytes() != wanted
        with start(out, jobs) as again:
            assert again.wait(120) == 0
        assert (out / "results.jsonl").read_bytes() == wanted
