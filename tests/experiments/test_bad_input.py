"""What a user may mistype: one message, status 2, and nothing written or lost."""

import json
import warnings
from pathlib import Path

import pytest
from command_line import check_refused, run_cli

TINY = ("--task", "user_tasks:bowl", "--workers", "2", "--steps", "2", "--lrs", "0.1", "--jobs", "1", "--seeds", "0")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["topkk", *TINY], ["unknown method 'topkk'", "did you mean topk?", "thinwire methods"]),
        (["topk:denstiy=1%", *TINY], ["topk has no option 'denstiy'", "did you mean density?", "granularity"]),
        (["sgd:every=2", *TINY], ["sgd has no option 'every'", "it takes none"]),
        (["topk:density=one", *TINY], ["topk: density=one cannot be read", "1% or 0.01"]),
        (["topk:density=0", *TINY], ["density 0.0 was given", "above 0, at most 1"]),
        (["topk:density=1.5", *TINY], ["topk: density=1.5 cannot be read", "a share of 150 %", "1.5% or 150%"]),
        (["topk:density=1", *TINY], ["density=1 cannot be read", "a share of 100 %", "write 1% or 100%"]),
        (["topk:density=150%", *TINY], ["density 1.5 was given", "above 0, at most 1"]),
        (["digits", "--task", "digits"], ["digits is a task, not a method", "--task digits"]),
        (["sgd", "--task", "topk:density=1%"], ["topk:density=1% is a method, not a task", "stdlib-lm"]),
        (["sgd", "--task", "digits", "--target", "86"], ["a target of 86", "accuracy is at most 1", "0.86?"]),
        (["sgd", "--task", "digits", "--batch-size", "100000"], ["a batch size of 100000", "8 workers has 162 of"]),
        (["sgd", *TINY, "--batch-size", "33"], ["a batch size of 33", "2 workers has 32 of the 64", "at most 32"]),
        (["sgd", *TINY, "--network", "1Mbit,1ms;99:1Mbit,1s"], ["a link was given for worker 99", "from 0 to 1"]),
        (["sgd", *TINY, "--network", "1Mbit,1ms;2:1Mbit,1s"], ["a link was given for worker 2"]),
        (["easgd-async", *TINY, "--network", "1Mbit,1ms;3:1Mbit,1s"], ["worker 3", "and 2 is the server"]),
        (["sgd", *TINY, "--compute", "10ms,slow=2x5"], ["a speed was given for worker 2"]),
        (["sgd", *TINY, "--compute", "10"], ["10 has no unit", "write 10ms or 10s"]),
        (["sgd", *TINY, "--compute", "10ms,jitter=20"], ["20 alone is a share of 2000 %", "write 20% or 2000%"]),
        (["sgd", *TINY, "--compute", "10ms,stall=1x8"], ["1 alone is a share of 100 %"]),
        (["sgd", *TINY, "--json", "none/rows"], ["--json none/rows cannot be written"]),
        (["topk:density=nan", *TINY], ["density nan was given"]),
        (["topk:k=3", *TINY], ["k = 3 entries were asked for", "only 2"]),
        (["topk:k=inf", *TINY], ["k = inf"]),
        (["topk:k=1,density=1%", *TINY], ["either k or density, not both"]),
        (["signtopk:every=0", *TINY], ["every = 0 was given"]),
        (["qsgd:bits=1", *TINY], ["1 bits were asked for", "2 to 16"]),
        (["qsgd:norm=l1", *TINY], ["norm=l1 is not known", "max, l2"]),
        (["sgd", "sgd", *TINY], ["methods must differ from each other"]),
        (["sgd", "--task", "digit"], ['there is no task "digit"', 'did you mean "digits"?', "package.module:function"]),
        (["sgd", "--task", "nowhere:task"], ["cannot import nowhere"]),
        (["sgd", "--task", "json:dumps"], ['"json:dumps": dumps raised TypeError: ', "called without arguments"]),
        (["sgd", "--task", "user_tasks:needy"], ["needy raised TypeError: ", "'size'"]),
        (
            ["sgd", *TINY, "--out", f"{__file__}/below"],
            [f"--out {__file__}/below cannot", "test_bad_input.py is a file"],
        ),
        (["sgd", *TINY, "--out", __file__], [f"--out {__file__} cannot be used", "is a file; give a folder"]),
        (["sgd", "--task", "fashion-mnist", "--data", "/nonexistent"], ["/nonexistent"]),
        (["sgd", *TINY, "--optimizers", "sdg"], ["unknown optimizer 'sdg'", "did you mean sgd?"]),
        (["sgd", *TINY, "--optimizers", "sgd:momentum=x"], ["momentum=x cannot be read"]),
        (["sgd", *TINY, "--optimizers", "sgd:momentum=-1"], ["refused by torch.optim"]),
        (["sgd", *TINY, "--lrs", "0.1,-0.3"], ["must be above 0", "-0.3"]),
        (["sgd", *TINY, "--lrs", "0.1;0.3"], ["--lrs 0.1;0.3 cannot be read", "separated by commas"]),
        (["sgd", *TINY, "--lrs", "inf"], ["must be above 0 and finite", "inf"]),
        (["sgd", *TINY, "--seeds", "0,x"], ["--seeds 0,x cannot be read"]),
        (["sgd", *TINY, "--seeds", "1,1"], ["seeds must differ"]),
        (["sgd", *TINY, "--seeds", ","], ["no seeds were given"]),
        (["sgd", *TINY, "--workers", "0"], ["workers = 0 was given", "at least 1"]),
        (["sgd", *TINY, "--workers", "65"], ["64 examples cannot be dealt out to 65 workers"]),
        (["sgd", *TINY, "--steps", "-1"], ["steps = -1 was given"]),
        (["sgd", *TINY, "--jobs", "0"], ["--jobs 0 was given", "at least 1"]),
        (["sgd", *TINY, "--jobs", "-2"], ["--jobs -2 was given", "at least 1"]),
        (["sgd", *TINY, "--compute", "nanms"], ["a compute time of nan s"]),
        (["sgd", *TINY, "--target", "nan"], ["a target of nan"]),
        (["sgd", *TINY, "--network", "fast"], ["cannot read the network 'fast'", "100Mbit,20ms"]),
        (["sgd", *TINY, "--network", "0Mbit,1ms"], ["bandwidth must be above 0"]),
    ],
    ids=lambda value: " ".join(value[:4]) if value and isinstance(value, list) else None,
)
def test_a_mistake_is_one_message(
    arguments: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_refused(monkeypatch, capsys, ["compare", *arguments], parts)
    assert not everything(tmp_path)


@pytest.mark.parametrize("arguments", [["sgd", "--steps", "many"], ["sgd", "--colour", "red"]])
def test_what_the_parser_refuses_has_status_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "compare", *arguments) == 2
    shown = capsys.readouterr()
    assert "Error: " in shown.err
    assert "Traceback" not in shown.err
    assert not everything(tmp_path)


