"""What is recorded is what was trained: the same gradients, the same vectors into the compressor."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import user_tasks
from command_line import check_refused, run_cli
from torch import Tensor, nn

from thinwire.errors import ConfigError, WorkerError
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.recorder import Recorder
from thinwire.experiments.recording import Recording, RecordingPlan
from thinwire.experiments.session import Session
from thinwire.experiments.sharding import Batches, make_shards
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task, load_task
from thinwire.network import Network
from thinwire.random import Key

PLAN = RecordingPlan(method="sgd", workers=1, steps=6, every=2, lr=0.1, batch_size=16)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The independent computations add up in the order that the recorder uses."""
    torch.set_num_threads(1)


def recorded(plan: RecordingPlan, task: Task) -> Recording:
    recorder = Recorder(plan, task)
    recorder.run(lambda step: None)
    return recorder.recording()


def plain_gradients(plan: RecordingPlan, task: Task) -> list[Tensor]:
    """Those of one worker that trains by itself, at every step."""
    key = Key(plan.seed)
    (shard,) = make_shards(task.labels, 1, "random", key.fold("shards"))
    batches = Batches(shard, plan.batch_size, key.fold("batches", 0))
    model, gradients = task.model(plan.seed), []
    for step in range(plan.steps):
        model.zero_grad()
        task.loss(model, batches.indices(step)).backward()
        grads = [param.grad for param in model.parameters() if param.grad is not None]
        gradients.append(torch.cat([grad.reshape(-1) for grad in grads]))
        with torch.no_grad():
            for param, grad in zip(model.parameters(), grads, strict=True):
                param.sub_(plan.lr * grad)
    return gradients


def test_gradients_are_those_of_the_steps_they_are_labelled_with(digits: Task) -> None:
    recording = recorded(PLAN, digits)
    assert recording.gradient.steps == (2, 4, 6)
    assert recording.gradient.ranks == (0, 0, 0)
    expected = plain_gradients(PLAN, digits)
    for step, vector in zip(recording.gradient.steps, recording.gradient.vectors, strict=True):
        torch.testing.assert_close(vector, expected[step - 1], rtol=1e-5, atol=1e-7)
    assert recording.compressed.steps == ()  # sgd has no memory
    assert recording.complete


def test_what_is_compressed_is_the_displacement_and_what_was_left_out(digits: Task) -> None:
    """For one worker: u = lr * gradient + residual; the residual is u without its largest entries."""
    plan = replace(PLAN, method="topk:k=100", every=1, steps=3)
    recording = recorded(plan, digits)
    residual = torch.zeros(recording.layout.numel)
    for gradient, compressed in zip(recording.gradient.vectors, recording.compressed.vectors, strict=True):
        # The displacement is the difference of two parameters, so that it is as exact as these are.
        torch.testing.assert_close(compressed, plan.lr * gradient + residual, rtol=0, atol=1e-6)
        residual = compressed.clone()
        residual[compressed.abs().topk(100).indices] = 0.0


def test_every_worker_can_be_recorded(digits: Task) -> None:
    plan = replace(PLAN, method="signtopk:density=1%", workers=3)
    one, each = recorded(plan, digits), recorded(replace(plan, all_workers=True), digits)
    assert each.gradient.ranks == each.compressed.ranks == (0, 1, 2) * 3
    assert each.gradient.steps == (2, 2, 2, 4, 4, 4, 6, 6, 6)
    for kind in ("gradient", "compressed"):
        vectors = getattr(each, kind).vectors
        assert torch.equal(vectors[::3], getattr(one, kind).vectors)
        assert not torch.equal(vectors[0], vectors[1])


def test_a_method_that_exchanges_seldom_gives_the_vector_of_its_next_exchange(digits: Task) -> None:
    recording = recorded(replace(PLAN, method="signtopk:density=1%,every=3", steps=7), digits)
    assert recording.gradient.steps == (2, 4, 6)
    assert recording.compressed.steps == (3, 6)


@pytest.mark.parametrize("method", ["qsparse:density=5%", "powersgd"])
def test_the_run_is_that_of_a_comparison(method: str, digits: Task, tmp_path: Path) -> None:
    """Listening changes nothing: the same parameters as a session's, bit for bit."""
    plan = replace(PLAN, method=method, workers=2)
    recorder = Recorder(plan, digits)
    recorder.run(lambda step: None)
    assert recorder.recording().compressed.steps == (2, 4, 6)
    comparison = Comparison(
        methods=(plan.method,), task="digits", workers=2, lrs=(plan.lr,), steps=6, tune_steps=6, evaluate_every=6,
        batch_size=plan.batch_size,
    )  # fmt: skip
    run = Run(plan.method, comparison.settings(plan.method)[0], plan.seed, "final", plan.steps)
    session = Session(comparison, run, digits, SimulatedEngine(2, Network()), tmp_path)
    session.train(0, plan.steps)
    for mine, theirs in zip(recorder._workers, session.workers, strict=True):
        for param, other in zip(mine.model.parameters(), theirs.model.parameters(), strict=True):
            assert torch.equal(param, other)


def test_a_file_holds_everything_and_loads_without_pickled_classes(digits: Task, tmp_path: Path) -> None:
    recording = recorded(replace(PLAN, method="ef-signsgd"), digits)
    path = tmp_path / "new" / "gradients.pt"
    recording.save(path)
    content = torch.load(path, weights_only=True)
    assert (content["task"], content["plan"]["method"], content["complete"]) == ("digits", "ef-signsgd", True)
    assert content["steps"]["gradient"] == [2, 4, 6]
    assert sum(torch.Size(shape).numel() for shape in content["shapes"]) == content["vectors"]["gradient"].shape[1]
    assert len(content["names"]) == len(content["shapes"])
    assert {"thinwire", "torch", "python"} == content["made_by"].keys()
    loaded = Recording.load(path)
    assert loaded.plan == recording.plan
    assert loaded.layout == recording.layout
    for kind in ("gradient", "compressed"):
        assert torch.equal(getattr(loaded, kind).vectors, getattr(recording, kind).vectors)
        assert getattr(loaded, kind).steps == getattr(recording, kind).steps
    assert [file.name for file in path.parent.iterdir()] == ["gradients.pt"]


