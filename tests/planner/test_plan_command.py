"""``thinwire plan`` as users start it, under torchrun, and what it says of its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run_cli
from rich.console import Console

import thinwire
from thinwire.cli.planning import PlanRequest, _allowed, advice, make_table
from thinwire.network import Network
from thinwire.planner import Candidate, Kind, MeasuredCompute, MeasuredLink, Measurements, PlanRow, Seconds, candidates
from thinwire.planner.compute import PlainSteps
from thinwire.planner.family import DENSE, DENSE_BF16
from thinwire.report import print_fitted
from thinwire.step_time import Bucket, Compute

METHOD = "signtopk:density=1%,every=8"


def row(method: str, kind: Kind, step_s: float, spread: float = 0.1, period: float = 1.0) -> PlanRow:
    step = Seconds(step_s * (1 - spread), step_s, step_s * (1 + spread))
    return PlanRow(Candidate(method, kind), step, period, 2e6, 0.003, 4_000_000)


def rows(spread: float = 0.1) -> list[PlanRow]:
    return [
        row(METHOD, Kind.SYNCHRONIZED, 0.1, spread, period=8.0),
        row("topk:density=1%", Kind.HOOKED, 0.2, spread),
        row(DENSE_BF16, Kind.DENSE_BF16, 0.4, spread),
        row(DENSE, Kind.DENSE, 0.8, spread),
    ]


def found() -> Measurements:
    compute = MeasuredCompute((Compute((Bucket(500, 0.02),), 0.025, 0.03),), (("w",),))
    network = Network.parse("100Mbit,20ms")
    return Measurements(
        500, 2, network, compute, compute, PlainSteps((0.03,), (0.03,)),
        {}, {METHOD: 8.0}, MeasuredLink({}), 1.0, {}, {},
    )  # fmt: skip


def request(losses: dict[str, float | None], most_loss: float) -> PlanRequest:
    def judge(candidate: Candidate, size: int) -> float | None:
        return losses[candidate.method]

    def make(rank: int) -> Any:
        raise AssertionError("nothing is trained")

    return PlanRequest(chosen=candidates([]), make=make, limit_s=1.0, judge=judge, most_loss=most_loss)


def test_under_torchrun_it_predicts_and_names_what_to_train_with(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def made():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Linear(100, 40), lambda model: model(torch.ones(4, 100)).square().mean()\n"
    )
    path = tmp_path / "lines.jsonl"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "thinwire",
        "plan", METHOD, "--model", "own:made", "--limit", "0.02", "--json", str(path),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(thinwire.__file__).parents[1]), "COLUMNS": "160"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "4,040 entries, 2 processes" in done.stdout
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["method"] for line in lines} == {each.method for each in candidates([METHOD])}
    dense = min(line["step_s"] for line in lines if line["method"] in (DENSE, DENSE_BF16))
    for line in lines:
        assert line["gain"] == pytest.approx(dense / line["step_s"])
        assert line["low_gain"] < line["gain"] < line["high_gain"]
        assert (line["processes"], line["numel"], line["loss"]) == (2, 4040, None)
    assert "expected gain of" in done.stdout
    assert METHOD in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "digits"], "torchrun --nproc-per-node 2 -m thinwire plan"),
        (["--under", "sgd"], "--task NAME, --model"),
        (["--under", "--task", "digits", "--model", "a:b"], "give one of them"),
        (["--under", "--task", "digits", "--compute", "5ms"], "is measured"),
        (["--under", "--compute", "5ms", "--numel", "1M", "--like", "gpt2"], "give one of them"),
        (["--under", "--compute", "5ms,jitter=20%"], "one time, such as 50ms"),
        (["--under", "--task", "digits", "--limit", "-1"], "0 or more"),
        (["--under", "easgd-async", "--task", "digits"], "server"),
        (["--under", "--compute", "5ms", "--accuracy-loss", "0.1"], "judged from --gradients FILE"),
        (["--under", "--task", "digits", "--accuracy-loss", "-1"], "0 or more"),
        (["--under", "--task", "digits", "--gradients", "none.pt"], "without --accuracy-loss"),
        (["--under", "--task", "digits", "--accuracy-loss", "1", "--trial-steps", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_advice(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "--under":
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # as under torchrun
    assert run_cli(monkeypatch, "plan", *(each for each in arguments if each != "--under")) == 2
    assert said in capsys.readouterr().err


def test_the_table_has_steps_their_intervals_and_gains_over_the_fastest_dense() -> None:
    made = rows()
    console = Console(width=160)
    with console.capture() as capture:
        print_fitted(make_table(made, made[2], found(), {METHOD: None, "topk:density=1%": 0.25}), console)
    lines = capture.get().splitlines()
    assert "500 entries, 2 processes; 100 Mbit/s, 20 ms; 30 ms of compute" in lines[0]
    cells = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert cells[METHOD] == [
        METHOD, "100", "ms", "90", "ms", "-", "110", "ms", "4", "8", "2", "MB", "3", "ms", "4", "MB",
        "not", "told",
    ]  # fmt: skip
    assert cells["topk:density=1%"][-1] == "0.25"


def test_the_advice_names_method_period_and_gain_with_its_interval() -> None:
    made = rows()
    assert advice(made, made[2]) == (
        f"use {METHOD}, with thinwire.synchronize: 100 ms a step where dense, bf16 takes 400 ms, 4 times as long\n"
        f"expected gain of {METHOD} over dense, bf16: 4 (3.27 to 4.89), an exchange every 8 steps"
    )
    assert "the interval has 1 in it" in advice(rows(0.7), rows(0.7)[2])
    assert advice(made[2:], made[2]) == (
        "nothing faster keeps to --accuracy-loss; train with DDP and its bf16_compress_hook: 400 ms"
    )


def test_only_what_gives_up_little_enough_is_advised() -> None:
    made = rows()
    losses, allowed = _allowed(made, request({METHOD: 0.2, "topk:density=1%": 0.05}, 0.1), 2)
    assert losses == {METHOD: 0.2, "topk:density=1%": 0.05}
    assert [each.method for each in allowed] == ["topk:density=1%", DENSE]
    # What cannot be told is not advised, and rounding to 16 bits is judged like the rest.
    untold = {METHOD: None, "topk:density=1%": 0.2, DENSE_BF16: 0.0}
    losses, allowed = _allowed(made, request(untold, 0.1), 2)
    assert losses == untold
    assert [each.method for each in allowed] == [DENSE_BF16, DENSE]
    nothing, everything = _allowed(made, PlanRequest(
        chosen=(), make=request({}, 0).make, limit_s=1.0, judge=None, most_loss=0.0
    ), 2)  # fmt: skip
    assert nothing == {}
    assert everything == made
