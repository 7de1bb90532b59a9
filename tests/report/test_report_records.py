"""Reading a folder back: what is kept, what is refused, and where the message points."""

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from report_folders import Write

from thinwire.errors import ConfigError
from thinwire.report import load, summarise, write_page
from thinwire.report.curves import axes, mean_curve
from thinwire.report.figures import panels
from thinwire.report.prose import headline, setup
from thinwire.report.tables import summary_table


def test_everything_is_read(write: Write) -> None:
    folder = write()
    data = load(folder.path)
    assert data.methods == tuple(folder.comparison["methods"])
    assert len(data.results) == len(folder.results)
    assert data.network is not None
    assert data.network.bandwidth_Bps == 12.5e6
    assert [len(run) for run in data.runs("sgd")] == [15, 15]
    first, last = data.runs("sgd")[1][0], data.runs("sgd")[1][-1]
    assert (first.step, first.message_bytes) == (0, 0.0)
    raw = next(r for r in folder.results if (r["method"], r["seed"], r["step"]) == ("sgd", 1, 600))
    assert last.link_bytes == pytest.approx(raw["bytes_sent"] + raw["bytes_received"])


def test_the_last_record_of_a_learning_rate_is_what_was_judged(write: Write) -> None:
    data = load(write().path)
    assert [setting.lr for setting, _ in data.tuning["sgd"]] == [0.01, 0.03, 0.1, 0.3, 1.0]
    assert 0.2 not in [value for _, value in data.tuning["sgd"]]
    assert math.isnan({setting.lr: value for setting, value in data.tuning["signsgd"]}[1.0])


def test_lines_may_come_in_any_order(write: Write) -> None:
    folder = write()
    data = load(folder.path)
    path = folder.path / "results.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n\n")
    assert load(folder.path).results == data.results


@pytest.mark.parametrize("name", ["comparison.json", "results.jsonl", "tuning.jsonl"])
def test_a_missing_file_is_named(write: Write, name: str) -> None:
    folder = write()
    (folder.path / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}: no such file"):
        load(folder.path)


@pytest.mark.parametrize("name", ["comparison.json", "results.jsonl"])
def test_an_empty_file_is_named(write: Write, name: str) -> None:
    folder = write()
    (folder.path / name).write_text("\n")
    with pytest.raises(ConfigError, match=f"{name}: the file is empty"):
        load(folder.path)


def test_no_search_is_an_empty_tuning_file(write: Write) -> None:
    folder = write()
    (folder.path / "tuning.jsonl").write_text("")
    assert load(folder.path).tuning == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"results\.jsonl, line 3: not valid JSON"),
        ("[1]", r"results\.jsonl, line 3: a JSON object was expected, got list"),
        (
            '{"method": "sgd", "optimizer": "sgd", "options": "", "lr": 1}',
            r"results\.jsonl, line 3: the key 'seed' is missing; it has method, optimizer, options, lr",
        ),
    ],
)
def test_a_bad_line_is_named(write: Write, line: str, message: str) -> None:
    folder = write()
    path = folder.path / "results.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(ConfigError, match=message):
        load(folder.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": "ten"}, "'step' must be int, got 'ten'"),
        ({"step": True}, "'step' must be int, got True"),
        ({"message_bytes": None}, "'message_bytes' must be float, got None"),
        ({"seconds": math.nan}, "'seconds' must be a finite number below 1e.100, got nan"),
        ({"value": "good"}, "'value' must be float, got 'good'"),
        ({"method": "adam"}, "the method 'adam' is not in comparison.json"),
        ({"step": 43}, "line 3: repeats line 2"),
    ],
)
def test_a_bad_value_is_named(write: Write, change: dict[str, Any], message: str) -> None:
    folder = write()
    path = folder.path / "results.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | change)
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=message):
        load(folder.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, "'methods' is empty"),
        ({"dense": ["adam"]}, "the dense method 'adam' is none of the methods"),
        ({"metric": {"name": "accuracy"}}, "the key 'higher_is_better' is missing"),
        ({"steps": 1.5}, "'steps' must be int"),
    ],
)
def test_a_bad_comparison_is_refused(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(changes=change).path)


