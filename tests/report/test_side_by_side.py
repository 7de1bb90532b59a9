"""Several comparisons side by side, against the reports of each alone."""

import csv
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import check_refused, run_cli
from report_folders import METHODS, Plan, write_folder

from thinwire.cli.application import console
from thinwire.report import load, load_several, summarise, summarise_several
from thinwire.report.columns import columns
from thinwire.report.document import document
from thinwire.report.figures import panels
from thinwire.report.side_by_side import differing_settings
from thinwire.report.side_page import page_of
from thinwire.report.styles import line_style

CHANGES: dict[str, Any] = {"workers": 16, "target": None, "sharding": "sorted"}
FEW = ("topk:density=1%", "sgd", "signsgd")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    write_folder(tmp_path / "one", Plan())
    write_folder(tmp_path / "two", Plan(methods=FEW, seeds=(0, 1, 2), changes=CHANGES))
    return tmp_path / "one", tmp_path / "two"


def test_rows_are_those_of_each_alone(folders: tuple[Path, Path]) -> None:
    rows = summarise_several(load_several(folders))
    for folder in folders:
        own = {each.row.method: each.row for each in rows if each.run == str(folder)}
        assert own == {row.method: row for row in summarise(load(folder))}
    methods = [each.row.method for each in rows]
    assert list(dict.fromkeys(methods)) == list(METHODS)  # those of a method follow each other
    assert sum(one != other for one, other in itertools.pairwise(methods)) == len(METHODS) - 1


def test_only_what_differs_is_told(folders: tuple[Path, Path]) -> None:
    differing = differing_settings(load_several(folders))
    assert set(differing) == {"workers", "target", "sharding", "seeds"}
    assert list(differing["workers"].values()) == ["8", "16"]
    assert list(differing["seeds"].values()) == ["0, 1", "0, 1, 2"]


def test_figures_of_a_kind_have_equal_axes_and_methods_equal_looks(folders: tuple[Path, Path]) -> None:
    page = page_of(load_several(folders))
    kinds: dict[str, list[Any]] = {}
    for drawing in page.drawings:
        kinds.setdefault(drawing.title.partition(": ")[0], []).append(drawing.content)
    assert [len(kind) for kind in kinds.values()] == [2, 2, 2, 2, 2, 2, 2, 1]  # local steps are in the first only
    for kind in kinds.values():
        for axis, values in (("xaxis", "x"), ("yaxis", "y")):
            ranges = [content["layout"][axis]["range"] for content in kind]
            assert all(each == ranges[0] for each in ranges)
            is_log = kind[0]["layout"][axis].get("type") == "log"
            for content in kind:
                for trace in content["data"]:
                    shown = [
                        math.log10(value) if is_log else value for value in trace[values] if not is_log or value > 0
                    ]
                    assert ranges[0][0] <= min(shown) <= max(shown) <= ranges[0][1]
        for trace in (trace for content in kind for trace in content["data"]):
            method = trace["name"].replace("&lt;", "<").replace("&gt;", ">")
            slot = list(METHODS).index(method)
            assert trace["meta"]["slot"] == slot
            if trace["meta"]["part"] == "line":
                assert (trace["line"]["color"], trace["line"]["dash"]) == (
                    line_style(slot).light,
                    line_style(slot).dash,
                )


def test_the_command_prints_writes_and_exports(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "width", 240)
    one, two = map(str, folders)
    assert run_cli(monkeypatch, "report", one, two) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^workers +8 +16$", shown, re.MULTILINE)
    assert shown.count("signsgd") >= 2
    page = folders[0].parent / "side-by-side.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("<pre>") == 2
    assert not list(folders[0].glob("*.html"))  # the folders stay as they are

    other = folders[0].parent / "pages" / "both.html"
    assert run_cli(monkeypatch, "report", one, two, "--page", str(other), "--inline", "--csv", "-") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["run"], row["method"]) for row in rows[:2]] == [(one, "sgd"), (two, "sgd")]
    assert len(rows) == len(METHODS) + len(FEW)
    assert [each.name for each in other.parent.iterdir()] == ["both.html"]
    assert run_cli(monkeypatch, "report", one, two, "--json", "-") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["run"]: line["target"] for line in lines if line["method"] == "sgd"}[one] == 0.86


