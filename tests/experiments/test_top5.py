"""The share of examples whose class is among the five likeliest: measured, recorded, reported."""

import csv
import io
import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from report_folders import Plan, write_folder
from rich.console import Console
from torch import nn

from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.session import Session
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks.digits import digits
from thinwire.experiments.tasks.stdlib_lm import stdlib_lm
from thinwire.network import Network
from thinwire.report import csv_table, latex_table, load, print_table, summarise, write_page


def test_it_counts_the_examples_with_fewer_than_five_classes_above_their_own() -> None:
    task = digits()
    model = task.model(3)
    found = task.evaluate(model, "test")
    with torch.no_grad():
        scores = model(task.test.pixels)
    own = scores.gather(1, task.test.classes[:, None])
    num_above = (scores > own).sum(1)
    assert found.top5 is not None
    assert found.top5 == pytest.approx((num_above < 5).double().mean().item())
    assert found.value == pytest.approx((num_above < 1).double().mean().item())
    assert 0 < found.value < found.top5 < 1


def few_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def test_fewer_than_ten_classes_and_texts_have_none() -> None:
    task = digits()
    kept = task.test.at((task.test.classes < 9).nonzero().squeeze(1))
    fewer = replace(task, build=few_classes, test=kept)
    assert fewer.evaluate(fewer.model(0), "test").top5 is None
    text = stdlib_lm(context=16)
    assert text.evaluate(text.model(0), "test").top5 is None


def test_records_have_what_the_common_model_is_evaluated_to(tmp_path: Path) -> None:
    task = digits()
    comparison = Comparison(
        methods=("topk:density=10%",), task="digits", workers=2, lrs=(0.3,), steps=20, tune_steps=20, evaluate_every=10,
        batch_size=4,
    )  # fmt: skip
    run = Run(comparison.methods[0], Setting("sgd", "", 0.3), 0, "final", 20)
    session = Session(comparison, run, task, SimulatedEngine(2, Network()), tmp_path)
    records = list(session.records())
    model = task.model(0)
    model.load_state_dict({**model.state_dict(), **session.workers[0].shared_parameters()})
    assert records[-1]["top5"] == task.evaluate(model, "test").top5
    assert records[0]["top5"] == task.evaluate(task.model(0), "test").top5 != records[-1]["top5"]


def test_page_and_exports_have_a_column_of_it_and_the_terminal_has_not(tmp_path: Path) -> None:
    methods = ("sgd", "ef-signsgd")
    folder = write_folder(tmp_path, Plan(methods=methods, diverges={"ef-signsgd": (1,)}))
    older = load(tmp_path)
    assert [row.final_top5 for row in summarise(older)] == [None, None]
    assert "top-5" not in latex_table(summarise(older))
    share = {0: 0.96, 1: 0.98}
    changed = [
        record | {"top5": None if record["value"] is None else share[record["seed"]] + 0.0001 * record["step"]}
        for record in folder.results
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in changed))
    rows = summarise(load(tmp_path))
    finals = {
        method: [r["top5"] for r in changed if r["method"] == method and r["step"] == 600 and r["top5"] is not None]
        for method in methods
    }
    assert [len(values) for values in finals.values()] == [2, 1]
    assert [row.final_top5 for row in rows] == pytest.approx([statistics.mean(finals[method]) for method in methods])
    assert rows[0].final_top5_within is not None
    assert rows[1].final_top5_within is None
    write_page(load(tmp_path), tmp_path / "page.html")
    assert '<th scope="col">top-5</th>' in (tmp_path / "page.html").read_text()
    assert "top-5" in latex_table(rows)
    exported = list(csv.DictReader(io.StringIO(csv_table(rows))))
    assert [float(line["final_top5"]) for line in exported] == [row.final_top5 for row in rows]
    shown = io.StringIO()
    print_table(rows, Console(file=shown, width=160))
    assert "top-5" not in shown.getvalue()
