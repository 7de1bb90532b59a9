"""Reading a folder back: what is kept, what is refused, and where the message points."""

import json
import math

import pytest

from thinwire.errors import ConfigError
from thinwire.report import load


def test_everything_is_read(write):
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


def test_the_last_record_of_a_learning_rate_is_what_was_judged(write):
    data = load(write().path)
    assert [lr for lr, _ in data.tuning["sgd"]] == [0.01, 0.03, 0.1, 0.3, 1.0]
    assert 0.2 not in [value for _, value in data.tuning["sgd"]]
    assert math.isnan(dict(data.tuning["signsgd"])[1.0])


def test_lines_may_come_in_any_order(write):
    folder = write()
    data = load(folder.path)
    path = folder.path / "results.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n\n")
    assert load(folder.path).results == data.results


@pytest.mark.parametrize("name", ["comparison.json", "results.jsonl", "tuning.jsonl"])
def test_a_missing_file_is_named(write, name):
    folder = write()
    (folder.path / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}: no such file"):
        load(folder.path)


@pytest.mark.parametrize("name", ["comparison.json", "results.jsonl"])
def test_an_empty_file_is_named(write, name):
    folder = write()
    (folder.path / name).write_text("\n")
    with pytest.raises(ConfigError, match=f"{name}: the file is empty"):
        load(folder.path)


def test_no_search_is_an_empty_tuning_file(write):
    folder = write()
    (folder.path / "tuning.jsonl").write_text("")
    assert load(folder.path).tuning == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"results\.jsonl, line 3: not valid JSON"),
        ("[1]", r"results\.jsonl, line 3: a JSON object was expected, got list"),
        (
            '{"method": "sgd", "lr": 1}',
            r"results\.jsonl, line 3: the key 'seed' is missing; it has method, lr",
        ),
    ],
)
def test_a_bad_line_is_named(write, line, message):
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
        ({"seconds": math.nan}, "'seconds' must be a finite number, got nan"),
        ({"value": "good"}, "'value' must be float, got 'good'"),
        ({"method": "adam"}, "the method 'adam' is not in comparison.json"),
        ({"step": 43}, "line 3: repeats line 2"),
    ],
)
def test_a_bad_value_is_named(write, change, message):
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
        ({"baseline": "adam"}, "the baseline 'adam' is none of the methods"),
        ({"metric": {"name": "accuracy"}}, "the key 'higher_is_better' is missing"),
        ({"steps": 1.5}, "'steps' must be int"),
    ],
)
def test_a_bad_comparison_is_refused(write, change, message):
    with pytest.raises(ConfigError, match=message):
        load(write(changes=change).path)


def test_a_missing_key_of_the_comparison_is_named(write):
    folder = write()
    about = dict(folder.comparison)
    del about["command"]
    (folder.path / "comparison.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"comparison\.json: the key 'command' is missing"):
        load(folder.path)
