"""Tasks, methods and compressors of installed packages, and packages that are broken."""

import json
import shutil
import sys
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from command_line import run_cli

from thinwire import config, plugins
from thinwire.cli.application import console
from thinwire.config import from_json, registered, to_json
from thinwire.errors import ConfigError
from thinwire.experiments.tasks import load_task
from thinwire.frontier.configurations import compressor_classes
from thinwire.methods import find_row, parse_method

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_package"


def install(folder: Path, package: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Write what an installer would, so that Python finds the package's entry points."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = []
    for group, each in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in each.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which packages can be installed; what they register is forgotten."""
    folder, before = tmp_path / "site", set(sys.modules)
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(config, "_REGISTRY", registered())
    plugins.load_parts.cache_clear()
    yield folder
    plugins.load_parts.cache_clear()
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def example(site: Path) -> Path:
    shutil.copy(EXAMPLE / "block_max.py", site)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(site, project["name"], project["entry-points"])
    return site


def run_warned(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """A command that shows warnings, and goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run_cli(monkeypatch, command) == 0


def test_the_commands_know_an_installed_package(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "width", 160)
    assert run_cli(monkeypatch, "tasks") == 0
    assert "tumours\n" in (shown := capsys.readouterr().out)
    assert "options  hidden=32" in shown
    assert run_cli(monkeypatch, "tasks", "tumours", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["package"] == "block-max"
    assert run_cli(monkeypatch, "methods") == 0
    assert "block-max\n" in capsys.readouterr().out
    out = str(tmp_path / "out")
    options = (
        "--workers",
        "2",
        "--seeds",
        "0",
        "--lrs",
        "0.1",
        "--steps",
        "40",
        "--jobs",
        "1",
        "--codec",
        "free",
        "--out",
        out,
    )
    assert run_cli(monkeypatch, "compare", "sgd", "block-max:length=16", "--task", "tumours:hidden=8", *options) == 0
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    last = {record["method"]: record for record in records if record["step"] == 40}
    assert all(record["value"] > 0.85 for record in last.values())
    assert {record["task"] for record in records} == {"tumours:hidden=8"}
    assert last["block-max:length=16"]["message_bytes"] < last["sgd"]["message_bytes"] / 8


def test_its_compressor_is_registered_where_all_are_listed(example: Path) -> None:
    assert "LargestOfBlock" not in registered()
    assert "LargestOfBlock" in {cls.__name__ for cls in compressor_classes()}
    method = parse_method("block-max:length=8")
    assert from_json(to_json(method)) == method
    with pytest.raises(ConfigError, match="block-max has no option 'size'"):
        parse_method("block-max:size=8")


def test_a_task_of_a_package_may_read_a_folder(site: Path) -> None:
    (site / "reads.py").write_text(
        "from thinwire.experiments.tasks.logreg import logreg\n"
        "def made(data: str | None = None, rows: int = 50, kind: str = 'plain'):\n"
        "    assert (data, kind) == ('there', 'odd')\n"
        "    return logreg(rows, 4)\n"
    )
    install(site, "reader", {"thinwire.tasks": {"reading": "reads:made"}})
    assert load_task("reading:rows=30,kind=odd", data="there").num_train == 30


BROKEN = {
    "syntax": ("def f(:", "broken:f", "SyntaxError"),
    "import": ("import thinwire_there_is_no_such_module", "broken:f", "No module named 'thinwire_there_is"),
    "absent": ("", "broken:f", "has no attribute 'f'"),
    "number": ("f = 3", "broken:f", "is no function"),
    "needs": ("def f(size: int): ...", "broken:f", r"parameters without a default \(size\)"),
    "unannotated": ("def f(size=3): ...", "broken:f", "needs an annotation"),
    "raises": ("def f(): raise ValueError('seven')", "broken:f", "raised ValueError: seven"),
    "returns": ("def f(): return 7", "broken:f", "returned a int without name, metric"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_package_is_named_when_it_is_asked_for_and_harms_nothing_else(
    kind: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, value, says = BROKEN[kind]
    (site / "broken.py").write_text(source + "\n")
    install(site, "shaky-tasks", {"thinwire.tasks": {"wobbly": value}})
    with pytest.raises(ConfigError, match=rf"installed package shaky-tasks.*{says}"):
        load_task("wobbly")
    assert load_task("digits").num_train == 1297
    with pytest.raises(ConfigError, match='did you mean "wobbly"'):
        load_task("wobly")
    if kind not in ("raises", "returns"):
        run_warned(monkeypatch, "tasks")
        shown = capsys.readouterr()
        assert "digits\n" in shown.out
        assert shown.err.startswith("warning: the ")
        assert shown.err.count("shaky-tasks") == shown.err.count("it is left out") == 1


def test_broken_methods_and_parts_are_left_out_with_a_warning(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "broken.py").write_text("raise RuntimeError('out of order')\n")
    (site / "other.py").write_text("ROW = 7\n")
    groups = {"thinwire.methods": {"wobbly": "broken:ROW", "seven": "other:ROW"}, "thinwire.parts": {"any": "broken"}}
    install(site, "shaky-methods", groups)
    with pytest.raises(ConfigError, match=r"installed package shaky-methods .*RuntimeError: out of order"):
        find_row("wobbly")
    with pytest.raises(ConfigError, match="shaky-methods brings a int as the method 'seven'"):
        parse_method("seven")
    assert find_row("topk").name == "topk"
    run_warned(monkeypatch, "methods")
    shown = capsys.readouterr()
    assert "topk\n" in shown.out
    assert shown.err.count("shaky-methods") == shown.err.count("it is left out") == 2
    with pytest.warns(UserWarning, match="shaky-methods.*what it brings is left out") as warned:
        known = compressor_classes()
    assert len(warned) == 1
    assert compressor_classes() == known  # and says nothing more, which would be an error here


def test_names_that_are_taken_stay_what_they_are(site: Path) -> None:
    (site / "greedy.py").write_text("raise RuntimeError('never imported')\n")
    groups = {"thinwire.tasks": {"digits": "greedy:f"}, "thinwire.methods": {"topk": "greedy:ROW"}}
    install(site, "greedy", groups)
    assert load_task("digits").num_train == 1297
    assert find_row("topk").paper != "none"
    install(site, "twin-a", {"thinwire.tasks": {"twin": "greedy:a"}})
    install(site, "twin-b", {"thinwire.tasks": {"twin": "greedy:b"}})
    with pytest.warns(UserWarning, match="'twin' of twin-[ab] is left out: twin-[ab] brings one of that name"):
        assert "twin" in plugins.installed("thinwire.tasks")


def test_packages_are_looked_for_again_only_where_the_path_has_changed(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    entry_points = metadata.entry_points

    def counted(group: str) -> metadata.EntryPoints:
        asked.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(metadata, "entry_points", counted)
    install(site, "early", {"thinwire.tasks": {"early": "early:f"}})
    for _ in range(3):
        assert "early" in plugins.installed("thinwire.tasks")
    assert asked == ["thinwire.tasks"]
    other = tmp_path / "other"
    install(other, "late", {"thinwire.tasks": {"late": "late:f"}})
    monkeypatch.syspath_prepend(str(other))
    assert {"early", "late"} <= plugins.installed("thinwire.tasks").keys()
