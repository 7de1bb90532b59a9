"""An interrupted run gives the uninterrupted run's bits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import user_tasks
from commands import alive, children, poll, start

from thinwire.experiments import session as session_module
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.executors import LocalExecutor
from thinwire.experiments.records import is_finished, read_records
from thinwire.experiments.session import Session
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.network import Network

STEPS = 12
METHODS = ("sgd", "qsgd", "topk:k=1", "signtopk:k=1,every=3", "qsparse:density=50%,every=5", "mem-sgd:k=0.5")


def make(
    method: str, folder: Path, lr: float = 0.1, evaluate_every: int = 2, task: user_tasks.Bowl | None = None
) -> Session:
    comparison = Comparison(
        methods=(method,), task="bowl", workers=3, lrs=(0.1,), network=Network.parse("1Mbit,5ms"), steps=STEPS,
        tune_steps=STEPS, evaluate_every=evaluate_every, batch_size=2, optimizers=("sgd:momentum=0.9",),
    )  # fmt: skip
    engine = SimulatedEngine(3, comparison.network)
    return Session(
        comparison,
        Run(method, Setting("sgd:momentum=0.9", "", lr), 0, "final", STEPS),
        task or user_tasks.bowl(),
        engine,
        folder,
    )


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
@pytest.mark.parametrize("count", [1, 2])
def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_without_it(count: int, name: str, tmp_path: Path) -> None:
    list(make("topk:k=1", tmp_path / "whole").records())
    interrupted("topk:k=1", tmp_path / "cut", 10)
    for folder in checkpoints(tmp_path / "cut")[-count:]:
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.warns(UserWarning, match=rf"{name} cannot be read \(.*\); the run goes on from what it saved before"):
        records = list(make("topk:k=1", tmp_path / "cut").records())
    # From step 6, which is whole, or from the beginning.
    assert records[0]["step"] == (8 if count == 1 else 0)
    assert (tmp_path / "cut" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["step-best", "step-7", "step-00000099-old"])
def test_a_folder_of_somebody_elses_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    interrupted("topk:k=1", tmp_path, 10)
    newest = checkpoints(tmp_path)[-1]
    shutil.copytree(newest, newest.with_name(name))
    assert next(make("topk:k=1", tmp_path).records())["step"] == int(newest.name.removeprefix("step-")) + 2


def test_what_was_saved_after_the_step_that_all_go_on_from_no_longer_counts(tmp_path: Path) -> None:
    interrupted("topk:k=1", tmp_path, 10)
    older, newer = checkpoints(tmp_path)
    (newer / "rank-0001.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be read"):
        next(make("topk:k=1", tmp_path).records())
    # Its other files are of steps that are made again, and were not to be mixed with the new ones.
    assert not (newer / "engine-0000.pt").exists()
    assert (older / "engine-0000.pt").exists()


def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    list(make("sgd", tmp_path / "whole").records())
    interrupted("sgd", tmp_path / "cut", 6)
    with (tmp_path / "cut" / "records.jsonl").open("a") as file:
        file.write('{"method": "sg')
    list(make("sgd", tmp_path / "cut").records())
    assert (tmp_path / "cut" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an uninterrupted comparison leaves."""
    return finish(tmp_path_factory.mktemp("whole"))


COMPARISON = Comparison(
    methods=("sgd", "topk:k=1"), task="user_tasks:bowl", workers=2, lrs=(0.1, 0.3), steps=400, tune_steps=200,
    network=Network.parse("100Mbit,20ms"), evaluate_every=20, batch_size=1,
)  # fmt: skip


def finish(out: Path) -> bytes:
    def watch(*_: object) -> None:
        return

    ComparisonRunner(COMPARISON, user_tasks.bowl(), out, LocalExecutor(1), command="test", watch=watch).run()
    return (out / "results.jsonl").read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_comparison_that_was_killed_goes_on(jobs: int, whole: bytes, tmp_path: Path) -> None:
    assert json.loads(whole.splitlines()[-1])["step"] == 400
    options: dict[str, Any] = {
        "task": "user_tasks:bowl", "workers": 2, "steps": 400, "evaluate-every": 20, "lrs": "0.1,0.3", "seeds": "0",
        "tune-steps": 200, "out": tmp_path, "jobs": jobs, "codec": "free", "overlap": "none",
    }  # fmt: skip
    listed = [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def records() -> int:
        return sum(len(read_records(path)) for path in tmp_path.glob("runs/*/records.jsonl"))

    with start(["compare", "sgd", "topk:k=1", *listed]) as killed:
        poll(lambda: killed.poll() is not None or records() >= 20)
        pool = children(killed.pid)
        killed.kill()
        killed.communicate()
    # Nobody goes on writing behind the back of the next command.
    poll(lambda: not any(map(alive, pool)))
    assert not (tmp_path / "results.jsonl").exists() or (tmp_path / "results.jsonl").read_bytes() != whole
    assert finish(tmp_path) == whole


def test_a_run_that_diverges_tells_the_steps_it_made(tmp_path: Path) -> None:
    # Numbers overflow after a few steps; the next evaluation would be at the tenth.
    session = make("sgd", tmp_path, lr=1e12, evaluate_every=10)
    first, last = session.records()
    made = session.workers[0].num_steps
    assert 0 < made < 10
    assert (first["step"], last["step"], last["value"]) == (0, made, None)
    assert last["message_bytes"] == sum(worker.message_bytes for worker in session.workers) / 3
    assert last["epoch"] == made * 2 * 3 / 64


def test_a_value_that_is_no_number_ends_the_run_as_it_does_after_an_interruption(tmp_path: Path) -> None:
    session = make("sgd", tmp_path, task=user_tasks.blind())
    records = list(session.records())
    assert records[-1]["value"] is None
    assert records[-1]["step"] < STEPS
    assert all(record["value"] is not None for record in records[:-1])
    assert is_finished(records, session.run)
    assert not (tmp_path / "checkpoints").exists()
