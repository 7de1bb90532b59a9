"""Folders that are numbered where the user names none."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import run_cli, written

from thinwire.experiments.run_folders import Holder, choose_number, folder_of

TINY = (
    "compare", "--task", "user_tasks:bowl", "--workers", "2", "--steps", "2", "--lrs", "0.1", "--seeds", "0",
    "--codec", "free", "--jobs", "1",
)  # fmt: skip
BASE = Path("runs/user_tasks-bowl")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def folders() -> list[str]:
    return sorted(path.parent.name for path in Path("runs").glob("*/comparison.json"))


def test_another_comparison_gets_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, *TINY, "sgd") == 0
    assert "results go to" not in capsys.readouterr().err
    for workers, name in ((3, f"{BASE}-2"), (4, f"{BASE}-3")):
        assert run_cli(monkeypatch, *TINY, "sgd", "--workers", str(workers)) == 0
        assert f"results go to {name}, since {BASE} holds another comparison" in capsys.readouterr().err
        assert json.loads((Path(name) / "comparison.json").read_text())["workers"] == workers
    assert folders() == [BASE.name, f"{BASE.name}-2", f"{BASE.name}-3"]

    before = written(Path("runs"))
    assert run_cli(monkeypatch, *TINY, "sgd", "--workers", "4") == 0
    assert written(Path("runs")) == before  # it went on in its own
    assert f"results go to {BASE}-3" in capsys.readouterr().err
    assert run_cli(monkeypatch, *TINY, "sgd", "topk:k=1", "--workers", "3") == 0  # a method more is no other comparison
    assert written(Path("runs")).keys() > before.keys()
    assert all("-2/" in path for path in written(Path("runs")).keys() - before.keys())

    shutil.rmtree(BASE)
    assert run_cli(monkeypatch, *TINY, "sgd", "--workers", "4") == 0
    assert folders() == [f"{BASE.name}-2", f"{BASE.name}-3"]  # what is kept comes before what is free
    assert run_cli(monkeypatch, *TINY, "sgd", "--workers", "5") == 0
    assert folders() == [BASE.name, f"{BASE.name}-2", f"{BASE.name}-3"]


def test_a_folder_that_was_named_is_not_numbered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, *TINY, "sgd", "--out", "mine") == 0
    capsys.readouterr()
    assert run_cli(monkeypatch, *TINY, "sgd", "--workers", "3", "--out", "mine") == 2
    assert "mine holds another comparison (workers 2, now 3)" in capsys.readouterr().err
    assert not Path("mine-2").exists()


def test_a_folder_that_cannot_be_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    BASE.mkdir(parents=True)
    (BASE / "comparison.json").write_text("{")
    assert run_cli(monkeypatch, *TINY, "sgd") == 0
    assert (BASE / "comparison.json").read_text() == "{"
    assert folders() == [BASE.name, f"{BASE.name}-2"]


@pytest.mark.parametrize(
    ("held", "number"),
    [
        ({}, 1),
        ({1: "another"}, 2),
        ({1: "another", 2: "another", 4: "another"}, 3),
        ({1: "another", 2: "another", 4: "this"}, 4),
        ({2: "this", 4: "this"}, 2),
        ({1: "none", 2: "another"}, 1),
    ],
)
def test_what_is_held_decides(held: dict[int, Holder], number: int, tmp_path: Path) -> None:
    base = tmp_path / "a[b]*"
    for each in held:
        folder_of(base, each).mkdir()
    for stray in ("a[b]*-02", "a[b]*-x", "a[b]*-0", "ab-7"):
        (tmp_path / stray).mkdir()
    known = {folder_of(base, each): what for each, what in held.items()}
    assert choose_number(base, lambda path: known.get(Path(path), "none")) == number