def test_a_missing_key_of_the_comparison_is_named(write: Write) -> None:
    folder = write()
    about = dict(folder.comparison)
    del about["command"]
    (folder.path / "comparison.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"comparison\.json: the key 'command' is missing"):
        load(folder.path)


Place = tuple[str | int, ...]


def numbers(entry: Any, path: Place = ()) -> Iterator[Place]:
    """Where in a JSON value the numbers are."""
    items = entry.items() if isinstance(entry, dict) else enumerate(entry) if isinstance(entry, list) else ()
    for key, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)
        yield from numbers(value, (*path, key))


def changed(entry: Any, path: Place, value: str) -> Any:
    entry = json.loads(json.dumps(entry))
    inner = entry
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return entry


def shown(folder: pathlib.Path, *, with_figures: bool = True) -> list[Any]:
    """All that is computed of the files; the figures' library takes its time."""
    data = load(folder)
    rows = summarise(data)
    text = [headline(data, rows), setup(data), summary_table(rows)]
    drawn = (
        panels(data) if with_figures else [mean_curve(data, name, axis) for name in data.methods for axis in axes(data)]
    )
    return [*text, drawn]


def refusal(folder: pathlib.Path, *, with_figures: bool) -> str:
    try:
        shown(folder, with_figures=with_figures)
    except ConfigError as error:
        return str(error)
    return ""


NUMBERS = ["9" * 400, "-" + "9" * 400, "9" * 5000, "1e308", "-1e308", "1e-320", "1e400", "0", "-1", "NaN"]


@pytest.mark.parametrize("digits", NUMBERS, ids=lambda digits: f"{digits[:6]}{len(digits)}")
def test_no_number_in_a_file_is_more_than_a_message(digits: str, write: Write) -> None:
    folder = write(methods=["sgd", "signsgd"], seeds=(0,))
    lines = {name: (folder.path / name).read_text() for name in ("comparison.json", "results.jsonl", "tuning.jsonl")}
    for name, text in lines.items():
        whole = text.splitlines()
        first = json.loads(whole[0])
        for place in numbers(first):
            line = json.dumps(changed(first, place, "XX")).replace('"XX"', digits)
            (folder.path / name).write_text("\n".join([line, *whole[1:]]) + "\n")
            said = refusal(folder.path, with_figures=digits == "1e-320")
            assert not said or name in said, place
            assert len(said) < 600, place
        (folder.path / name).write_text(text)


@pytest.mark.parametrize("name", ["comparison.json", "results.jsonl", "tuning.jsonl"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"step": ' + "9" * 5000 + "}"])
def test_lists_without_end_and_numbers_without_end_are_named(name: str, text: str, write: Write) -> None:
    folder = write()
    (folder.path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        load(folder.path)


ESCAPES = ["\x1b[31m", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;http://there\x1b\\", "\x1bP1;2q\x1b\\", "\x1bc",
           "\x9b", "\x07", "\x00", "\r", "\u202e", "\u2066", "\ud800"]  # fmt: skip


@pytest.mark.parametrize(
    "escape", ESCAPES, ids=lambda escape: escape.encode("unicode_escape", "surrogatepass").decode()
)
def test_what_steers_a_terminal_is_stripped_from_every_text(escape: str, write: Write) -> None:
    folder = write(methods=["sgd", "signsgd"], changes={"dense": ["sgd"]})
    clean = shown(folder.path)
    text = json.dumps(escape)[1:-1]
    for name in ("comparison.json", "results.jsonl", "tuning.jsonl"):
        path = folder.path / name
        path.write_text(
            path.read_text().replace('"signsgd"', f'"sign{text}sgd"').replace('"digits"', f'"digits{text}"')
        )
    found = shown(folder.path)
    assert str(found).replace("sign sgd", "signsgd").replace("digits ", "digits") == str(clean).replace(
        "digits ", "digits"
    )
    assert escape.strip() == "" or escape not in str(found)


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_any_path_is_read_and_written(kind: type[str] | type[pathlib.Path], write: Write) -> None:
    folder = write()
    page = folder.path / "report.html"
    write_page(load(kind(folder.path)), kind(page))
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
