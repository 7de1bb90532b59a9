"""The page of all methods, and the README's choice, are what the study says."""

from typing import Any

import pytest
from write_method_table import BEGIN, END, LINKS, PAGE, README, choice, page, study, with_choice

from thinwire.methods import CATALOG, parse_method

TASKS = study()
ROWS = [(name, row) for name, task in TASKS.items() for row in task["rows"]]


@pytest.mark.parametrize("name", TASKS)
def test_the_page_names_every_row_of_the_catalog(name: str) -> None:
    studied = {row["method"].partition(":")[0] for row in TASKS[name]["rows"]}
    assert all(row.name in studied or f"`{row.name}`" in page(TASKS).partition("##")[0] for row in CATALOG)


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda each: each if isinstance(each, str) else each["method"])
def test_every_method_can_still_be_made(name: str, row: dict[str, Any]) -> None:
    parse_method(row["method"])
    assert 0 <= row["reached"] <= row["runs"] == 3


def test_the_pages_are_up_to_date() -> None:
    readme = README.read_text()
    assert BEGIN in readme
    assert END in readme
    assert PAGE.read_text() == page(TASKS), "run: python docs/write_method_table.py"
    assert readme == with_choice(readme, TASKS), "run: python docs/write_method_table.py"


def _row(method: str, final: float, seconds: float, num_bytes: float, **other: Any) -> dict[str, Any]:
    plain = {"within": 0.01, "diverged": 0, "runs": 3, "reached": 3, "bytes": num_bytes}
    return {"method": method, "final": final, "links": dict.fromkeys(LINKS, seconds), **plain, **other}


def _task(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "classes", "parameters": 1234, "higher_is_better": True, "margin": 0.01, "rows": rows}


def test_the_choice_is_the_fastest_that_ends_as_well_as_dense_training() -> None:
    dense, half = _row("sgd", 0.9, 20.0, 4e6), _row("bf16-sgd", 0.9, 10.0, 2e6)
    lossy, rare = _row("signsgd", 0.8, 1.0, 1e3), _row("demo", 0.9, 2.0, 1e3, reached=2)
    scattered = _row("dgc", 0.8, 1.0, 1e3, within=0.5)
    good = _row("topk", 0.895, 4.0, 1e4)
    text = choice({"digits": _task(dense, half, lossy, rare, scattered, good)})
    assert text.count("`topk`: 2.50 times faster, 200 times fewer bytes") == len(LINKS)
    assert "classes, 1,234 parameters" in text


def test_it_is_compared_with_the_fastest_dense_method_that_is_as_good() -> None:
    rows = [_row("sgd", 0.9, 20.0, 4e6), _row("sgd", 0.895, 8.0, 2e6), _row("sgd", 0.8, 1.0, 1e6)]
    text = choice({"digits": _task(*rows, _row("topk", 0.9, 4.0, 1e4))})
    assert text.count("`topk`: 2.00 times faster, 200 times fewer bytes") == len(LINKS)


def test_where_nothing_pays_it_says_so() -> None:
    dense, slow = _row("bf16-sgd", 0.9, 10.0, 2e6), _row("topk", 0.9, 11.0, 1e4)
    assert choice({"digits": _task(dense, slow)}).count("`bf16-sgd`: nothing pays") == len(LINKS)
