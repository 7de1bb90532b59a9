import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thinwire.cli.application import app
from thinwire.compressors import Identity, Sign, TopK
from thinwire.frontier import make_input, sweep
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.ladders import OperatorFamily, plain_families
from thinwire.frontier.problems import Problem
from thinwire.frontier.tables import BUDGETED
from thinwire.report.document import LIBRARY


def few_families(problem: Problem) -> list[OperatorFamily]:
    return [family for cls in (Identity, Sign, TopK) for family in plain_families(cls, (None,))]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinwire.frontier.search.all_families", few_families)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["frontier", "--numel", "512", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.usefixtures("quick")
def test_tables_json_and_figures(tmp_path: Path) -> None:
    lines, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
    shown = run("--input", "student", "--bits", "2,4", "--clients", "1,4", "--json", str(lines), "--html", str(page))
    assert "mean of 4 clients" in " ".join(shown.split())
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {row["clients"] for row in rows} == {1, 4}
    assert all(row["bits"] <= row["budget"] * (1.0 if row["clients"] == 1 else 1.02) for row in rows)
    assert {row["operator"] for row in rows} == {"Sign", "TopK"}
    text = page.read_text()
    assert "http-equiv" in text
    assert (tmp_path / LIBRARY).exists()
    assert re.findall(r'\bsrc="([^"]*)"', text) == [LIBRARY]
    command = text.partition('id="command"')[2].partition("<pre>")[2].partition("</pre>")[0]
    assert command
    assert f"<code>{command} --inline</code> makes a page" in text


@pytest.mark.usefixtures("quick")
def test_the_best_operator_is_one_line() -> None:
    assert "lognormal: TopK(density=" in run("--input", "lognormal", "--best", "bits=1.2")
    assert "gaussian: Identity()" in run("--input", "gaussian", "--best", "error=1e-12")


def test_tables_of_known_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole family of that operator is searched, on every input, where its errors are checked.
    monkeypatch.setitem(BUDGETED, "QSGD top-k", BUDGETED["QSGD top-k"][:1])
    assert "pi_srk k=2" in run("--table", "reference", "--input", "gaussian")
    shown = run("--table", "budget", "--input", "gaussian", "--bits", "4", "--json", "-")
    rows = [json.loads(line) for line in shown.splitlines()]
    assert {row["budget"] for row in rows} == {4.0}
    assert {row["name"] for row in rows} >= {"top-k f32", "QSGD top-k", "GSpar"}


def test_the_search_of_levels_and_kept_entries() -> None:
    assert "1652" in run("--gamma", "0.01", "--numel", "7850")


@pytest.mark.usefixtures("quick")
def test_of_several_clients_and_of_many_steps() -> None:
    data = make_input("gaussian", 512, num_noises=32)
    found = sweep.frontier(data, budgets=(1.5, 4.0), clients=(1, 32), num_steps=10)
    sums = {row.configuration: row.running_sum for row in found.rows if row.clients == 1 and row.kind == "any"}
    assert all(value is not None and value < 1 for value in sums.values())
    best = {(row.budget, row.clients): row for row in found.rows if row.operator == "TopK" and row.kind == "any"}
    assert best[4.0, 1].error < best[1.5, 1].error
    assert found.pareto("unbiased") == []
    assert Configuration(Sign()) in {point.configuration for point in found.points}
