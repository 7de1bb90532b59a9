"""A bound that a run's settings rest on: one warning where it is broken, none where it holds, and a figure of it."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import user_tasks
from commands import start

from thinwire import report
from thinwire.compressors import RandK, Traits
from thinwire.experiments import bound_watch
from thinwire.experiments.bound_watch import BoundBroken, BoundWatch
from thinwire.experiments.bounds import exceeds, promised_error
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.executors import LocalExecutor
from thinwire.experiments.records import Record, is_finished, records_of
from thinwire.experiments.spec import Comparison, Run
from thinwire.files import StrPath
from thinwire.layout import Layout
from thinwire.methods import Method, parse_method
from thinwire.report.figures import panels

METHOD = "mem-sgd:select=random,k=1"
SHIFT = 4 * 20
"""4 H / gamma for one entry of 20."""
LAYOUT = Layout(("weight",), (torch.Size([1, 20]),))
COMPARISON = Comparison(
    methods=(METHOD,), task="user_tasks:regression", workers=2, lrs=(8 * 400 / 1.0,), steps=60, tune_steps=60,
    evaluate_every=20, batch_size=4, lr_schedule="inverse:shift=1",
)  # fmt: skip
SAFE = replace(COMPARISON, lrs=(1.0,), lr_schedule=f"inverse:shift={SHIFT}")


def compare(comparison: Comparison, out: Path) -> list[dict[str, Any]]:
    task, executor = user_tasks.regression(), LocalExecutor(1)
    ComparisonRunner(comparison, task, out, executor, command="test", watch=lambda *_: None).run()
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def final(comparison: Comparison, seed: int = 0) -> Run:
    return Run(METHOD, comparison.settings(METHOD)[0], seed, "final", comparison.steps)


@pytest.mark.parametrize(
    "engine", [("simulate", "--codec", "free", "--jobs", "1"), ("processes",)], ids=lambda each: each[0]
)
def test_a_shift_too_small_is_told_once(engine: tuple[str, ...], tmp_path: Path) -> None:
    command = [
        "compare", METHOD, "sgd", "--task", "user_tasks:regression", "--workers", "2", "--seeds", "0",
        "--lrs", "3200", "--steps", "60", "--evaluate-every", "20", "--batch-size", "4",
        "--lr-schedule", "inverse:shift=1", "--out", str(tmp_path), "--json", "-",
        "--engine", *engine,
    ]  # fmt: skip
    with start(command) as process:
        _, shown = process.communicate(timeout=120)
    assert process.returncode == 0, shown
    (warning,) = [line for line in shown.splitlines() if line.startswith("warning: ")]
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    broken = [each for each in records if (each["memory_bound"] or math.inf) < each["memory_norm"]]
    assert {each["method"] for each in broken} == {METHOD}
    first = broken[0]
    assert all(
        part in warning
        for part in (
            METHOD, f"{first['memory_norm']:.3g} at step {first['step']}", f"{first['memory_bound']:.3g}",
            "shift is 1", f"needs {SHIFT}", f"--lr-schedule inverse:shift={SHIFT}",
        )
    ), warning  # fmt: skip
    assert json.loads((tmp_path / "comparison.json").read_text())["notes"][-1] in warning


def test_the_figure_shows_why(tmp_path: Path) -> None:
    with pytest.warns(BoundBroken) as told:
        records = compare(replace(COMPARISON, seeds=(0, 1)), tmp_path)
    assert len(told) == 1  # not one for each seed
    (panel,) = [each for each in panels(report.load(tmp_path)) if each.title.startswith("norm of the memory")]
    drawn = {trace.meta["part"]: trace for trace in panel.figure.data}
    for name, part in (("memory_norm", "line"), ("memory_bound", "bound")):
        means = [fmean(each[name] for each in records if each["step"] == step) for step in (20, 40, 60)]
        assert list(drawn[part].y) == pytest.approx(means)
    assert drawn["bound"].line.dash == "dash"
    assert any(above > below for above, below in zip(drawn["line"].y, drawn["bound"].y, strict=True))


@pytest.mark.parametrize(
    "method", [METHOD, "mem-sgd:k=1", "ef-sgd:k=2", "qsparse:density=10%,every=4", "local-sgd:every=8"]
)
@pytest.mark.parametrize("schedule", ["constant", f"inverse:shift={SHIFT}", "drops:at=30,factor=0.1"])
def test_nothing_is_told_where_bounds_hold(method: str, schedule: str, tmp_path: Path) -> None:
    records = compare(replace(SAFE, methods=(method,), lr_schedule=schedule), tmp_path)  # a warning would be an error
    for record in records[1:]:
        assert (record["memory_bound"] is None) == ("local" in method)
        if record["memory_bound"] is not None:
            assert 0.0 < record["memory_norm"] <= record["memory_bound"]
            assert record["virtual_distance"] <= record["virtual_bound"]
        assert (record["drift_bound"] is None) == ("every" not in method)
        if record["drift_bound"] is not None:
            assert record["local_drift"] <= record["drift_bound"]


@pytest.mark.parametrize(
    ("method", "most"),
    [
        ("sgd", 0.0), ("local-sgd:every=4", 0.0),  # all is sent
        (METHOD, 1 - 1 / 20), ("mem-sgd:k=5", 1 - 5 / 20), ("topk:density=10%", 1 - 2 / 20),
    ],
)  # fmt: skip
def test_a_contraction_promises_to_lose_what_it_does_not_keep(method: str, most: float) -> None:
    assert promised_error(parse_method(method), LAYOUT) == pytest.approx(most, abs=1e-12)


def test_messages_that_lose_more_than_was_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = replace(SAFE, evaluate_every=6)
    records = compare(comparison, tmp_path / "honest")  # a warning would be an error
    lost = [record["relative_error"] for record in records[1:]]
    assert all(0.0 < each <= 1.0 for each in lost)

    # Now it says that it keeps nearly all, where it keeps one entry of 20.
    monkeypatch.setattr(RandK, "traits", lambda self, numel: Traits(unbiased=False, error=0.1))
    watch = BoundWatch(comparison, LAYOUT, tmp_path / "honest")
    with pytest.warns(BoundBroken, match=r"its compressor promises at most 0\.1:") as told:
        watch.look([final(comparison)])
    assert f"lose {fmean(lost):.3g} of" in str(told[0].message)
    assert list(watch.found) == [METHOD]


@pytest.mark.parametrize(("kept", "times"), [(0.5, 1.0), (0.05, 1.0), (0.01, 1.0), (0.05, 0.25), (0.01, 0.25)])
def test_few_samples_of_what_is_seldom_kept_are_no_proof(kept: float, times: float) -> None:
    # All of a vector is kept, or nothing: of equal mean, nothing varies more. A share of it varies less.
    drawn = torch.rand(400, 500, generator=torch.Generator().manual_seed(5)) < kept / times
    lost = 1.0 - times * drawn.double()
    assert lost.mean().item() == pytest.approx(1.0 - kept, abs=5 * (kept * times / lost.numel()) ** 0.5)
    assert not any(exceeds(run, 1.0 - kept) for run in lost.tolist())  # at any length: it looks at each
    assert all(exceeds(run, (1.0 - kept) / 2) for run in lost.tolist())


@pytest.mark.parametrize("promise", [0.1, 0.9, 3.0])
def test_what_is_lost_beyond_the_promise_is_found(promise: float) -> None:
    over = 1.1 * promise
    # Of a promise broken by a tenth, each bet of all wins a tenth.
    needed = math.ceil(math.log(4e6) / math.log(1.1))
    assert exceeds([over] * needed, promise)
    assert not exceeds([over] * (needed - 1), promise)
    assert not exceeds([promise] * 10_000, promise)
    assert exceeds([1e-2], 1e-9)  # who promises to lose nothing is found at once


def test_a_method_is_checked_once_and_a_finished_run_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = replace(SAFE, seeds=(0, 1))
    compare(comparison, tmp_path)
    runs = [final(comparison, seed) for seed in (0, 1)]
    assert all(is_finished(records_of(tmp_path, run), run) for run in runs)
    cut = tmp_path / "runs" / runs[1].name / "records.jsonl"
    whole = cut.read_text()
    cut.write_text(whole.split("\n")[0] + "\n")

    read, checked = Counter[int](), Counter[str]()

    def reading(out: StrPath, run: Run) -> list[Record]:
        read[run.seed] += 1
        return records_of(out, run)

    def checking(method: Method, layout: Layout) -> float:
        checked[METHOD] += 1
        return promised_error(method, layout)

    monkeypatch.setattr(bound_watch, "records_of", reading)
    monkeypatch.setattr(bound_watch, "promised_error", checking)
    watch = BoundWatch(comparison, LAYOUT, tmp_path)
    for _ in range(3):
        watch.look(runs)
    cut.write_text(whole)
    for _ in range(3):
        watch.look(runs)
    assert read == {0: 1, 1: 4}
    assert checked == {METHOD: 1}
