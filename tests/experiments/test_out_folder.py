"""The folder of a comparison: one writer, nothing lost on a full disk, mended where two have written."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import run_cli
from commands import TORCHRUN, start

from thinwire import cli, files
from thinwire.experiments import session
from thinwire.files import FolderLock

TINY = (
    "compare", "sgd", "topk:k=1", "--task", "user_tasks:bowl", "--workers", "2", "--steps", "8", "--evaluate-every",
    "2", "--lrs", "0.1", "--seeds", "0",
)  # fmt: skip
HERE = (*TINY, "--codec", "free", "--jobs", "1", "--out", "out")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(shown: str) -> str:
    """The one message on standard error."""
    assert "Traceback" not in shown
    assert shown.count("error: ") == 1, shown
    return shown[shown.index("error: ") :]


def test_a_second_comparison_is_refused_at_its_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = FolderLock("out")
    lock.acquire()
    before = sorted(os.listdir("out"))
    assert run_cli(monkeypatch, *HERE) == 2
    said = refusal(capsys.readouterr().err)
    assert f"--out out is being written to by process {os.getpid()} on " in said
    assert "give another --out" in said
    assert sorted(os.listdir("out")) == before
    lock.release()
    assert run_cli(monkeypatch, *HERE) == 0
    assert FolderLock("out").holder() == ""


def test_processes_are_refused_before_they_are_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = FolderLock("out")
    lock.acquire()
    starts = "torch.distributed.launcher.api.elastic_launch"
    monkeypatch.setattr(starts, lambda *_: pytest.fail("processes were started"))
    assert run_cli(monkeypatch, *TINY, "--engine", "processes", "--out", "out") == 2
    assert "--out out is being written to by process" in refusal(capsys.readouterr().err)
    lock.release()


def test_torchrun_without_processes_is_refused_in_all_but_one(tmp_path: Path) -> None:
    with start([*TINY, "--steps", "20000", "--out", str(tmp_path / "out")], TORCHRUN) as torchrun:
        _, errors = torchrun.communicate(timeout=100)
    assert torchrun.returncode != 0
    assert "is being written to by process" in errors
    assert "one comparison with --engine processes" in errors
    assert not (tmp_path / "out" / "report.html").exists()


def results() -> dict[str, bytes]:
    return {name: Path("out", name).read_bytes() for name in ("results.jsonl", "tuning.jsonl")}


def doubled(path: Path) -> None:
    """As two writers leave it: every line twice."""
    path.write_text("".join(line + line for line in path.read_text().splitlines(keepends=True)))


def cut(path: Path) -> None:
    """Lines that ran into each other."""
    text = path.read_text()
    path.write_text(text[: len(text) // 2] + text)


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00" + path.read_bytes())


def no_records(path: Path) -> None:
    path.write_text("[]\n7\n" + path.read_text())


@pytest.mark.parametrize("damage", [doubled, cut, not_text, no_records])
@pytest.mark.parametrize("pattern", ["results.jsonl", "tuning.jsonl", "runs/*/records.jsonl"])
def test_what_two_writers_damaged_is_mended_by_the_same_command(
    pattern: str, damage: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    options = ("--lrs", "0.1,0.3")
    assert run_cli(monkeypatch, *HERE, *options) == 0
    whole = results()
    assert whole["tuning.jsonl"]
    damaged = list(Path("out").glob(pattern))
    assert damaged
    for path in damaged:
        damage(path)
    capsys.readouterr()
    assert run_cli(monkeypatch, *HERE, *options) == 0, capsys.readouterr().err
    assert results() == whole


def test_records_that_do_not_reach_the_checkpoint_begin_the_run_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli(monkeypatch, *HERE) == 0
    whole = results()
    shutil.rmtree("out")
    monkeypatch.setattr(session, "SAVE_AFTER_S", -1.0)
    real = files.append_text

    def stop(path: Path, text: str) -> None:
        real(path, text)
        if json.loads(text)["step"] == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "append_text", stop)
        assert run_cli(patch, *HERE) == 130
    (records,) = Path("out").glob("runs/*/records.jsonl")
    assert list(records.parent.glob("checkpoints/step-*"))
    doubled(records)
    assert run_cli(monkeypatch, *HERE) == 0
    assert results() == whole


@pytest.mark.parametrize(
    "place", ["comparison.json", "records.jsonl", "results.jsonl", "engine-0000.pt", "report.html"]
)
def test_a_full_disk_is_one_message_and_the_same_command_goes_on(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "SAVE_AFTER_S", -1.0)
    assert run_cli(monkeypatch, *HERE) == 0
    whole = results()
    shutil.rmtree("out")
    capsys.readouterr()
    real: Any = vars(files).get("open", open)

    def full(path: Path, *arguments: object, **more: object) -> object:
        if Path(path).name in (place, f"{place}.partial"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", full, raising=False)
        assert run_cli(patch, *HERE) == 2
    said = refusal(capsys.readouterr().err)
    assert f"{place} cannot be written (No space left on device); make room there" in said
    assert not list(Path("out").rglob("*.partial"))
    assert run_cli(monkeypatch, *HERE) == 0
    assert results() == whole


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that not even root may write to")
@pytest.mark.parametrize("command", [HERE[:-2], ("record", "user_tasks:bowl", "--steps", "2", "--every", "1")])
def test_an_unwritable_folder_is_one_message(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, *command, "--out", "/proc/self/nothing/here") == 2
    assert "is not writable" in refusal(capsys.readouterr().err)


@pytest.mark.parametrize(
    "name", ["comparison.json", "results.jsonl", "tuning.jsonl", "report.html", "runs", ".thinwire.lock"]
)
def test_what_is_in_the_way_is_one_message(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "runs":
        Path("out").mkdir()
        Path("out", name).write_text("")
    else:
        Path("out", name).mkdir(parents=True)
    assert run_cli(monkeypatch, *HERE) == 2
    assert f"out{'' if name == '.thinwire.lock' else f'/{name}'}" in refusal(capsys.readouterr().err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("arguments", [("record", "user_tasks:bowl", "--out", "/dev/full/x"), ("report", "/dev/full")])
def test_a_device_is_no_place_for_results(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, *arguments) == 2
    refusal(capsys.readouterr().err)


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    "option", ["--workers", "--steps", "--tune-steps", "--evaluate-every", "--batch-size", "--seeds"]
)
def test_a_number_of_400_digits_is_one_message(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, *HERE, "--lrs", "0.1,0.2", option, HUGE) == 2
    said = refusal(capsys.readouterr().err)
    assert HUGE not in said
    assert len(said) < 300
    assert not Path("out").exists()


def test_a_disk_that_is_full_anywhere_else_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "app", full)
    assert run_cli(monkeypatch, "methods") == 1
    assert "No space left on device" in refusal(capsys.readouterr().err)
