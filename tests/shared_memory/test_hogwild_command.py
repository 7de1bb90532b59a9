"""``thinwire hogwild``: prints tables, writes JSON, and says what it cannot do."""

import json
from pathlib import Path

import pytest
from command_line import check_refused, run_cli

from thinwire.cli.application import console
from thinwire.shared_memory import VARIANTS, sweep

QUICK = (
    "hogwild", "--numel", "50", "--examples", "60", "--updates", "400", "--repeat", "1", "--additions", "5000",
)  # fmt: skip


def test_tables_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "width", 160)  # else tables have several parts
    assert run_cli(monkeypatch, *QUICK, "--threads", "1,2", "--density", "100%,10%", "--pin") == 0
    shown = capsys.readouterr().out
    assert "contest: 5,000 additions of 1 to 8 counters of int64" in shown
    assert "sgd, logistic, sparse: 60 examples of 50 coordinates, 400 updates" in shown
    for variant in VARIANTS:
        assert shown.count(f" {variant} ") == 2 + 4
    assert "updates" in shown
    assert "lost" in shown


@pytest.mark.parametrize("task", ["sparse", "gspar", "digits"])
def test_json_has_a_line_a_run(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "digits":
        pytest.importorskip("sklearn")
    own = QUICK[5:] if task == "digits" else QUICK[1:]
    options = ("--method", "mem-sgd", "--select", "random", "--loss", "hinge", "--keep", "10%", "--task", task)
    some = ("--variants", "racy, mutex", "--threads", "2")
    assert run_cli(monkeypatch, "hogwild", *own, *options, *some, "--json", "-") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["row"], line["variant"]) for line in lines[:2]] == [("contest", "racy"), ("contest", "mutex")]
    assert {(line["method"], line["select"], line["loss"], line["keep"]) for line in lines[2:]} == {
        ("mem-sgd", "random", "hinge", 0.1)
    }
    assert len(lines) == 2 + 2 * (3 if task == "sparse" else 1)
    file = tmp_path / "lines.json"
    assert run_cli(monkeypatch, "hogwild", *own, *options, *some, "--additions", "0", "--json", str(file)) == 0
    assert len(file.read_text().splitlines()) == len(lines) - 2
    assert "mem-sgd, random of 0.1, hinge" in capsys.readouterr().out


def test_ctrl_c_prints_what_there_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "train", interrupted)
    assert run_cli(monkeypatch, *QUICK, "--threads", "2", "--density", "10%") == 130
    shown = capsys.readouterr()
    assert "contest" in shown.out
    assert "6 of 12 runs are done" in shown.err


def test_options_without_effect_warn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    some = ("--variants", "racy", "--threads", "1", "--density", "10%")
    monkeypatch.setattr("warnings.filters", [])
    assert run_cli(monkeypatch, *QUICK, *some, "--select", "random", "--keep", "5%") == 0
    shown = capsys.readouterr().err
    assert "--select has no effect on sgd" in shown
    assert "--keep has no effect on sgd" in shown


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--variants", "racy,mutx"), ("unknown variant 'mutx'", "did you mean mutex?")),
        (("--threads", "two"), ("--threads two cannot be read",)),
        (("--threads", "0"), ("0 threads were given", "1 to 1024")),
        (("--threads", ""), ("name at least one",)),
        (("--density", "1"), ("write 1% or 100%",)),
        (("--density", "150%"), ("density of 1.5", "at most 100%")),
        (("--method", "gspar", "--keep", "many"), ("many is no share",)),
        (("--task", "logregs"), ("unknown task 'logregs'", "did you mean logreg?")),
        (("--updates", "1"), ("give 8 or more",)),
        (("--lr", "0"), ("learning rate of 0",)),
        (("--repeat", "0"), ("1 is the least",)),
        (("--additions", "-5"), ("-5 additions",)),
        (("--numel", "0"), ("numel = 0",)),
        (("--json", "/nowhere/at/all"), ("cannot be written",)),
    ],
    ids=str,
)
def test_mistakes_are_one_message(
    options: tuple[str, ...],
    parts: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_refused(monkeypatch, capsys, (*QUICK, "--threads", "2", *options), parts)
