"""Seconds of a step on other links, without training there."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import user_tasks

from thinwire.experiments import link_sweep
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.executors import LocalExecutor
from thinwire.experiments.link_sweep import LINKS, MAX_STEPS, sweep_links
from thinwire.experiments.session import Session
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.network import Network


@pytest.mark.parametrize(
    ("name", "period"), [("sgd", 1), ("local-sgd:every=3", 3), ("sparse-averaging:fragments=2", 2)]
)
def test_a_swept_link_takes_what_training_on_it_takes(name: str, period: int, tmp_path: Path) -> None:
    comparison = Comparison(
        methods=(name,), task="user_tasks:bowl", workers=3, lrs=(0.1,), steps=8, tune_steps=1, evaluate_every=4,
        batch_size=1, overlap="ddp", network=Network.parse("100Mbit,1ms"),
    )  # fmt: skip
    run = Run(name, Setting("sgd", "", 0.1), 0, "final", 8, (0.001, 0.002))
    swept = sweep_links(comparison, user_tasks.bowl(), [run], [])
    assert [each["network"] for each in swept] == list(LINKS)
    for each in swept:
        network = Network.parse(each["network"])
        engine = SimulatedEngine(3, network)
        session = Session(replace(comparison, network=network), run, user_tasks.bowl(), engine, tmp_path)
        session.train(0, period)
        begun_s = engine.seconds()
        session.train(period, 2 * period)
        assert each["seconds_per_step"] == {name: (engine.seconds() - begun_s) / period}


PLAIN = Comparison(
    methods=("sgd", "topk:k=1"), task="user_tasks:bowl", workers=2, lrs=(0.1,), steps=4, tune_steps=4, evaluate_every=2,
    batch_size=1, codec="free",
)  # fmt: skip


class Stops(Exception):
    """Ends a comparison before its final runs."""


def compare(comparison: Comparison, out: Path, stop_at: str = "") -> dict[str, Any]:
    def watch(what: str, runs: Sequence[Run], out: Path) -> None:
        if what == stop_at:
            raise Stops

    ComparisonRunner(comparison, user_tasks.bowl(), out, LocalExecutor(1), command="test", watch=watch).run()
    return described(out)


def described(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    return found


def test_seconds_of_an_earlier_call_are_those_of_the_same_setting(tmp_path: Path) -> None:
    fresh = compare(PLAIN, tmp_path)["links"]
    marked = described(tmp_path)
    for each in marked["links"]:
        each["seconds_per_step"]["sgd"] = 123.0
    (tmp_path / "comparison.json").write_text(json.dumps(marked))
    assert compare(PLAIN, tmp_path)["links"] == marked["links"]  # they are not found again

    other = replace(PLAIN, optimizers=("sgd:momentum=0.5",))
    with pytest.raises(Stops):
        compare(other, tmp_path, stop_at="training")
    stopped = described(tmp_path)
    assert stopped["chosen"]["sgd"]["optimizer"] == "sgd:momentum=0.5"
    assert all(each["seconds_per_step"] == {} for each in stopped["links"])
    assert compare(other, tmp_path)["links"] == fresh  # momentum changes no bytes and no seconds


def test_what_is_long_is_left_out_and_told(tmp_path: Path) -> None:
    short, long = f"local-sgd:every={MAX_STEPS // 2}", f"local-sgd:every={MAX_STEPS // 2 + 1}"
    found = compare(replace(PLAIN, methods=(short, long), steps=MAX_STEPS + 2, evaluate_every=MAX_STEPS), tmp_path)
    assert [list(each["seconds_per_step"]) for each in found["links"]] == [[short]] * len(LINKS)
    assert f"at most {MAX_STEPS} steps; there are none of {long}." in found["notes"][-1]


def test_a_run_that_diverged_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    periods = link_sweep._traced_periods

    def counted(comparison: Comparison, task: user_tasks.Bowl, run: Run, period: int) -> Any:
        tried.append(run.method)
        return periods(comparison, task, run, period)

    monkeypatch.setattr(link_sweep, "_traced_periods", counted)
    tame = replace(PLAIN, methods=("sgd",), steps=12)
    compare(tame, tmp_path / "tame")
    assert tried == ["sgd"]
    found = compare(replace(tame, lrs=(1e12,)), tmp_path / "wild")
    assert json.loads((tmp_path / "wild" / "results.jsonl").read_text().splitlines()[-1])["value"] is None
    assert tried == ["sgd"]
    assert all(each["seconds_per_step"] == {} for each in found["links"])