def test_what_cannot_stand_side_by_side_is_refused(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = folders
    loss = {"metric": {"name": "suboptimality", "higher_is_better": False, "logarithmic": True}}
    write_folder(one.parent / "loss", Plan(changes=loss))
    write_folder(one.parent / "speedup" / "workers-1", Plan())
    for arguments, parts in (
        ((one, two, one.parent / "loss"), ("accuracy (higher", "suboptimality (lower", "one metric at a time")),
        ((one, two, one.parent / "two" / ".." / "one"), ("are the same folder",)),
        ((one, one.parent / "speedup"), ("holds a speed-up", "workers-1")),
        ((one, one / "comparison.json"), ("is a file",)),
        ((one, one.parent / "none"), ("no such file",)),
        ((one, "--page", "page.html"), ("--page page.html", "single folder")),
    ):
        check_refused(monkeypatch, capsys, ["report", *map(str, arguments)], parts)
    assert not (one.parent / "side-by-side.html").exists()


def heads(text: str) -> list[str]:
    """The words above the rule of the last table, but those that say what a row is."""
    lines = text.splitlines()
    rule = max(place for place, line in enumerate(lines) if line.startswith("──"))
    above = list(itertools.takewhile(str.strip, reversed(lines[:rule])))
    return sorted(word for line in above for word in line.split() if word not in ("run", "method"))


def test_one_run_and_several_have_the_same_columns(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal without those for which it has no room; in LaTeX with all, named alike."""
    monkeypatch.setattr(console, "width", 400)
    one, two = folders
    path = one / "results.jsonl"
    records = [json.loads(line) | {"top5": 0.99} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert any(column.key == "top5" for column in columns(summarise(load(one))))
    terminal, latex = [], []
    for arguments in ((one,), (one, two)):
        named = ["report", *map(str, arguments)]
        assert run_cli(monkeypatch, *named) == 0
        terminal.append(heads(capsys.readouterr().out))
        assert run_cli(monkeypatch, *named, "--latex", "-") == 0
        latex.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("method & ")))
    assert terminal[0] == terminal[1]
    assert "top-5" not in terminal[0]
    assert all("at the last evaluation top-5" in line for line in latex)
    # The target is one of each run, where they differ in it.
    alike = [re.sub("to reach .*?(?=steps|message|link|seconds|times)", "", line) for line in latex]
    assert alike[0] == alike[1].replace("method & run & ", "method & ")


def test_columns_are_told_apart_by_their_keys(folders: tuple[Path, Path]) -> None:
    rows = summarise(load(folders[0]))
    keys = [column.key for column in columns(rows)]
    assert len(set(keys)) == len(keys)


def test_an_axis_that_is_logarithmic_in_one_run_is_so_in_all_and_says_it(folders: tuple[Path, Path]) -> None:
    path = folders[1] / "results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    slow = [record | {"seconds": record["seconds"] * (50 if record["method"] == "sgd" else 1)} for record in records]
    path.write_text("".join(json.dumps(record) + "\n" for record in slow))
    page = page_of(load_several(folders))
    found = [each.content["layout"]["xaxis"] for each in page.drawings if each.title.startswith("accuracy against sec")]
    assert [each["type"] for each in found] == ["log", "log"]
    assert all(each["title"]["text"] == "virtual seconds at 100 Mbit/s, 20 ms, log scale" for each in found)


def test_methods_are_drawn_in_the_slots_that_are_given(folders: tuple[Path, Path]) -> None:
    """Bounds too, which have no line of the legend's look."""
    path = folders[1] / "results.jsonl"
    records = [json.loads(line) | {"memory_bound": 2.0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    slots = {method: 7 + place for place, method in enumerate(reversed(FEW))}
    traces = [trace for panel in panels(load(folders[1]), slots) for trace in panel.figure.data]
    assert {trace.meta["part"] for trace in traces} == {"line", "band", "bound"}
    for trace in traces:
        assert trace.meta["slot"] == slots[trace.name]
        if trace.meta["part"] != "band":
            assert trace.line.color == line_style(slots[trace.name]).light


def test_what_is_alike_is_named_and_the_page_says_how_to_make_it_again(folders: tuple[Path, Path]) -> None:
    one, _ = folders
    write_folder(one.parent / "a copy", Plan())
    page = page_of(load_several([one, one.parent / "a copy"]))
    assert "All runs are alike in task, parameters, workers, steps, seeds," in page.header
    text = document(page)
    assert f"thinwire report {one} &#x27;{one.parent / 'a copy'}&#x27; --inline</code> makes a page" in text