def test_an_unfinished_recording_keeps_its_rows_and_says_so(digits: Task, tmp_path: Path) -> None:
    recorder = Recorder(replace(PLAN, method="topk:k=5"), digits)

    def stop(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorder.run(stop)
    part, whole = recorder.recording(), recorded(replace(PLAN, method="topk:k=5"), digits)
    assert not part.complete
    assert part.gradient.steps == part.compressed.steps == (2, 4)
    assert torch.equal(part.gradient.vectors, whole.gradient.vectors[:2])
    part.save(tmp_path / "part.pt")
    whole.save(tmp_path / "whole.pt")
    assert (tmp_path / "part.pt").stat().st_size < 0.7 * (tmp_path / "whole.pt").stat().st_size
    assert not Recording.load(tmp_path / "part.pt").complete


def test_a_task_that_raises_is_named() -> None:
    recorder = Recorder(replace(PLAN, steps=100, batch_size=1), user_tasks.broken())
    with pytest.raises(WorkerError, match=r"the task broken raised ZeroDivisionError: the bowl broke .* at step \d+"):
        recorder.run(lambda step: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "workers = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"every": 7}, "keeps nothing"),
        ({"lr": -1.0}, "above 0"),
        ({"batch_size": 0}, "batch size = 0"),
    ],
)
def test_a_plan_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAN, **change)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "another"}, tmp_path / "another.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("text")
    (tmp_path / "empty.pt").touch()
    for name in ("another.pt", "list.pt", "text.pt", "empty.pt"):
        with pytest.raises(ConfigError, match=r"not a file of thinwire record"):
            Recording.load(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        Recording.load(tmp_path / "none.pt")


TINY = ("user_tasks:bowl", "--workers", "2", "--steps", "4", "--every", "2", "--method", "topk:k=1")


def test_the_command_writes_a_file_and_writes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(monkeypatch, "record", *TINY) == 0
    assert "wrote gradients.pt: 2 gradients and 2 compressed vectors of 2 entries" in capsys.readouterr().out
    assert run_cli(monkeypatch, "record", *TINY) == 0
    assert Recording.load(tmp_path / "gradients.pt").task == "bowl"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["digit"], ['there is no task "digit"']),
        ([*TINY, "--method", "topkk"], ["unknown method 'topkk'", "did you mean topk?"]),
        ([*TINY, "--every", "5"], ["every = 5 of 4 steps keeps nothing"]),
        ([*TINY, "--out", "."], ["--out . is a folder"]),
        ([*TINY, "--out", "mine.txt"], ["--out mine.txt exists and is no recording"]),
        ([*TINY, "--out", "mine.txt/x.pt"], ["mine.txt is a file"]),
        ([*TINY, "--workers", "65"], ["64 examples cannot be dealt out to 65 workers"]),
        ([*TINY, "--optimizer", "sdg"], ["did you mean sgd?"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if value else None,
)
def test_a_mistake_is_one_message_and_nothing_is_written(
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    check_refused(monkeypatch, capsys, ["record", *arguments], parts)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "kept"


@pytest.fixture
def _heeds_ctrl_c() -> Iterator[None]:
    """Tests that run in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_ctrl_c")
@pytest.mark.parametrize("number", [3, 11])
def test_ctrl_c_keeps_what_is_recorded(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    calls, loss = [0], user_tasks.Bowl.loss

    def interrupted(self: user_tasks.Bowl, model: nn.Module, indices: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == number:
            signal.raise_signal(signal.SIGINT)
        return loss(self, model, indices)

    monkeypatch.setattr(user_tasks.Bowl, "loss", interrupted)
    assert run_cli(monkeypatch, "record", *TINY, "--steps", "1000") == 130
    errors = capsys.readouterr().err
    if number == 3:  # of two workers, so in the second step
        assert errors.endswith("interrupted; nothing was recorded yet, and nothing is written\n")
        assert not list(tmp_path.iterdir())
    else:
        assert "interrupted; gradients.pt holds what was recorded by then: 2 gradients and 2 compressed" in errors
        assert not Recording.load(tmp_path / "gradients.pt").complete


@pytest.mark.parametrize("kind", [str, Path])
def test_any_path_is_written_and_read(kind: type, digits: Task, tmp_path: Path) -> None:
    recording = recorded(PLAN, digits)
    recording.save(kind(tmp_path / "new" / "gradients.pt"))
    assert Recording.load(kind(tmp_path / "new" / "gradients.pt")).plan == PLAN


def test_a_full_disk_leaves_the_recording_that_was_there(
    digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = recorded(PLAN, digits)
    recording.save(tmp_path / "gradients.pt")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(ConfigError, match=r"gradients.pt cannot be written \(No space left on device\)"):
            recording.save(tmp_path / "gradients.pt")
    assert [each.name for each in tmp_path.iterdir()] == ["gradients.pt"]
    assert Recording.load(tmp_path / "gradients.pt").plan == PLAN


@pytest.mark.parametrize("name", ["workers", "steps", "every", "batch_size"])
def test_a_count_that_nobody_could_mean_is_refused(name: str) -> None:
    change: dict[str, Any] = {name: 10**400}
    with pytest.raises(ConfigError, match=f"{name.replace('_', ' ')} = a number of more than 20 digits was given"):
        replace(PLAN, **change)
