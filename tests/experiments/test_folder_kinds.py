"""What lies in a folder decides which command may go on there, and how it is reported."""

import itertools
from pathlib import Path

import pytest
from command_line import check_refused, run_cli

from thinwire.cli.folders import COMPARISON, FAMILY, KINDS, REPRODUCTION, SPEEDUP, Kind, kind_of
from thinwire.evidence.running import part_folder
from thinwire.evidence.study import SIZES, Part, Size

SHARED = ("--task", "user_tasks:bowl", "--lrs", "0.1", "--seeds", "0", "--codec", "free", "--jobs", "1", "--steps", "2")
COMMANDS: dict[str, tuple[str, ...]] = {
    "comparison": ("compare", "sgd", "--workers", "2", *SHARED),
    "family of configurations": (
        "pareto", "--density", "50%", "--bits", "4", "--every", "2", "--workers", "2", *SHARED,
    ),
    "speed-up": ("speedup", "sgd", "--workers", "1,2", "--target", "0.4", *SHARED),
    "reproduction of studies": ("reproduce", "39"),
}  # fmt: skip
FILES = {
    "comparison": ("comparison.json", "report.html"),
    "family of configurations": ("comparison.json", "pareto.json"),
    "speed-up": ("workers-1/comparison.json", "workers-2/comparison.json"),
    "reproduction of studies": ("full/threads/contest/output.txt",),
}
BASE = Path("runs/user_tasks-bowl")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fill(folder: Path, kind: Kind) -> None:
    for name in FILES[kind.name]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_kind_has_a_command_here() -> None:
    assert {kind.name: kind.command for kind in KINDS} == {name: words[0] for name, words in COMMANDS.items()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_what_lies_there_is_told_by_its_files(kind: Kind) -> None:
    assert kind_of("out") is None
    fill(Path("out"), kind)
    assert kind_of("out") is kind


@pytest.mark.parametrize("size", SIZES)
def test_a_reproduction_is_told_by_its_first_part(size: Size) -> None:
    folder = part_folder("out", Part(study="a", name="b", size=size, arguments=("hogwild",)))
    folder.mkdir(parents=True)
    (folder / "output.txt").write_text("")
    assert kind_of("out") is REPRODUCTION


@pytest.mark.parametrize(("kind", "held"), list(itertools.permutations(KINDS, 2)), ids=lambda kind: kind.command)
def test_a_folder_of_another_kind_is_refused_as_it_is(
    kind: Kind, held: Kind, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Path("out"), held)
    before = contents(Path("out"))
    parts = (f"--out out holds a {held.name}, which thinwire {held.command} wrote", "give another --out, or delete")
    check_refused(monkeypatch, capsys, [*COMMANDS[kind.name], "--out", "out"], parts)
    assert contents(Path("out")) == before


@pytest.mark.parametrize("kind", [COMPARISON, FAMILY, SPEEDUP], ids=lambda kind: kind.command)
def test_what_a_command_writes_is_its_own_kind(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli(monkeypatch, *COMMANDS[kind.name], "--steps", "30", "--out", "out") == 0
    assert kind_of("out") is kind
    assert run_cli(monkeypatch, *COMMANDS[kind.name], "--steps", "30", "--out", "out") == 0  # where it goes on


@pytest.mark.parametrize("kind", [COMPARISON, FAMILY, SPEEDUP], ids=lambda kind: kind.command)
def test_a_folder_that_nobody_named_is_numbered_past_other_kinds(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = BASE.with_name(BASE.name + {"pareto": "-pareto", "speedup": "-speedup"}.get(kind.command, ""))
    first, *others = (each for each in KINDS if each is not kind)
    fill(base, first)
    for number, held in enumerate(others, 2):
        fill(Path(f"{base}-{number}"), held)
    before = contents(Path("runs"))
    assert run_cli(monkeypatch, *COMMANDS[kind.name], "--steps", "30") == 0
    assert f"results go to {base}-4, since {base} holds a {first.name}" in capsys.readouterr().err
    assert before.items() <= contents(Path("runs")).items()
    assert kind_of(f"{base}-4") is kind


def test_a_reproduction_is_not_reported_as_a_comparison(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Path("out"), REPRODUCTION)
    check_refused(monkeypatch, capsys, ["report", "out"], ("out holds a reproduction", "thinwire reproduce"))