def test_another_comparison_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "compare", "sgd", *TINY, "--out", "there") == 0
    before = everything(tmp_path)
    capsys.readouterr()
    assert run_cli(monkeypatch, "compare", "sgd", *TINY, "--out", "there", "--workers", "3") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: there holds another comparison (workers 2, now 3); choose another --out or delete")
    assert everything(tmp_path) == before
    (tmp_path / "there" / "comparison.json").write_text("[]")
    assert run_cli(monkeypatch, "compare", "sgd", *TINY, "--out", "there") == 2
    assert "comparison.json is not a comparison of this version" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["thinwire", "torch", "python"])
def test_a_comparison_made_by_other_code_is_not_gone_on_with(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "compare", "sgd", *TINY, "--out", "there") == 0
    path = tmp_path / "there" / "comparison.json"
    description = json.loads(path.read_text())
    assert list(description["made_by"]) == ["thinwire", "torch", "python"]
    now = description["made_by"][name]
    description["made_by"][name] = "0.0.1"
    path.write_text(json.dumps(description))
    before = everything(tmp_path)
    capsys.readouterr()
    assert run_cli(monkeypatch, "compare", "sgd", *TINY, "--out", "there") == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: there holds another comparison (made by {name} 0.0.1, now {now}); choose another")
    assert "delete the folder" in shown
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tune-steps", "1"], ["--tune-steps has no effect with a single learning rate"]),
        (["--lrs", "0.1,0.2,0.3", "--tune-steps", "1"], []),
        (["--data", "/nowhere"], ["--data /nowhere has no effect"]),
    ],
)
def test_what_has_no_effect_is_told_once(
    arguments: list[str],
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run_cli(monkeypatch, "compare", "sgd", *TINY, *arguments) == 0
    shown = capsys.readouterr().err
    assert shown.count("warning: ") == len(told)
    assert all(part in shown for part in told)


def test_simulated_settings_have_no_effect_on_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # No workers are refused after the warnings and before any process starts.
        arguments = ("--engine", "processes", "--compute", "5ms", "--workers", "0")
        assert run_cli(monkeypatch, "compare", "sgd", *TINY[:-4], *arguments, "--network", "1Mbit,1ms") == 2
    shown = capsys.readouterr().err
    assert shown.count("warning: ") == 2
    assert "--compute has no effect with --engine processes" in shown
    assert "--network has no effect with --engine processes" in shown
